"""What is believed of the files in /sys: real files, laid out as the rovers' systems have them."""

import os

import pytest

from jetson_cluster import sensors


def put(root, path, text):
    """Write one file of the pretended /sys."""
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else str(text).encode() + b"\n")
    return file


def zone(root, number, kind, temperature):
    """One thermal zone; temperature as its file says it."""
    folder = "class/thermal/thermal_zone%d/" % number
    put(root, folder + "type", kind)
    if temperature is not None:
        put(root, folder + "temp", temperature)


def read(root):
    return sensors.temperatures(str(root))


def test_the_silicon_of_a_nano_is_read_by_type_whatever_the_numbers_of_its_zones(tmp_path):
    zone(tmp_path, 0, "AO-therm", 45500)
    zone(tmp_path, 11, "CPU-therm", 39000)
    zone(tmp_path, 2, "GPU-therm", 37500)
    zone(tmp_path, 3, "PLL-therm", 36500)
    zone(tmp_path, 4, "PMIC-Die", 100000)
    zone(tmp_path, 5, "thermal-fan-est", 38250)
    assert read(tmp_path) == {"CPU-therm": 39.0, "GPU-therm": 37.5, "PLL-therm": 36.5}


def test_the_zones_of_jetpack_6_are_read_too(tmp_path):
    for number, kind in enumerate(["cpu-thermal", "gpu-thermal", "soc0-thermal", "tj-thermal"]):
        zone(tmp_path, number, kind, 50000 + number)
    assert read(tmp_path) == {"cpu-thermal": 50.0, "gpu-thermal": 50.001, "soc0-thermal": 50.002,
                              "tj-thermal": 50.003}


def test_another_computers_zones_say_nothing(tmp_path):
    for number, kind in enumerate(["x86_pkg_temp", "acpitz", "iwlwifi_1", "INT3400 Thermal"]):
        zone(tmp_path, number, kind, 99000)
    assert read(tmp_path) == {}


@pytest.mark.parametrize("temperature, degrees", [
    ("-60000", -60.0), ("-90000", -90.0), ("130000", 130.0), ("1", 0.001), ("-500", -0.5)])
def test_cold_is_real_on_mars(tmp_path, temperature, degrees):
    zone(tmp_path, 0, "CPU-therm", temperature)
    assert read(tmp_path) == {"CPU-therm": degrees}


@pytest.mark.parametrize("temperature", [
    "0", "-0", "-90001", "130001", "-256000", "", "hot", "45.5", "0x1000", b"\xff\xfe", None,
    "9" * 40])
def test_what_no_silicon_can_have_is_a_missing_sensor_and_the_others_still_speak(
        tmp_path, temperature):
    zone(tmp_path, 0, "CPU-therm", temperature)
    zone(tmp_path, 1, "GPU-therm", 41000)
    assert read(tmp_path) == {"GPU-therm": 41.0}


def test_of_two_zones_of_one_type_the_hotter_counts(tmp_path):
    for number, temperature in enumerate([-20000, 63000, 12000]):
        zone(tmp_path, number, "CPU-therm", temperature)
    assert read(tmp_path) == {"CPU-therm": 63.0}


def test_a_zone_whose_files_cannot_be_read_is_missing(tmp_path):
    zone(tmp_path, 0, "CPU-therm", None)
    (tmp_path / "class/thermal/thermal_zone0/temp").mkdir()  # EISDIR, for root as well
    (tmp_path / "class/thermal/thermal_zone1").mkdir()
    (tmp_path / "class/thermal/cooling_device0").mkdir()
    assert read(tmp_path) == {}


def test_a_system_without_any_of_it_tells_nothing(tmp_path):
    root = str(tmp_path / "absent")
    assert (sensors.temperatures(root), sensors.power_mw(root), sensors.gpu_load(root)) == (
        {}, {}, None)


# ---- power ---------------------------------------------------------------------------------------

NANO = "bus/i2c/drivers/ina3221x/6-0040/iio:device0/"
ORIN = "class/hwmon/hwmon3/"


def test_a_nanos_rails_are_read_in_milliwatts(tmp_path):
    for number, (name, milliwatts) in enumerate([
            ("POM_5V_IN", 3214), ("POM_5V_GPU", 0), ("POM_5V_CPU", 811)]):
        put(tmp_path, NANO + "rail_name_%d" % number, name)
        put(tmp_path, NANO + "in_power%d_input" % number, milliwatts)
        put(tmp_path, NANO + "in_current%d_input" % number, 99)
    assert sensors.power_mw(str(tmp_path)) == {
        "POM_5V_IN": 3214, "POM_5V_GPU": 0, "POM_5V_CPU": 811}


def test_later_jetpacks_rails_are_volts_times_amperes(tmp_path):
    put(tmp_path, ORIN + "name", "ina3221")
    for number, name, millivolts, milliamperes in [
            (1, "VDD_IN", 5048, 1000), (2, "VDD_CPU_GPU_CV", 5040, 101), (3, "NC", 5000, 7)]:
        put(tmp_path, ORIN + "in%d_label" % number, name)
        put(tmp_path, ORIN + "in%d_input" % number, millivolts)
        put(tmp_path, ORIN + "curr%d_input" % number, milliamperes)
    put(tmp_path, ORIN + "in7_label", "sum of shunt voltages")
    put(tmp_path, ORIN + "in7_input", 5)
    put(tmp_path, "class/hwmon/hwmon0/name", "nct6775")
    put(tmp_path, "class/hwmon/hwmon0/in1_label", "Vcore")
    put(tmp_path, "class/hwmon/hwmon0/in1_input", 900)
    put(tmp_path, "class/hwmon/hwmon0/curr1_input", 900)
    assert sensors.power_mw(str(tmp_path)) == {"VDD_IN": 5048, "VDD_CPU_GPU_CV": 509}


@pytest.mark.parametrize("milliwatts", ["-5", "", "none", "999999999", None])
def test_a_rail_that_says_nonsense_is_left_out(tmp_path, milliwatts):
    put(tmp_path, NANO + "rail_name_0", "POM_5V_IN")
    put(tmp_path, NANO + "rail_name_1", "POM_5V_GPU")
    put(tmp_path, NANO + "in_power1_input", 500)
    if milliwatts is not None:
        put(tmp_path, NANO + "in_power0_input", milliwatts)
    assert sensors.power_mw(str(tmp_path)) == {"POM_5V_GPU": 500}


# ---- the GPU -------------------------------------------------------------------------------------

@pytest.mark.parametrize("place", sensors.GPU_LOADS)
def test_the_gpus_load_is_thousandths_wherever_it_stands(tmp_path, place):
    put(tmp_path, place, 437)
    assert sensors.gpu_load(str(tmp_path)) == 0.437


@pytest.mark.parametrize("text", ["-1", "1001", "", "busy"])
def test_a_load_that_cannot_be_is_passed_over(tmp_path, text):
    put(tmp_path, sensors.GPU_LOADS[0], text)
    assert sensors.gpu_load(str(tmp_path)) is None
    put(tmp_path, sensors.GPU_LOADS[1], 1000)
    assert sensors.gpu_load(str(tmp_path)) == 1.0


def test_this_computers_own_sensors_can_be_asked():
    """Whatever machine this is: what comes back is of the promised kind."""
    assert all(sensors.COLDEST_C <= degrees <= sensors.HOTTEST_C
               for degrees in sensors.temperatures().values())
    assert all(isinstance(rail, int) for rail in sensors.power_mw().values())
    assert os.path.isdir(sensors.ROOT) and (sensors.gpu_load() is None or sensors.gpu_load() <= 1)

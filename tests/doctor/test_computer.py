"""What the doctor says of the computer itself, from files and programs as a Jetson has them."""

import calendar

import pytest

from jetson_cluster.doctor import computer as probes


def test_a_nano_is_named_with_its_system(computer, config):
    computer.nano()
    case = computer.case(config)
    assert case.jetson
    assert probes.model(case).found == "NVIDIA Jetson Nano Developer Kit"
    assert probes.system(case) == ("ok", "L4T 32.7.1, JetPack 4.6", "", "", "", "")


def test_another_computer_is_no_jetson_and_that_is_no_fault(computer, config):
    case = computer.case(config)
    assert not case.jetson and "no Jetson" in probes.model(case).found
    assert [probe(case).level for probe in (probes.system, probes.power_mode, probes.temperature)] \
        == ["skip"] * 3


def test_a_container_on_a_jetson_is_known_by_its_device_nodes(computer, config):
    computer.file("/dev/nvmap", "")
    assert computer.case(config).jetson


@pytest.mark.parametrize("text, level, told", [
    ("# R32 (release), REVISION: 6.1, GCID: 1", "warn", "L4T 32.6.1, JetPack 4.6, whose TensorRT"),
    ("# R35 (release), REVISION: 4.1, GCID: 1", "warn", "L4T 35.4.1, JetPack 5"),
    ("# R36 (release), REVISION: 4.3, GCID: 1", "ok", "L4T 36.4.3, JetPack 6"),
    ("# R28 (release), REVISION: 2.1, GCID: 1", "warn", "L4T 28.2.1"),
    ("something else", "warn", "something else")])
def test_a_system_it_is_not_written_for_is_told(computer, config, text, level, told):
    computer.file("/etc/nv_tegra_release", text)
    finding = probes.system(computer.case(config))
    assert finding.level == level and told in finding.found
    assert ("JetPack 4.6" in finding.needed) == (level == "warn")


def test_the_power_mode_is_asked_of_nvpmodel(computer, config):
    computer.nano()
    computer.program(
        "nvpmodel", "echo NVPM WARN: fan mode is not set!\necho NV Power Mode: 5W\necho 1")
    finding = probes.power_mode(computer.case(config))
    assert finding.level == "warn" and finding.found == "5W (mode 1)"
    assert finding.mend == "sudo nvpmodel -m 0" and "MAXN" in finding.needed


@pytest.mark.parametrize("program", [None, "exit 1", "echo NVPM ERROR: no permission"])
def test_where_nvpmodel_says_nothing_its_status_file_does(computer, config, program):
    computer.nano()
    computer.file("/var/lib/nvpmodel/status", "pmode:0000")
    if program:
        computer.program("nvpmodel", program)
    assert probes.power_mode(computer.case(config)).found == "MAXN (mode 0), the fastest"


def test_a_jetson_whose_power_mode_cannot_be_known_is_told(computer, config):
    computer.nano()
    finding = probes.power_mode(computer.case(config))
    assert finding.level == "warn" and "unknown" in finding.found


@pytest.mark.parametrize("names, best", [
    ({0: "MAXN", 1: "5W"}, 0), ({0: "15W", 1: "7W"}, 0), ({0: "7W", 1: "15W"}, 1),
    ({0: "MODE_10W", 1: "MODE_30W_ALL", 2: "MODE_30W_2CORE"}, 1),
    ({0: "15W", 1: "25W", 2: "MAXN_SUPER", 3: "7W"}, 2), ({0: "MAXN", 1: "MAXN_SUPER"}, 1),
    ({0: "quiet"}, None), ({}, None)])
def test_the_fastest_mode_is_known_by_its_name(names, best):
    assert probes.fastest(names) == best


def meminfo(total_kb, available_kb, swap_kb):
    return "MemTotal: %d kB\nMemFree: 1 kB\nMemAvailable: %d kB\nSwapTotal: %d kB\n" % (
        total_kb, available_kb, swap_kb)


@pytest.mark.parametrize("text, nano, level, told", [
    (meminfo(4059712, 2900000, 2029856), True, "ok", "3.0 GB available of 4.2 GB, 2.1 GB of swap"),
    (meminfo(4059712, 900000, 2029856), True, "warn", "0.9 GB available"),
    (meminfo(4059712, 2900000, 0), True, "warn", "no swap"),
    (meminfo(16000000, 2900000, 0), False, "ok", "no swap"),
    ("", False, "warn", "unknown")])
def test_memory_that_runs_short_is_told(computer, config, text, nano, level, told):
    if nano:
        computer.nano()
    computer.file("/proc/meminfo", text)
    finding = probes.memory(computer.case(config))
    assert finding.level == level and told in finding.found
    assert bool(finding.needed) == (level == "warn")


def zone(computer, number, kind, thousandths):
    folder = "/sys/class/thermal/thermal_zone%d/" % number
    computer.file(folder + "type", kind + "\n")
    computer.file(folder + "temp", "%s\n" % thousandths)


def test_the_hottest_sensor_is_shown_and_heat_that_slows_down_is_told(computer, config):
    computer.nano()
    assert "no sensor" in probes.temperature(computer.case(config)).found
    zone(computer, 0, "CPU-therm", 41500)
    zone(computer, 1, "GPU-therm", 43000)
    zone(computer, 2, "PMIC-Die", 100000)
    assert probes.temperature(computer.case(config)) == (
        "ok", "43.0 C in GPU-therm, the hottest of 2 sensors", "", "", "", "")
    zone(computer, 1, "GPU-therm", 85000)
    finding = probes.temperature(computer.case(config))
    assert finding.level == "warn" and "85.0 C" in finding.found
    marks = ("heat.warm_c=86", "heat.hot_c=95")
    assert probes.temperature(computer.case(config, *marks)).level == "ok"


@pytest.mark.parametrize("year, level", [(1970, "warn"), (2018, "warn"), (2027, "ok"),
                                         (2106, "warn")])
def test_a_clock_that_cannot_be_right_is_told(computer, config, year, level):
    computer.now_s = calendar.timegm((year, 1, 2, 3, 4, 5))
    finding = probes.clock(computer.case(config))
    assert finding.level == level and finding.found == "%d-01-02T03:04:05Z" % year
    assert ("timedatectl" in finding.mend) == (level == "warn")

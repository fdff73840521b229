"""What a Jetson tells of its heat, its power and its GPU, read from the files of /sys.

In: the folder that stands for /sys. Out: temperatures by thermal zone, power by rail, the GPU's
load. A sensor that is absent, cannot be read or says what cannot be is left out; nothing raises.
"""

import glob
import os
import re
from typing import Dict, Optional

ROOT = "/sys"

# The sensors in a Jetson's silicon: CPU-therm, GPU-therm, PLL-therm under L4T 32, cpu-thermal,
# gpu-thermal, tj-thermal under JetPack 6. Other computers' (x86_pkg_temp, acpitz) are left out:
# what is hot there is another question. So are PMIC-Die, which says 100 whatever happens, and
# thermal-fan-est, which is computed.
IN_SILICON = re.compile(r".*-therm(al)?$")
# Reads several degrees above the rest, and a Nano's device tree lets it reach 110 C before it shuts
# down, where CPU and GPU end at 103 C: its numbers mean something else.
APART = ("AO-therm",)
# Mars is cold, silicon that computes is not colder. Exactly 0 is what a sensor says that is off.
COLDEST_C, HOTTEST_C = -90.0, 130.0
MOST_MW = 200000  # more than any Jetson takes

# GPU load in thousandths: L4T 32; JetPack 6; the places that its link may lead to.
GPU_LOADS = ("devices/gpu.0/load", "devices/platform/gpu.0/load",
             "devices/platform/bus@0/17000000.gpu/load", "devices/platform/17000000.ga10b/load")


def temperatures(root: str = ROOT) -> Dict[str, float]:
    """Degrees C by the type of the thermal zone; of two zones of one type the hotter."""
    found = {}  # type: Dict[str, float]
    for folder in glob.glob(os.path.join(glob.escape(root), "class/thermal/thermal_zone*")):
        kind = _text(os.path.join(folder, "type"))
        if kind is None or not IN_SILICON.match(kind) or kind in APART:
            continue
        thousandths = _whole(os.path.join(folder, "temp"))
        if thousandths and COLDEST_C <= thousandths / 1000.0 <= HOTTEST_C:
            found[kind] = max(thousandths / 1000.0, found.get(kind, COLDEST_C))
    return found


def power_mw(root: str = ROOT) -> Dict[str, int]:
    """Milliwatts by the name of the rail that an INA3221 measures."""
    found = {}  # type: Dict[str, int]
    # L4T 32: NVIDIA's own driver gives names and power.
    for path in glob.glob(os.path.join(
            glob.escape(root), "bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_[0-9]")):
        folder, name = os.path.split(path)
        _add_rail(found, _text(path),
                  _whole(os.path.join(folder, "in_power%s_input" % name[-1])))
    # JetPack 5 and 6: the kernel's driver gives mV and mA. Channel 7 is a sum of voltages: no rail.
    for path in glob.glob(os.path.join(glob.escape(root), "class/hwmon/hwmon*/in[123]_label")):
        folder, name = os.path.split(path)
        if _text(os.path.join(folder, "name")) != "ina3221":
            continue
        millivolts = _whole(os.path.join(folder, "in%s_input" % name[2]))
        milliamperes = _whole(os.path.join(folder, "curr%s_input" % name[2]))
        if millivolts is not None and milliamperes is not None:
            _add_rail(found, _text(path), int(round(millivolts * milliamperes / 1000.0)))
    return found


def gpu_load(root: str = ROOT) -> Optional[float]:
    """The share of time the GPU works, 0 to 1; None where that cannot be read."""
    for place in GPU_LOADS:
        thousandths = _whole(os.path.join(root, place))
        if thousandths is not None and 0 <= thousandths <= 1000:
            return thousandths / 1000.0
    return None


def _add_rail(found: Dict[str, int], name: Optional[str], milliwatts: Optional[int]) -> None:
    # NC: a channel that is not connected.
    if name and name != "NC" and milliwatts is not None and 0 <= milliwatts <= MOST_MW:
        found[name] = milliwatts


def _text(path: str) -> Optional[str]:
    """The one line of a small file; None if it cannot be had."""
    try:
        with open(path, encoding="ascii") as stream:
            return stream.read(200).strip()
    except (OSError, UnicodeDecodeError):
        # An I2C bus that is busy, a GPU that is switched off: EAGAIN, ENXIO and others.
        return None


def _whole(path: str) -> Optional[int]:
    """The whole number in a small file; None if it cannot be had."""
    text = _text(path)
    return int(text) if text and re.match(r"-?[0-9]{1,12}$", text) else None

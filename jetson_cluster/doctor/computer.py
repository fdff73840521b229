"""The computer itself: which it is, what it runs, its power mode, memory, heat and clock.

In: a Case. Out: one finding a probe.
"""

import re
import time
from typing import Dict, Optional, Tuple

from jetson_cluster import heat, sensors
from jetson_cluster.doctor.case import Case
from jetson_cluster.doctor.findings import Finding, ok, skip, warn

# L4T's major and minor release -> the JetPack that brought it.
JETPACKS = (((32, 6), "4.6"), ((32, 7), "4.6"), ((35,), "5"), ((36,), "6"))
WRITTEN_FOR = "JetPack 4.6.1 to 4.6.6 (L4T 32.7) or JetPack 6 (L4T 36)"
OLD_TENSORRT = (32, 6)  # JetPack 4.6 without a further number
# Decoding two large images at once took up to 620 MB (systemd/config.yaml); the network is extra.
LEAST_AVAILABLE_BYTES = 10 ** 9
SMALL_COMPUTER_BYTES = 4500 * 10 ** 6  # a Nano's 4 GB, which its GPU shares
# This program is younger than that, so a clock before it is wrong; and one so far ahead as well.
YEARS = (2024, 2100)


def model(case: Case) -> Finding:
    name = case.machine.text("/proc/device-tree/model")
    if name is None:
        return ok("%s, no Jetson" % case.machine.architecture)
    return ok(name)


def system(case: Case) -> Finding:
    """L4T is NVIDIA's system on a Jetson; JetPack is what it is delivered as."""
    text = case.machine.text("/etc/nv_tegra_release")
    if text is None:
        return skip("no L4T, which is a Jetson's system (no /etc/nv_tegra_release)")
    release = l4t_release(text)
    if release is None:
        return warn("unknown: /etc/nv_tegra_release says '%s'" % text.split("\n")[0], WRITTEN_FOR)
    name = "L4T %s" % ".".join(map(str, release))
    jetpack = jetpack_of(release)
    if release[:2] == OLD_TENSORRT:
        return warn("%s, JetPack %s, whose TensorRT is 8.0" % (name, jetpack), WRITTEN_FOR,
                    "sudo sed -i s/r32.6/r32.7/ /etc/apt/sources.list.d/nvidia-l4t-apt-source.list "
                    "&& sudo apt-get update && sudo apt-get dist-upgrade")
    if jetpack is None or jetpack == "5":
        return warn("%s%s" % (name, ", JetPack 5" if jetpack else ""), WRITTEN_FOR)
    return ok("%s, JetPack %s" % (name, jetpack))


def l4t_release(text: str) -> Optional[Tuple[int, ...]]:
    """"# R32 (release), REVISION: 7.1, ..." -> (32, 7, 1); None if it says something else."""
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", text)
    return found and (int(found.group(1)),) + tuple(map(int, found.group(2).split(".")))


def jetpack_of(release: Tuple[int, ...]) -> Optional[str]:
    """The JetPack of an L4T release; None if it is not among those known."""
    return next((name for start, name in JETPACKS if release[:len(start)] == start), None)


def power_mode(case: Case) -> Finding:
    modes = power_modes(case.machine.text("/etc/nvpmodel.conf") or "")
    number = _mode_now(case)
    if number is None:
        if case.jetson:
            return warn("unknown: neither nvpmodel nor /var/lib/nvpmodel/status says it",
                        "the fastest mode")
        return skip("no nvpmodel, which sets a Jetson's power mode")
    now = "%s (mode %d)" % (modes.get(number, "name unknown"), number)
    best = fastest(modes)
    if best is None:
        return warn(now, "the fastest mode; /etc/nvpmodel.conf does not say which that is",
                    "sudo nvpmodel -m 0")
    if number != best:
        return warn(now, "the fastest mode, %s, if the rover's power allows it" % modes[best],
                    "sudo nvpmodel -m %d" % best)
    return ok(now + ", the fastest")


def _mode_now(case: Case) -> Optional[int]:
    ran = case.machine.run(["nvpmodel", "-q"])
    if ran is not None and ran.code == 0:
        # Its last line is the number alone.
        numbers = [line.strip() for line in ran.out.splitlines() if line.strip().isdigit()]
        if numbers:
            return int(numbers[-1])
    found = re.search(r"pmode:(\d+)", case.machine.text("/var/lib/nvpmodel/status") or "")
    return int(found.group(1)) if found else None


def power_modes(configuration: str) -> Dict[int, str]:
    """The modes of nvpmodel.conf by number: "< POWER_MODEL ID=0 NAME=MAXN >" -> {0: "MAXN"}."""
    return {int(number): name for number, name in re.findall(
        r"^\s*<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", configuration, re.MULTILINE)}


def fastest(modes: Dict[int, str]) -> Optional[int]:
    """The mode that allows most: MAXN_SUPER, else MAXN, else the most watts; None if none says."""
    def allows(number: int) -> float:
        name = modes[number].upper()
        if name.startswith("MAXN"):
            return 1e6 + len(name)
        watts = re.search(r"(\d+)W", name)
        return float(watts.group(1)) if watts else 0.0
    best = max(modes, key=lambda number: (allows(number), -number), default=None)
    return best if best is not None and allows(best) else None


def memory(case: Case) -> Finding:
    held = {key: int(value) * 1024 for key, value in re.findall(
        r"^(\w+):\s+(\d+) kB", case.machine.text("/proc/meminfo") or "", re.MULTILINE)}
    if not {"MemTotal", "MemAvailable"} <= set(held):
        return warn("unknown: /proc/meminfo does not say it", "1 GB available")
    swap = held.get("SwapTotal", 0)
    found = "%.1f GB available of %.1f GB, %s" % (
        held["MemAvailable"] / 1e9, held["MemTotal"] / 1e9,
        "%.1f GB of swap" % (swap / 1e9) if swap else "no swap")
    # A daemon that runs already has what it needs.
    if held["MemAvailable"] < LEAST_AVAILABLE_BYTES and not case.running:
        return warn(found, "1 GB available: decoding two large images took up to 620 MB, and the "
                           "network comes on top",
                    "end what else is large: ps aux --sort=-rss | head")
    if case.jetson and held["MemTotal"] < SMALL_COMPUTER_BYTES and not swap:
        return warn(found, "swap: the GPU shares these 4 GB, and building an engine takes much",
                    "sudo systemctl enable --now nvzramconfig")
    return ok(found)


def temperature(case: Case) -> Finding:
    zones = sensors.temperatures(case.machine.place("/sys"))
    hottest = heat.hottest_of(zones)
    if hottest is None:
        if case.jetson:
            return warn("no sensor of the Jetson can be read", "readable files in "
                        "/sys/class/thermal; without them heat does not slow the daemon down")
        return skip("no sensor of a Jetson's here; the daemon works as if it were cool")
    found = "%.1f C in %s, the hottest of %d sensors" % (hottest[1], hottest[0], len(zones))
    warm_c, hot_c = case.config.heat if case.config else (heat.WARM_C, heat.HOT_C)
    if hottest[1] >= warm_c:
        return warn(found, "below %g C: from there on batches are smaller, from %g C on nothing is "
                           "embedded" % (warm_c, hot_c), "let it cool; look at the fan")
    return ok(found)


def clock(case: Case) -> Finding:
    year = time.gmtime(case.machine.now_s).tm_year
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(case.machine.now_s))
    if not YEARS[0] <= year < YEARS[1]:
        return warn(found, "the right year: files without EXIF are dated by this clock (the order "
                           "of the queue does not depend on it)",
                    "sudo timedatectl set-time 'YYYY-MM-DD HH:MM:SS'")
    return ok(found)


PROBES = (("computer", model), ("system", system), ("power mode", power_mode), ("memory", memory),
          ("temperature", temperature), ("clock", clock))

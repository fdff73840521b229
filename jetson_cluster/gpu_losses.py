"""How often the GPU was lost of late, kept over the restarts that each loss causes.

In: the moments it was lost. Out: whether to give it up for a while. Moments are seconds since boot, with
the boot's identity beside them: a rover's wall clock jumps, and a reboot is a fresh start.
"""

import json
import logging
from typing import Callable, List

from jetson_cluster.files import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "gpu-losses.json"  # in state_dir
TOO_MANY = 3
WITHIN_S = 600.0


class GpuLosses:
    """The losses of this boot, in a small file."""

    def __init__(self, path: str, boot: str, since_boot_s: Callable[[], float]):
        self._path, self._boot, self._since_boot_s = path, boot, since_boot_s

    def note(self) -> None:
        """The GPU was lost just now. A disk that cannot note it is said and costs the count alone."""
        moments = (self.recent() + [self._since_boot_s()])[-TOO_MANY:]
        content = json.dumps({"boot": self._boot, "lost_at_s": moments}) + "\n"
        try:
            write_atomically(self._path, content.encode("utf-8"))
        except OSError as error:
            log.error("GpuLossNotNoted: %s: %s", self._path, error)

    def recent(self) -> List[float]:
        """The moments of this boot's losses that are less than WITHIN_S seconds past."""
        try:
            with open(self._path, encoding="utf-8") as stream:
                held = json.load(stream)
            if held["boot"] != self._boot:
                return []
            moments = [float(moment) for moment in held["lost_at_s"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("GpuLossesUnreadable: %s: %s; counting from none", self._path, error)
            return []
        now = self._since_boot_s()
        return [moment for moment in moments if 0 <= now - moment <= WITHIN_S]

    def too_many(self) -> bool:
        """Whether it was lost TOO_MANY times within WITHIN_S seconds."""
        return len(self.recent()) >= TOO_MANY

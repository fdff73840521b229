"""How often the GPU was lost of late, kept over the restarts that each loss causes.

In: the moments it was lost. Out: whether to give it up for a while. Moments are seconds since boot, with
the boot's identity beside them: a rover's wall clock jumps, and a reboot is a fresh start.
"""

import json
import logging
import os
from typing import Callable, List, NamedTuple

from jetson_cluster.files import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "gpu-losses.json"  # in state_dir
TOO_MANY = 3
WITHIN_S = 600.0


class Account(NamedTuple):
    """What the file holds."""

    lost_at_s: List[float]
    in_use: bool  # some process uses the GPU, or did and ended without a word


class GpuLosses:
    """The losses of this boot, in a small file. `begin` and `end` enclose the use of the GPU."""

    def __init__(self, path: str, boot: str, since_boot_s: Callable[[], float]):
        self._path, self._boot, self._since_boot_s = path, boot, since_boot_s

    @classmethod
    def of(cls, state_dir: str, boot: str, since_boot_s: Callable[[], float]) -> "GpuLosses":
        """The account in the daemon's folder."""
        return cls(os.path.join(state_dir, FILE_NAME), boot, since_boot_s)

    def begin(self) -> None:
        """The GPU is about to be used. Had a process before no time to say `end` - killed for want
        of memory while it built the engine, by the watchdog, by a fault in a library - that was a
        loss too.
        """
        moments, in_use = self.account()
        if in_use:
            log.warning("GpuSuspected: the process that used the GPU before ended without a word; "
                        "counted as a loss of the GPU")
            moments = moments + [self._since_boot_s()]
        self._write(Account(moments, True))

    def end(self) -> None:
        """The process ends in good order, or does not use the GPU after all."""
        account = self.account()
        if account.in_use:
            self._write(account._replace(in_use=False))

    def note(self) -> None:
        """The GPU was lost just now."""
        self._write(Account(self.account().lost_at_s + [self._since_boot_s()], False))

    def recent(self) -> List[float]:
        """The moments of this boot's losses that are less than WITHIN_S seconds past."""
        now = self._since_boot_s()
        return [moment for moment in self.account().lost_at_s if 0 <= now - moment <= WITHIN_S]

    def too_many(self) -> bool:
        """Whether the last TOO_MANY losses, the last of them of late, lie within WITHIN_S seconds."""
        moments = self.account().lost_at_s[-TOO_MANY:]
        return (len(moments) == TOO_MANY and moments[-1] - moments[0] <= WITHIN_S
                and 0 <= self._since_boot_s() - moments[-1] <= WITHIN_S)

    def _write(self, account: Account) -> None:
        """A disk that cannot keep it is said and costs the count alone."""
        content = json.dumps({"boot": self._boot, "lost_at_s": account.lost_at_s[-TOO_MANY:],
                              "in_use": account.in_use}) + "\n"
        try:
            write_atomically(self._path, content.encode("utf-8"))
        except OSError as error:
            log.error("GpuLossNotNoted: %s: %s", self._path, error)

    def account(self) -> Account:
        """What is held of this boot."""
        try:
            with open(self._path, encoding="utf-8") as stream:
                held = json.load(stream)
            if held["boot"] != self._boot:
                return NONE
            return Account([float(moment) for moment in held["lost_at_s"]], bool(held["in_use"]))
        except FileNotFoundError:
            return NONE
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("GpuLossesUnreadable: %s: %s; counting from none", self._path, error)
            return NONE


NONE = Account([], False)

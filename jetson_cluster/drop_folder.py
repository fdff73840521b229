"""The daemon's side of the drop folder: order files that the ground uplinks are followed, then go.

In: `*.yaml` and `*.csv` files in one folder, see orders.py; others are left alone. Out: what they
order is done, see applying.py, and the file is deleted. If any of its orders was refused it goes to
`refused/` instead, beside NAME.result.txt, which says for every order what became of it.

A file counts as complete by the rule of the inbox: no dot name, no .part or .tmp, and unchanged at
two looks `settle_s` apart. Complete files are followed in the order of their names. A turn does
only a few orders, so that a file with thousands of them holds up no image; after a kill the file is
read again from its beginning, and orders that were followed change nothing.
"""

import contextlib
import errno
import logging
import os
import stat
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple, Union

from jetson_cluster import applying, orders
from jetson_cluster.applying import PARTLY, REFUSED, Result
from jetson_cluster.catalog import Catalog
from jetson_cluster.downlink import printable_path
from jetson_cluster.errors import UserError, WorldError
from jetson_cluster.files import write_atomically
from jetson_cluster.orders import Action, Parsed, Refused
from jetson_cluster.pass_lists import note_due
from jetson_cluster.passes import Downlink, PassReport, make_pass
from jetson_cluster.walker import Arrival, is_passed_over, look

log = logging.getLogger(__name__)

REFUSED_FOLDER, RESULT_SUFFIX = "refused", ".result.txt"
LOOK_S = 1.0  # between two looks into the folder
ORDERS_A_TURN = 20  # each is a transaction, 10 ms or so on a card
FOLLOW_S = 5.0  # and no more are begun after that: choosing a pass may take longer
# Of a folder that somebody else filled: order files at once, and names, which a look goes through
# every second. Orders behind so many names are not found, and `error` says so.
FILES_AT_ONCE, NAMES_LOOKED_AT = 1000, 20000

# Nobody will make such a file readable by waiting.
UNREADABLE = (errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR)


class Follower(NamedTuple):
    """What is done with orders: applying.py, with catalog and clock already in it."""

    apply: Callable[[Action, str], Result]  # (action, origin)
    note_refused: Callable[[Refused, str, str], str]  # (refused, source, origin), in words


def follower_of(catalog: Catalog, downlink: Callable[[], Downlink], now: Callable[[], str]
                ) -> Follower:
    """Follows orders in this catalog; `downlink` is asked only when a pass is ordered."""
    def apply(action: Action, origin: str) -> Result:
        at = now()

        def send(budget_bytes: int, pass_origin: str, also: Callable[[PassReport], None]
                 ) -> PassReport:
            def list_too(report: PassReport) -> None:
                also(report)
                note_due(catalog, report.number)  # whoever ordered it sees no output

            return make_pass(catalog, downlink(), budget_bytes, pass_origin, at, also=list_too)

        return applying.apply(catalog, action, origin, at, send)

    def note_refused(refused: Refused, source: str, origin: str) -> str:
        return applying.note_refused(catalog, refused, source, origin, now())

    return Follower(apply, note_refused)


class _File:
    """An order file being followed."""

    def __init__(self, arrival: Arrival, parsed: Parsed):
        self.arrival, self.name = arrival, os.path.basename(arrival.path)
        self.orders = parsed.refused + parsed.actions  # type: List[Union[Refused, Action]]
        self.done = 0
        self.said = []  # type: List[Tuple[int, str]]  # line, what became of it
        self.any_refused = False


class DropFolder:
    """One folder of order files; `poll` is called every turn of the daemon and costs little."""

    def __init__(self, folder: str, settle_s: float, follower: Follower,
                 monotonic: Callable[[], float]):
        self.folder, self._settle_s, self._follower = folder, settle_s, follower
        self._monotonic = monotonic
        self._next_look_s = monotonic()
        self._seen = {}  # type: Dict[str, Tuple[Arrival, float]]  # path: its looks, since when
        self._left = {}  # type: Dict[str, Arrival]  # dealt with, but not to be removed
        self._file = None  # type: Optional[_File]
        self._said_missing, self._said_others, self._looked = False, False, False
        self._failed = self._crowded = ""

    @property
    def error(self) -> str:
        """Why orders, or some, cannot be followed at the moment, "" if they can."""
        return self._failed or self._crowded

    @property
    def busy(self) -> bool:
        """Whether there is more to do at once."""
        return self._file is not None and not self._failed

    @property
    def waiting(self) -> bool:
        """Whether there are orders, or may be, that will be followed by and by."""
        return not self._failed and (
            not self._looked or self._file is not None or bool(self._seen))

    def next_due_s(self) -> float:
        """Seconds until `poll` may find something to do."""
        return 0.0 if self.busy else max(0.0, self._next_look_s - self._monotonic())

    def poll(self) -> int:
        """Follow a few orders, if there are any; how many that were.

        What a disk refuses is said once, kept in `error`, and tried again at the next look. Raises
        sqlite3.Error where the catalog fails; the next call goes on where this one stopped.
        """
        now_s = self._monotonic()
        if not self.busy and now_s < self._next_look_s:
            return 0
        if not self.busy:
            self._next_look_s = now_s + LOOK_S
        try:
            if self._file is None:
                self._file, self._looked = self._next_file(now_s), True
            done = 0 if self._file is None else self._follow(self._file)
            self._failed = ""
            return done
        except OSError as error:
            said = "OrdersNotFollowed: %s: %s" % (
                printable_path(self._file.arrival.path) if self._file else self.folder, error)
            if not self._failed:
                log.error("%s; trying again", said)
            self._failed = said
            return 0

    # ---- which file ---------------------------------------------------------------------------

    def _next_file(self, now_s: float) -> Optional[_File]:
        """The first complete file; also looks at the others, so that they settle meanwhile."""
        arrivals = self._arrivals()
        before, self._seen = self._seen, {}
        self._left = {path: arrival for path, arrival in self._left.items()
                      if arrivals.get(path) == arrival}
        complete = []
        for path, arrival in arrivals.items():
            if path in self._left:
                continue
            known, since_s = before.get(path, (None, now_s))
            self._seen[path] = (arrival, since_s if known == arrival else now_s)
            if known == arrival and now_s - since_s >= self._settle_s:
                complete.append(path)
        for path in sorted(complete, key=os.fsencode):
            file = self._read(arrivals[path])
            if file is not None:
                return file
        return None

    def _arrivals(self) -> Dict[str, Arrival]:
        arrivals, fresh, names = {}, 0, 0
        try:
            with contextlib.closing(os.scandir(self.folder)) as entries:
                for names, entry in enumerate(entries, 1):
                    if names > NAMES_LOOKED_AT or fresh >= FILES_AT_ONCE:
                        break
                    if not entry.name.lower().endswith(orders.SUFFIXES):
                        self._say_others(entry)
                    elif not is_passed_over(entry.name):
                        arrival = look(entry.path)
                        if arrival is not None:
                            arrivals[entry.path] = arrival
                            fresh += self._left.get(entry.path) != arrival
        except (FileNotFoundError, NotADirectoryError) as error:
            if not self._said_missing:
                log.warning("OrdersFolderMissing: %s: %s; no orders can come until it is there",
                            self.folder, error.strerror)
            self._said_missing = True
            self._say_crowded(False)
            return {}
        if self._said_missing:
            log.warning("OrdersFolderFound: %s is there now", self.folder)
            self._said_missing = False
        self._say_crowded(names > NAMES_LOOKED_AT)
        return arrivals

    def _say_crowded(self, crowded: bool) -> None:
        if not crowded:
            self._crowded = ""
        elif not self._crowded:
            why = "%s: only the first %d names in it are looked at; move away what is no order" % (
                self.folder, NAMES_LOOKED_AT)
            log.error("OrdersFolderCrowded: %s", why)
            self._crowded = "OrdersFolderCrowded: " + why

    def _say_others(self, entry: os.DirEntry) -> None:
        if is_passed_over(entry.name) or self._said_others:
            return
        if not entry.is_dir(follow_symlinks=False):
            log.warning("OrdersFolderHoldsOthers: %s: files such as %s are no .yaml or .csv, and are "
                        "left alone", self.folder, printable_path(entry.name))
            self._said_others = True

    def _read(self, arrival: Arrival) -> Optional[_File]:
        """The orders in the file; None if it changed since it was looked at."""
        name = printable_path(os.path.basename(arrival.path))
        try:
            content = read(arrival.path)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in UNREADABLE:
                raise
            parsed = Parsed([], [Refused(0, "", "it cannot be read: %s" % error.strerror)])
        else:
            parsed = orders.parse(content, name)
        if look(arrival.path) != arrival:
            return None
        log.info("OrdersRead: %s: %d orders, %d refused", name, len(parsed.actions),
                 len(parsed.refused))
        return _File(arrival, parsed)

    # ---- following it ---------------------------------------------------------------------------

    def _follow(self, file: _File) -> int:
        """A few more of its orders, those first that could not be read."""
        before, shown = file.done, printable_path(file.name)
        origin, began_s = "order file " + shown, self._monotonic()
        for order in file.orders[before:before + ORDERS_A_TURN]:
            result, words = follow(self._follower, order, shown, origin)
            file.said.append((order.line, "%s: %s" % (result, words)))
            file.done += 1
            if result in (REFUSED, PARTLY):
                file.any_refused = True
                log.warning("OrderRefused: %s%s: %s", shown,
                            " line %d" % order.line if order.line else "", words)
            else:
                log.info("OrderFollowed: %s: %s", shown, words)
            if self._monotonic() - began_s >= FOLLOW_S:
                break
        if file.done == len(file.orders):
            # Before it is cleared away, for a disk that fails then must not do it all once more.
            self._file, self._next_look_s = None, self._monotonic()
            self._left[file.arrival.path] = file.arrival
            self._clear_away(file)
        return file.done - before

    def _clear_away(self, file: _File) -> None:
        """Delete the file, or move it to the refused with its result; not if it is another now."""
        path = file.arrival.path
        if look(path) != file.arrival:
            return
        try:
            if file.any_refused:
                folder = os.path.join(self.folder, REFUSED_FOLDER)
                os.makedirs(folder, exist_ok=True)
                beside = _free_name(os.path.join(folder, file.name))
                write_atomically(beside + RESULT_SUFFIX, result_text(file.said))
                os.rename(path, beside)
            else:
                os.unlink(path)
        except OSError as error:
            log.error("OrderFileNotCleared: %s: %s; its orders were followed, and are not again",
                      printable_path(path), error.strerror or error)


def follow(follower: Follower, order: Union[Action, Refused], source: str, origin: str
           ) -> Tuple[str, str]:
    """Do one order of the file `source`; (result, in words).

    What it asks for in vain is refused like a line that could not be read.
    """
    if isinstance(order, Action):
        try:
            result = follower.apply(order, origin)
            return result.result, "order %s: %s" % (order.order_id, result.words)
        except (UserError, WorldError) as error:
            order = Refused(order.line, order.order_id, str(error))
    return REFUSED, follower.note_refused(order, source, origin)


def _free_name(path: str) -> str:
    """The path, with a number in its name if a file or a result of that name is there."""
    stem, suffix = os.path.splitext(path)
    free, number = path, 1
    while os.path.lexists(free) or os.path.lexists(free + RESULT_SUFFIX):
        number += 1
        free = "%s-%d%s" % (stem, number, suffix)
    return free


def result_text(said: List[Tuple[int, str]]) -> bytes:
    """What became of each order, a line each, in the order of the file."""
    return "".join("line %d: %s\n" % one if one[0] else one[1] + "\n"
                   for one in sorted(said, key=lambda one: one[0])).encode(
                       "utf-8", "backslashreplace")


def read(path: str) -> bytes:
    """The content of an order file, cut off where it is too large to be one.

    Raises OSError; a FIFO or a device is never waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EISDIR, "is no regular file", path)
        return stream.read(orders.MOST_BYTES + 1)

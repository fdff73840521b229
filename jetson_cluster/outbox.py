"""A folder with links to the head of the queue, for downlink software that sends what lies in one.

In: the head of the queue, best first, and what has become of the links. Out: hard links whose names
are in the order of rank (link_names.py), to a limit of bytes; and in the catalog a pass with the
images whose links have disappeared, for those were sent.

A link counts as sent only if it surely had been made, is gone from the very folder it was made in,
and was not removed here. In all other cases, a crash at any moment among them, it is made again: an
image may be sent twice, but none is lost. Not gone is one that the downlink software renames while
it sends, to NAME.anything or .NAME. The first link may be on its way: it is neither renamed nor
removed while its image is queued. Files of others are left alone.
"""

import errno
import logging
import os
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from jetson_cluster.catalog import Catalog
from jetson_cluster.downlink import printable_path
from jetson_cluster.ledger import GROUND
from jetson_cluster.link_folder import Listing, Look, list_folder, look_at, sync_and_identify
from jetson_cluster.link_names import key_of, keys_for, name_of
from jetson_cluster.links import MADE
from jetson_cluster.records import Row
from jetson_cluster.schema import ACKED, DELETED, DROPPED, MISSING, QUEUED

log = logging.getLogger(__name__)

LOOK_S = 1.0
RETRY_S = 60.0  # a link that could not be made is not tried again every second
# No file is longer on its way: 4 MB at 57.6 kbit/s take nine minutes. So long a link that was the
# first is left as it is; and when for so long none has gone, the pass over the station is over.
ON_ITS_WAY_S = 600.0
IDENTITY = "outbox"  # of the folder, in the catalog's meta; "": it was away since, so trust nothing
OF_ALL = (errno.EXDEV, errno.EROFS, errno.ENOSPC, errno.EDQUOT)  # fails for every image alike
MEND = {
    errno.EXDEV: "a link needs one file system, mounted once: put outbox.path beside the inbox",
    errno.EPERM: "its file system has no hard links, as FAT, or the image is neither the daemon's "
                 "own nor writable for it: let the camera software use umask 002",
    errno.EACCES: "let the daemon's user read the image and write to the outbox",
    errno.EMLINK: "the file has as many links as its file system allows",
    errno.ENOSPC: "make room on that disk", errno.EDQUOT: "raise the quota of the daemon's user",
    errno.EROFS: "mount that file system for writing", errno.EEXIST: "remove that file"}
# What is to become of a link: it has to stay, may stay, has to go, is none of ours any more.
KEEP, LOOSE, DROP, STRANGE = "keep", "loose", "drop", "strange"


class _Held(NamedTuple):
    """A link that was made."""

    image: int
    looks: Tuple[Look, ...]  # by which its content is known


class _Move(NamedTuple):
    """A link to be made; a rename, if `before` is the name of one that is there."""

    name: str
    image: int
    before: Optional[str]


class Outbox:
    """One folder, which is made by whoever installs; use it from one thread."""

    def __init__(self, path: str, max_bytes: int, catalog: Catalog,
                 monotonic: Callable[[], float], now: Callable[[], str]):
        self.path, self._max_bytes = os.path.abspath(path), max_bytes
        self._catalog, self._monotonic, self._now = catalog, monotonic, now
        self.error = ""  # why links are missing, "" if none is
        self._look_at = monotonic()
        self._links = {}  # type: Dict[str, _Held]
        self._stocked = False  # whether _links is what stands in the catalog and in the folder
        self._away = False
        self._first_at = {}  # type: Dict[str, float]  # when a link was last seen to be the first
        self._resting = {}  # type: Dict[object, float]  # image, name, or None for all: until when
        self._said = set()  # type: Set[str]  # what was told, until it is over
        self._pass, self._pass_until = 0, 0.0

    @property
    def links(self) -> int:
        """How many there are."""
        return len(self._links)

    @property
    def bytes(self) -> int:
        """Of the images linked."""
        return sum(held.looks[0][0] for held in self._links.values() if held.looks)

    def sync(self, rows: Sequence[Row], at_once: bool = False) -> None:
        """Mark what was sent, and keep the links true to `rows`, the head of the queue, best first.

        To be called every turn; it does something once a second, or `at_once`. Raises sqlite3.Error;
        then the next call finds out what was done.
        """
        if self._monotonic() < self._look_at and not at_once:
            return
        self._look_at = self._monotonic() + LOOK_S
        try:
            listing = list_folder(self.path)
            before = self._catalog.meta(IDENTITY)
            if before != listing.identity or not self._stocked:
                self._take_stock(listing, before)
            gone = self._absent(listing)
            if gone:
                # Again: a file that is renamed meanwhile can be listed by neither of its names.
                again = list_folder(self.path)
                if again.identity != listing.identity:
                    return
                self._account([name for name in gone if again.form_of(name) is None])
                listing = again
        except OSError as error:
            self._lost(error)
            return
        if not self._absent(listing):  # else it is sent just now, which the next look confirms
            self._arrange(rows, listing)

    # ---- what is there -----------------------------------------------------------------------

    def _absent(self, listing: Listing) -> List[str]:
        return [name for name in self._links if listing.form_of(name) is None]

    def _lost(self, error: OSError) -> None:
        """The folder is not there or cannot be read: from now on nothing proves a link sent."""
        why = "%s: %s; nothing counts as sent, and links are made when it is there" % (
            self.path, error.strerror or error)
        if not self._away:
            log.error("OutboxMissing: %s", why)
        self.error = "OutboxMissing: " + why
        self._away, self._stocked, self._links = True, False, {}
        self._catalog.remember(IDENTITY, "")

    def _take_stock(self, listing: Listing, before: Optional[str]) -> None:
        """Bring catalog and folder together, after a start and whenever one may be ahead."""
        if before == "":
            log.warning("OutboxFound: %s is there now", self.path)
        elif before not in (None, listing.identity):
            log.warning("OutboxReplaced: %s is another folder than before; what was in that one "
                        "counts as not sent, and links are made anew", self.path)
        known = self._catalog.outbox_links()
        there = {link.name for link in known if listing.form_of(link.name)}
        forgotten = {link.name for link in known if link.name not in there and (
            link.made != MADE or before != listing.identity)}
        with self._catalog.together():
            self._catalog.note_links(made=sorted(there), gone=sorted(forgotten))
            self._catalog.remember(IDENTITY, listing.identity)
        self._links = {link.name: _Held(link.image, self._looks_of(link.image))
                       for link in known if link.name not in forgotten}
        self._away, self._stocked, self.error, self._first_at = False, True, "", {}
        ours = {listing.form_of(name) for name in self._links}
        for name, status in listing.files.items():
            # Never the last name of a file: it is somebody's, or all there is of an image.
            if name not in ours and key_of(name) is not None and status.st_nlink > 1:
                self._remove(name)

    def _looks_of(self, image: int) -> Tuple[Look, ...]:
        return tuple((size, mtime_ns) for _, size, mtime_ns in self._catalog.paths_of(image))

    def _source(self, image: int) -> Optional[str]:
        """A path at which the image stands just as it was catalogued."""
        return next((path for path, size, mtime_ns in self._catalog.paths_of(image)
                     if look_at(path) == (size, mtime_ns)), None)

    # ---- what was sent -----------------------------------------------------------------------

    def _account(self, gone: List[str]) -> None:
        """These links had been made, and are gone."""
        if not gone:
            return
        images = [self._links[name].image for name in gone]
        if len(gone) == len(self._links) and not any(map(self._source, images)):
            # A card changed for its like while nobody looked: no link is there, and no image.
            log.error("OutboxEmptied: %s: all %d links are gone, and their images with them; none "
                      "counts as sent", self.path, len(gone))
            self._catalog.note_links(gone=gone)
        else:
            with self._catalog.together():
                self._catalog.note_links(gone=gone)
                number = self._mark_sent(images)
            self._pass_goes_on(number)
        for name in gone:
            del self._links[name]

    def _mark_sent(self, images: List[int]) -> int:
        """Within a transaction; the pass they are in, 0 if all were on the ground already."""
        states = self._catalog.states_of(images)
        new = [image for image in images if image in states and states[image] not in GROUND]
        if not new:
            return 0
        number = self._pass
        if self._monotonic() >= self._pass_until or number != self._catalog.last_pass:
            number = self._catalog.begin_pass([], [], 0, "outbox", self._now())
        self._catalog.add_to_pass(number, new)
        return number

    def _pass_goes_on(self, number: int) -> None:
        """What was done in it is committed."""
        if not number:
            return
        if number != self._pass:
            log.info("OutboxSends: links disappear from %s: pass %d", self.path, number)
        self._pass, self._pass_until = number, self._monotonic() + ON_ITS_WAY_S

    # ---- what is to be there -------------------------------------------------------------------

    def _arrange(self, rows: Sequence[Row], listing: Listing) -> None:
        now_s = self._monotonic()
        self._resting = {key: until for key, until in self._resting.items() if until > now_s}
        self._note_first(now_s)
        states = self._catalog.states_of(sorted(
            {row.image for row in rows} | {held.image for held in self._links.values()}))
        fate = {name: self._judge(name, states, listing) for name in self._links}
        order = self._choose(rows, states, fate, listing)
        staying = {name for _, name in order}
        # An empty head, and links whose images are queued: the head is not known yet.
        dropped = [name for name, verdict in fate.items()
                   if verdict == DROP or (verdict == LOOSE and rows and name not in staying)]
        strange = [name for name, verdict in fate.items() if verdict == STRANGE]
        # Those that stay although they left the head are the last in rank, and are not renamed.
        beyond = [name for name in fate if fate[name] == KEEP and name not in staying]
        keys = keys_for([key_of(name) if name else None for _, name in order]
                        + [key_of(name) for name in beyond],
                        [name is not None and self._is_fixed(name, listing) for _, name in order]
                        + [True] * len(beyond))
        # Only the key is compared: the rest of the name is as it was when it was made.
        moves = [_Move(name_of(key, row.sha256, row.path), row.image, name)
                 for key, (row, name) in zip(keys, order) if name is None or key_of(name) != key]
        if moves or dropped or strange:
            self._do(moves, dropped, strange)
        if not self._resting and not self._away:
            self.error = ""
            self._said.discard("link")
        self._tell_too_large(rows)

    def _note_first(self, now_s: float) -> None:
        self._first_at = {name: at for name, at in self._first_at.items()
                          if name in self._links and now_s - at < ON_ITS_WAY_S}
        if self._links:
            self._first_at[min(self._links)] = now_s

    def _is_fixed(self, name: str, listing: Listing) -> bool:
        """Whether a link may not be called otherwise: it may be on its way, or it was refused."""
        return (name in self._first_at or name in self._resting or listing.form_of(name) != name)

    def _judge(self, name: str, states: Dict[int, str], listing: Listing) -> str:
        held, form = self._links[name], listing.form_of(name)
        state, look = states.get(held.image), listing.look_of(name)
        if form != name or name in self._resting:
            return KEEP
        alone = listing.files[form].st_nlink == 1  # the image's own name is gone: this is all of it
        known = look in held.looks or look in self._looks_of(held.image)
        if not known and (held.looks or not alone):
            return STRANGE if alone else DROP  # it was written to: other content than promised
        if state in (ACKED, DELETED, DROPPED):
            return DROP
        if alone or state == MISSING:
            return KEEP
        if state != QUEUED:
            return DROP
        return KEEP if self._is_fixed(name, listing) else LOOSE

    def _choose(self, rows: Sequence[Row], states: Dict[int, str], fate: Dict[str, str],
                listing: Listing) -> List[Tuple[Row, Optional[str]]]:
        """What to link, best first, and by which links; what does not fit is passed over."""
        linked = {self._links[name].image: name for name, verdict in fate.items()
                  if verdict in (KEEP, LOOSE)}
        done = {self._links[name].image for name in fate} - set(linked)  # for now; they are going
        left = self._max_bytes - sum(listing.look_of(name)[0] for name, verdict in fate.items()
                                     if verdict == KEEP)
        order = []  # type: List[Tuple[Row, Optional[str]]]
        for row in rows:
            name = linked.get(row.image)
            kept = name is not None and fate[name] == KEEP
            if row.image not in done and (kept or (
                    row.bytes <= left and states.get(row.image) == QUEUED
                    and (name or self._may_link(row.image)))):
                order.append((row, name))
                done.add(row.image)
                left -= 0 if kept else row.bytes
        return order

    def _may_link(self, image: int) -> bool:
        return not {None, image} & set(self._resting) and self._source(image) is not None

    def _tell_too_large(self, rows: Sequence[Row]) -> None:
        large = [row for row in rows if row.bytes > self._max_bytes]
        if large and "large" not in self._said:
            log.warning("OutboxTooSmall: %s: %d images at the head of the queue are larger than "
                        "all of outbox.bytes, %d, such as %s; they are not sent this way",
                        self.path, len(large), self._max_bytes, printable_path(large[0].path))
            self._said.add("large")
        elif not large:
            self._said.discard("large")

    # ---- doing it ------------------------------------------------------------------------------

    def _do(self, moves: List[_Move], dropped: List[str], strange: List[str]) -> None:
        """Change the folder; the catalog knows beforehand what may happen, and then what has."""
        self._stocked = False  # should anything fail on the way
        self._catalog.note_links(
            planned=[(move.name, move.image) for move in moves],
            going=dropped + [move.before for move in moves if move.before], gone=strange)
        links, gone, sent = dict(self._links), list(strange), []
        for name in dropped:
            was_there = self._remove(name)
            if was_there is not None:
                gone.append(name)
                sent += [] if was_there else [links[name].image]
        for move in moves:
            self._move(move, links, gone, sent)
        for name in gone:
            links.pop(name, None)
        try:
            # To disk: a link that a power cut takes back would look like one that was sent.
            if sync_and_identify(self.path) != self._catalog.meta(IDENTITY):
                return  # another folder since: what was not there in it was not sent
        except OSError as error:
            self._lost(error)
            return
        with self._catalog.together():
            self._catalog.note_links(made=sorted(links), gone=gone)
            number = self._mark_sent(sent)
        self._pass_goes_on(number)
        self._links, self._stocked = links, True

    def _remove(self, name: str) -> Optional[bool]:
        """Whether the link was there to be removed; None if it cannot be removed."""
        try:
            os.unlink(os.path.join(self.path, name))
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            self._failed(name, error)
            return None

    def _move(self, move: _Move, links: Dict[str, _Held], gone: List[str], sent: List[int]) -> None:
        """Make or rename one link; `links`, `gone` and `sent` are kept up."""
        target = os.path.join(self.path, move.name)
        try:
            if move.before is not None:
                if os.path.lexists(target):  # a rename would replace it
                    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
                os.rename(os.path.join(self.path, move.before), target)
                links[move.name] = links[move.before]
                gone.append(move.before)
                return
            source = None if None in self._resting else self._source(move.image)
            if source is not None:
                # No hidden name first: a link is there whole, or not at all.
                os.link(source, target, follow_symlinks=False)
                look = look_at(target)
                if look in self._looks_of(move.image):
                    links[move.name] = _Held(move.image, (look,))
                    return
                os.unlink(target)  # the image was changed or replaced in this very moment
        except FileNotFoundError:
            if move.before is not None:
                gone.append(move.before)
                sent.append(move.image)
        except OSError as error:
            self._failed(None if error.errno in OF_ALL else move.before or move.image, error)
        gone.append(move.name)

    def _failed(self, what: object, error: OSError) -> None:
        self._resting[what] = self._monotonic() + RETRY_S
        why = "%s: %s; %s" % (printable_path(error.filename or self.path), error.strerror,
                              MEND.get(error.errno, "see that its disk is well"))
        if "link" not in self._said:
            log.error("OutboxNotLinked: %s; tried again every %d s", why, RETRY_S)
        self.error = "OutboxNotLinked: " + why
        self._said.add("link")

"""Turns file system events below a folder into hints about where to look, by way of watchdog.

In: a folder. Out: calls of `notice(path, hint)` from watchdog's thread, for names that can be
images. A hint is never more than that: events get lost, come late and come twice.
"""

import inspect
import logging
import os
import threading
from typing import Callable, List

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.inotify import InotifyObserver

from jetson_cluster.walker import is_passed_over

log = logging.getLogger(__name__)

# What a hint says.
CHANGED = "changed"  # created, or closed after writing: look, it may be growing
RENAMED = "renamed"  # renamed into place: whoever did that had finished it
FOLDER = "folder"  # a new folder
FOLDER_RENAMED = "folder renamed"  # a folder came with what is in it; some releases do not watch it

# Opened and modified events are left out: the daemon's reading and a slow writer make thousands.
EVENTS = [FileCreatedEvent, FileMovedEvent, FileClosedEvent, DirCreatedEvent, DirMovedEvent]

STOP_S = 5.0


class Watcher(FileSystemEventHandler):
    """One recursive inotify watch. `folder` may be a symlink; hints name paths below it."""

    def __init__(self, folder: str, notice: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._notice = notice
        # inotify would watch the link, not the folder.
        self._watched = os.path.realpath(folder)
        self._observer = None
        self._threads: List[threading.Thread] = []

    def start(self) -> None:
        """Watch from now on; OSError or RuntimeError if the system refuses (limits, no folder)."""
        before = set(threading.enumerate())
        # Full events, or a file renamed in from elsewhere looks the same as one just created.
        self._observer = InotifyObserver(generate_full_events=True)
        # Where watchdog can, let the kernel leave out what is not asked for.
        takes_filter = "event_filter" in inspect.signature(self._observer.schedule).parameters
        options = {"event_filter": EVENTS} if takes_filter else {}
        try:
            self._observer.schedule(self, self._watched, recursive=True, **options)
            self._observer.start()
        except BaseException:
            self.stop()
            raise
        self._threads = [thread for thread in threading.enumerate()
                         if thread not in before and _is_watchdogs(thread)]

    @property
    def alive(self) -> bool:
        """False as soon as one of watchdog's threads has died: events may be lost from then on."""
        return self._observer is not None and all(t.is_alive() for t in self._threads)

    def stop(self) -> None:
        """Stop watching. Never blocks for long."""
        if self._observer is None:
            return
        # watchdog joins a thread that can wait for ever in a read once the folder is gone.
        stopping = threading.Thread(target=self._observer.stop, name="watcher-stop", daemon=True)
        stopping.start()
        stopping.join(STOP_S)
        if stopping.is_alive():
            log.warning("WatcherNotStopped: %r, within %g s; its thread is left behind",
                        self._watched, STOP_S)
        self._observer = None
        self._threads = []

    def dispatch(self, event: FileSystemEvent) -> None:
        """Called by watchdog, in its thread, for every event."""
        moved = isinstance(event, (FileMovedEvent, DirMovedEvent))
        # Synthetic events are watchdog's own listing of a folder; the walker does that better.
        if not isinstance(event, tuple(EVENTS)) or getattr(event, "is_synthetic", False):
            return
        path = event.dest_path if moved else event.src_path
        inside = os.path.join(self._watched, "")
        # A move out of the tree has no destination.
        if not path or not path.startswith(inside):
            return
        name = path[len(inside):]
        if any(is_passed_over(part) for part in name.split(os.sep)):
            return
        if event.is_directory:
            hint = FOLDER_RENAMED if moved else FOLDER
        else:
            hint = RENAMED if moved else CHANGED
        self._notice(os.path.join(self._folder, name), hint)


def _is_watchdogs(thread: threading.Thread) -> bool:
    return type(thread).__module__.split(".")[0] == "watchdog"

"""A spot box that EC2 takes back: its notice is looked for every five seconds, and the time that is left is used, once.

Whoever does so leaves a note of what is known: the collector of root in ``/run/devbox``, else programs of the user in their own
folder. ``until`` in it is the time of the machine's monotonic clock up to which its writer is taken to be at work.
"""

import fcntl
import json
import os
import signal
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.hooks import ended, run_hooks
from devboxd.boxside.programs.parts.imds import ELSEWHERE, Metadata
from devboxd.boxside.programs.parts.note import load, save
from devboxd.boxside.programs.watch.machine import processes, read, tell, terminals, uptime
from devboxd.model.reclaim import RESERVE, SPOT, TAKEN, fold, hook_time, unknown, words

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LOOK_EVERY = 5.0  # seconds, as EC2 asks for
ASK_EVERY = 600.0  # seconds between two questions for the kind of a box, where nobody answers
AT_WORK = 30.0  # seconds after a look in which its program is taken to be at work
RECLAIM_MOST = 16 << 10  # bytes of a note
ROOTS = "/run/devbox/reclaim.json"  # the note of root, which everybody may read


def _boot() -> str:
    """What no other life of a box has; simulated ones share a kernel, and not what plays their metadata."""
    return read("/proc/sys/kernel/random/boot_id").strip() + os.environ.get(ELSEWHERE, "")


def _terminals() -> "list[int]":
    """Where people type at this box: at a simulated one, where the same metadata service is played for the programs."""
    known, played = processes(), os.environ.get(ELSEWHERE)
    if played:
        here = ELSEWHERE + "=" + played
        known = {pid: one for pid, one in known.items() if here in read(f"/proc/{pid}/environ").split("\0")}
    return terminals(known)


def note_at(path: str) -> "dict[str, Any]":
    """A note of this life of the box; empty where there is none."""
    found = load(path, RECLAIM_MOST)
    return found if found.get("boot") == _boot() and unknown().keys() <= found.keys() else {}


def is_kept(note: "dict[str, Any]") -> bool:
    """Whether its writer is at work."""
    until = note.get("until")
    return isinstance(until, float) and 0 <= until - time.monotonic() < 600


def is_ours(lock: int) -> bool:
    """Take the lock of those that look for notices with the same note, if nobody has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Keeper:
    """Looks for notices. ``say`` hears of each change; root runs the hooks as ``user``, whose ``home`` that is."""

    def __init__(
        self, path: str, home: str, user: str = "", say: "Callable[[dict[str, Any]], object] | None" = None
    ) -> None:
        self.path, self.home, self.user, self.say = path, home, user, say
        self.metadata = Metadata()
        self.known = note_at(path) or dict(unknown(), boot=_boot(), asked=None)

    def is_spot(self) -> bool:
        """Whether this box can be taken back. It is asked once in a life of the box."""
        asked = self.known.get("asked")
        if self.known["life"] is None and (asked is None or time.monotonic() - asked >= ASK_EVERY):
            ((status, text),) = self.metadata.look("instance-life-cycle")
            life = text[:32] if status == 200 and text else None
            problem = "" if life else "the metadata service does not say what kind of box this is"
            self.keep(dict(self.known, life=life, problem=problem, asked=time.monotonic()))
        return bool(self.known["life"] == SPOT)

    def look(self) -> None:
        """Look once, and do what is due."""
        answers = self.metadata.look("spot/instance-action", "events/recommendations/rebalance")
        statuses = {"notice": answers[0][0], "rebalance": answers[1][0]}
        said = [_parsed(text) for _, text in answers]
        known, news = fold(self.known, statuses, said[0], said[1], time.time(), uptime())
        busy = RESERVE * 4 + hook_time(known["notice"], time.time()) if TAKEN in news else 0.0
        self.keep(known, busy)
        if TAKEN in news:
            self._use_what_is_left()
        else:
            for what in news:
                tell(_terminals(), words(what, None, time.time()))

    def _use_what_is_left(self) -> None:
        """Say it, write to the disk, run the hooks, write once more."""
        now, notice = time.time(), self.known["notice"]
        left = []  # type: list[int]
        before = signal.signal(signal.SIGHUP, lambda number, _: left.append(number))  # the laptop may leave
        try:
            os.setpriority(os.PRIO_PROCESS, 0, 0)
        except OSError:
            pass  # only root may be as quick as all others again
        tell(_terminals(), words(TAKEN, notice, now))
        _sync()
        begun, failed = run_hooks(self.home, self.user, hook_time(notice, now))
        _sync()
        self.keep(dict(self.known, did={"at": time.time(), "hooks": begun, "failed": failed}))
        signal.signal(signal.SIGHUP, before)
        if left:
            os.kill(os.getpid(), left[0])

    def keep(self, known: "dict[str, Any]", busy: float = 0.0) -> None:
        """Leave a note of what is known; it holds for so many seconds more."""
        self.known = dict(known, until=time.monotonic() + AT_WORK + busy)
        try:
            save(self.path, self.known)
            if self.path == ROOTS:
                os.chmod(self.path, 0o644)
        except OSError:
            pass  # a disk that is full must not keep the hooks from running
        if self.say is not None:
            self.say(self.known)


def _parsed(text: str) -> "Any":
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _sync() -> None:
    """Write everything to the disks, as far as they take it now."""
    try:
        ended(["sync"], RESERVE)  # a disk of the network may not answer
    except OSError:
        pass  # there is no such program

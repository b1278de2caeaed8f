"""What works on this box, once a minute: samples for ``devboxd/model/idle.py``, whose text travels in front of this one.

Python 3.6 and the standard library only; reads /proc, writes one small file. Run by a timer of systemd (``minute``), by a loop
where there is none (``loop``), and by the daemon over a session (``look``: rules in, everything that is known out).

It stops the box only where nobody else did: ten minutes after the time at which the daemon would have, with the verdict of
the same rules, and only when the machine is the very instance that it was installed for. Where the box follows the lid
and every laptop has left, it does not wait for them. A look of a laptop's daemon is its sign that it is here.

Between two looks a spot box waits for EC2's notice that it is taken back, and gets ready for that by itself.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.hooks import run_hooks
from devboxd.boxside.programs.parts.keeper import keeper
from devboxd.boxside.programs.parts.note import load, save
from devboxd.boxside.programs.parts.reclaimed import LOOK_EVERY, ROOTS, Keeper, is_ours, note_at
from devboxd.boxside.programs.watch.look import Look
from devboxd.boxside.programs.watch.machine import is_instance, said, tell, terminals, uptime
from devboxd.model.idle import ACTIVE, GAP, MINUTE, STOP, WARN, decide, empty, judge, signed, span, warn

if TYPE_CHECKING:
    from typing import Any

MARGIN = 600.0  # seconds that the daemon has to stop the box itself
HOOKS_LIMIT = 960.0  # seconds for all of the user's hooks
KEEPERS_LIMIT = 300.0  # seconds for all that may keep it
KEEPS = 1800.0  # seconds that one of them keeps it
KEEPS_MOST = 8  # times in a row
LAST_LOOK = 5.0  # seconds in which nothing must work, at last
AWAKE = 55.0  # seconds of each minute in which a spot box looks for notices
ROOTS_FOLDER = "/var/lib/devbox"
FILE_MOST = 1 << 20  # bytes of our own file that are read


def once(folder: str, rules: "dict[str, Any] | None" = None, by_daemon: bool = False) -> "dict[str, Any]":
    """Look, judge, and do what is due. Returns what is written: rules, state, decision, counters, notes."""
    known = _look(folder, rules, by_daemon)
    if not by_daemon and _is_due(known):
        _stop(folder, known)
    return known


def _look(
    folder: str,
    rules: "dict[str, Any] | None" = None,
    by_daemon: bool = False,
    busy: bool = False,
    kept_by: str = "",
) -> "dict[str, Any]":
    """Look, judge, warn, and write it down.

    ``busy``: we have run hooks since the last look, so that nobody looked; what they sent is nobody's work. ``kept_by``: a
    hook that keeps the box from now on.
    """
    path = os.path.join(folder, "idle.json")
    with open(os.path.join(folder, "idle.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = load(path, FILE_MOST)
        here = (rules or {}).pop("here", None)
        if rules is not None:
            known["rules"] = rules
        now = time.time()
        began = time.process_time()
        look = Look(known.get("counters") or {}, known.get("rules") or {}, now)
        sample = look.sample()
        before = known.get("state") or empty()
        if busy:
            sample["net"] = 0
            if before["at"] is not None and before["boot"] == sample["boot"]:
                before = dict(before, at=max(before["at"], now - MINUTE))
        state = judge(before, sample)
        known["counters"], known["sample"], known["cost"] = look.counters, sample, time.process_time() - began
        if by_daemon and here:
            state = signed(state, str(here[0]), float(here[1]), now)
        known["state"] = state
        known["kept"] = _kept(known.get("kept"), state, kept_by, now)
        if known.get("rules"):
            held = dict(known["rules"], kept=known["kept"] and known["kept"]["until"])
            decision = decide(state, held, now)
            if decision["do"] == WARN:
                known["told"] = tell(terminals(look.processes), _words(decision, now))
                known["state"] = state = warn(state, decision, now)
                decision = decide(state, held, now)
                known["counters"]["told"] = now
            known["decision"] = decision
        known["contact" if by_daemon else "looped"] = now
        save(path, known)
    return known


def _kept(
    old: "dict[str, Any] | None", state: "dict[str, Any]", by: str, now: float
) -> "dict[str, Any] | None":
    """How hooks keep the box from being stopped by itself: until when, how often in a row, and in which life of it."""
    if old is not None and (state["verdict"] == ACTIVE or old["boot"] != state["boot"]):
        old = None
    if not by:
        return old
    times = old["times"] + 1 if old is not None else 1
    return {"by": by, "until": now + KEEPS, "times": times, "boot": state["boot"]}


def _words(decision: "dict[str, Any]", now: float) -> str:
    left, why = span(max(0.0, decision["at"] - now)), decision["why"]
    return f"this box stops in {left}: {why}. Press any key to keep it."


def _is_watched(known: "dict[str, Any]") -> bool:
    """Whether the box can stop itself: it looks by itself as root, or has just begun to run, and will."""
    looped = known.get("looped")
    if os.getuid() != 0:
        return False
    if looped is not None and 0 <= time.time() - looped < GAP:
        return True
    return uptime() < GAP and said(["systemctl", "is-active", "devbox-idle.timer"]) == "active"


def _is_due(known: "dict[str, Any]") -> bool:
    """Whether the box stops itself: whoever should have stopped it is gone."""
    rules, decision = known.get("rules"), known.get("decision")
    if not rules or not decision or decision["do"] != STOP or rules.get("then") == "notify":
        return False
    if time.time() < decision["at"] + (0.0 if decision["alone"] else MARGIN):
        return False
    return os.getuid() == 0 and is_instance(rules.get("instance") or "")


def _stop(folder: str, known: "dict[str, Any]") -> None:
    """The watchdog: ask the hooks that may keep the box, run those before a stop, and look once more."""
    home, user = known["rules"].get("home") or "/root", known["rules"].get("user") or ""
    if known["kept"] is None or known["kept"]["times"] < KEEPS_MOST:
        by = keeper(home, user, KEEPERS_LIMIT)
        if by:
            _look(folder, busy=True, kept_by=by)
            return
    run_hooks(home, user, HOOKS_LIMIT)
    # All that took its time: what was typed or began meanwhile counts.
    _look(folder, busy=True)
    time.sleep(LAST_LOOK)
    known = _look(folder)
    if not _is_due(known):
        return
    note = {"at": time.time(), "why": known["decision"]["why"], "evidence": known["state"]["evidence"]}
    save(os.path.join(folder, "stopped.json"), note)
    subprocess.run(["sync"], check=False)
    subprocess.run(["systemctl", "poweroff"], check=False)


def rules_after(folder: str) -> "dict[str, Any]":
    """Look once; the rules, also where the disk is full and nothing can be written down."""
    try:
        known = once(folder)
    except OSError:
        known = load(os.path.join(folder, "idle.json"), FILE_MOST)
    return known.get("rules") or {}


def look_for_notices(folder: str, rules: "dict[str, Any]", end: float) -> None:
    """Look for a notice of EC2 until then, where this is a spot box; see ``parts/reclaimed.py``."""
    path = os.path.join(folder, "reclaim.json")
    if folder == ROOTS_FOLDER and os.getuid() == 0:
        path = ROOTS
        before = os.umask(0o022)  # the user's programs read it
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.umask(before)
    with open(os.path.join(folder, "reclaim.lock"), "w") as lock:
        if not is_ours(lock.fileno()):
            return  # one that the daemon has started looks
        keeper = Keeper(path, rules.get("home") or "/root", rules.get("user") or "")
        while keeper.is_spot():
            keeper.look()
            if time.monotonic() + LOOK_EVERY >= end:
                return
            time.sleep(LOOK_EVERY)


def minute(folder: str) -> None:
    """Look once, and for what is left of the minute for notices."""
    end = time.monotonic() + AWAKE
    look_for_notices(folder, rules_after(folder), end)


def main() -> None:
    """``activity.py FOLDER minute | loop | look``."""
    folder, mode = sys.argv[1], sys.argv[2]
    os.umask(0o077)
    os.makedirs(folder, exist_ok=True)
    if mode == "look":
        found = once(folder, json.loads(sys.argv[3]), by_daemon=True)
        shown = {name: found.get(name) for name in ("state", "decision", "sample", "told", "cost")}
        shown["stopped"] = load(os.path.join(folder, "stopped.json"), FILE_MOST) or None
        own = note_at(os.path.join(folder, "reclaim.json"))
        shown["reclaim"] = note_at(ROOTS) or own or None
        shown["timer"] = _is_watched(found)
        sys.stdout.write(json.dumps(shown) + "\n")
    elif mode == "loop":
        while True:
            began = time.monotonic()
            minute(folder)
            time.sleep(max(0.0, began + 60.0 - time.monotonic()))
    else:
        minute(folder)


main()

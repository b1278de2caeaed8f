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
from devboxd.boxside.programs.parts.note import load, save
from devboxd.boxside.programs.parts.reclaimed import LOOK_EVERY, ROOTS, Keeper, is_ours, note_at
from devboxd.boxside.programs.watch.look import Look
from devboxd.boxside.programs.watch.machine import is_instance, said, tell, terminals
from devboxd.model.idle import STOP, WARN, decide, empty, judge, signed, span, warn

if TYPE_CHECKING:
    from typing import Any

MARGIN = 600.0  # seconds that the daemon has to stop the box itself
HOOKS_LIMIT = 960.0  # seconds for all of the user's hooks
AWAKE = 55.0  # seconds of each minute in which a spot box looks for notices
ROOTS_FOLDER = "/var/lib/devbox"
FILE_MOST = 1 << 20  # bytes of our own file that are read


def once(folder: str, rules: "dict[str, Any] | None" = None, by_daemon: bool = False) -> "dict[str, Any]":
    """Look, judge, and do what is due. Returns what is written: rules, state, decision, counters, notes."""
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
        state = judge(known.get("state") or empty(), sample)
        known["counters"], known["sample"], known["cost"] = look.counters, sample, time.process_time() - began
        if by_daemon and here:
            state = signed(state, str(here[0]), float(here[1]), now)
        known["state"] = state
        if known.get("rules"):
            decision = decide(state, known["rules"], now)
            if decision["do"] == WARN:
                known["told"] = tell(terminals(look.processes), _words(decision, now))
                known["state"] = state = warn(state, decision, now)
                decision = decide(state, known["rules"], now)
                known["counters"]["told"] = now
            known["decision"] = decision
        if by_daemon:
            known["contact"] = now
        save(path, known)
    if not by_daemon and known.get("rules"):
        _stop_if_nobody_does(folder, known, now)
    return known


def _words(decision: "dict[str, Any]", now: float) -> str:
    left, why = span(max(0.0, decision["at"] - now)), decision["why"]
    return f"this box stops in {left}: {why}. Press any key to keep it."


def _stop_if_nobody_does(folder: str, known: "dict[str, Any]", now: float) -> None:
    """The watchdog: whoever should have stopped the box is gone."""
    rules, decision = known["rules"], known["decision"]
    margin = 0.0 if decision["alone"] else MARGIN
    if rules.get("then") == "notify" or decision["do"] != STOP or now < decision["at"] + margin:
        return
    if os.getuid() != 0 or not is_instance(rules.get("instance") or ""):
        return
    run_hooks(rules.get("home") or "/root", rules.get("user") or "", HOOKS_LIMIT)
    note = {"at": now, "why": decision["why"], "evidence": known["state"]["evidence"]}
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


def look_for_notices(folder: str, rules: "dict[str, Any]", seconds: float) -> None:
    """Look for a notice of EC2 for so long, where this is a spot box; see ``parts/reclaimed.py``."""
    end = time.monotonic() + seconds
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
        shown["timer"] = said(["systemctl", "is-active", "devbox-idle.timer"]) == "active"
        sys.stdout.write(json.dumps(shown) + "\n")
    elif mode == "loop":
        while True:
            began = time.monotonic()
            look_for_notices(folder, rules_after(folder), AWAKE)
            time.sleep(max(0.0, began + 60.0 - time.monotonic()))
    else:
        began = time.monotonic()
        rules = rules_after(folder)
        look_for_notices(folder, rules, began + AWAKE - time.monotonic())


main()

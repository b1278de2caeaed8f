"""What works on this box, once a minute: samples for ``devboxd/model/idle.py``, whose text travels in front of this one.

Python 3.6 and the standard library only; reads /proc, writes one small file. Run by a timer of systemd (``minute``), by a loop
where there is none (``loop``), and by the daemon over a session (``look``: rules in, everything that is known out).

It stops the box only where nobody else did: ten minutes after the time at which the daemon would have, with the verdict of
the same rules, and only when the machine is the very instance that it was installed for. Where the box follows the lid
and every laptop has left, it does not wait for them. A look of a laptop's daemon is its sign that it is here.
"""

import fcntl
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.parts.note import load, save
from devboxd.boxside.programs.watch.look import Look
from devboxd.boxside.programs.watch.machine import is_instance, said, tell, terminals
from devboxd.model.idle import STOP, WARN, decide, empty, judge, signed, span, warn

if TYPE_CHECKING:
    from typing import Any

MARGIN = 600.0  # seconds that the daemon has to stop the box itself
HOOK_LIMIT = 60  # seconds for each of the user's hooks
HOOKS_MOST = 16
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
    for hook in _hooks(rules.get("home") or "/root"):
        try:
            subprocess.run([hook], timeout=HOOK_LIMIT, stdin=subprocess.DEVNULL, check=False)
        except (OSError, subprocess.TimeoutExpired):
            pass  # it has had its time
    note = {"at": now, "why": decision["why"], "evidence": known["state"]["evidence"]}
    save(os.path.join(folder, "stopped.json"), note)
    subprocess.run(["sync"], check=False)
    subprocess.run(["systemctl", "poweroff"], check=False)


def _hooks(home: str) -> "list[str]":
    found = []
    for folder in ("/etc/devbox/pre-stop.d", os.path.join(home, ".config/devbox/pre-stop.d")):
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        found += [
            os.path.join(folder, name) for name in names if os.access(os.path.join(folder, name), os.X_OK)
        ]
    return found[:HOOKS_MOST]


def main() -> None:
    """``activity.py FOLDER minute | loop | look``."""
    folder, mode = sys.argv[1], sys.argv[2]
    os.umask(0o077)
    os.makedirs(folder, exist_ok=True)
    if mode == "look":
        found = once(folder, json.loads(sys.argv[3]), by_daemon=True)
        shown = {name: found.get(name) for name in ("state", "decision", "sample", "told", "cost")}
        shown["stopped"] = load(os.path.join(folder, "stopped.json"), FILE_MOST) or None
        shown["timer"] = said(["systemctl", "is-active", "devbox-idle.timer"]) == "active"
        sys.stdout.write(json.dumps(shown) + "\n")
    elif mode == "loop":
        while True:
            once(folder)
            time.sleep(60.0)
    else:
        once(folder)


main()

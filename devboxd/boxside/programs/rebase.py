"""Copy the homes of an old root volume, which is attached, onto this system; in the background, and again if need be.

Python 3.6 and the standard library only, as root. Arguments: this text itself, a request (JSON), and on a simulated box
the folder that plays its root; one line of JSON comes out. As a file of its own it is the worker (``FILE work REQUEST``).
``/var/lib/devbox/rebase`` has ``lock`` (held while it works), ``state.json``, what stood in the place of what came
(``replaced-…``) and, below ``private``, the old root as long as it is mounted. Nothing of this system is deleted.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.moving.copy import FAILED_MOST, Copy
from devboxd.boxside.programs.moving.mounts import carry_mounts
from devboxd.boxside.programs.moving.oldroot import mount_old, unmount
from devboxd.boxside.programs.moving.system import OWN, Refused, System, call, shown
from devboxd.boxside.programs.moving.users import Names
from devboxd.boxside.programs.parts.lock import is_held
from devboxd.boxside.programs.parts.note import load, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NOTES_MOST = 20
COUNT_MOST = (1 << 62) - 1
BEGINS_WITHIN = 15.0
TRIES, PAUSE = 50, 0.02  # to take the lock, which whoever looks whether it is held shares for a moment
ENDS_WITHIN = 10.0
LEASE = 24 * 3600.0
STATE_MOST = 1 << 20  # characters of our own note that are read


def held(system: System) -> bool:
    """Whether the worker is at work."""
    return is_held(os.path.join(system.own, "lock"))


# The worker ---------------------------------------------------------------------------------------------------


def take(lock: int) -> bool:
    """Hold the lock alone; False where another worker does."""
    for _ in range(TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(PAUSE)
    return False


def work(system: System, asked: "dict[str, Any]") -> None:
    """All of it, once; what came of it is in the state."""
    lock = os.open(os.path.join(system.own, "lock"), os.O_RDONLY | os.O_CREAT, 0o644)
    if not take(lock):
        return
    state: dict[str, Any] = {"token": asked["token"], "pid": os.getpid(), "files": 0, "bytes": 0}
    state["first"] = asked.get("first") or time.time()
    path = os.path.join(system.own, "state.json")

    def tell(files: int, count: int) -> None:
        state.update(files=files, bytes=min(count, COUNT_MOST))
        save(path, state)

    def leave(number: int, frame: object) -> None:
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, leave)
    tell(0, 0)
    try:
        state.update(move(system, asked, tell), done=True)
    except Refused as error:
        state["problem"] = shown(str(error))
    except OSError as error:
        state["problem"] = shown(str(error.filename or "") + ": " + str(error.strerror))
    except Exception as error:  # noqa: BLE001 - else it would be begun again for ever
        state["problem"] = shown("the copying failed: " + repr(error))
    finally:
        if not system.played:
            unmount(os.path.join(system.own, "private", "old"))
    save(path, state)


def move(system: System, asked: "dict[str, Any]", tell: "Callable[[int, int], None]") -> "dict[str, Any]":
    """Mount, make users, carry mounts over, copy, compare."""
    notes: list[str] = []
    kept = os.path.join(system.own, "replaced-" + asked["token"])
    since = time.time()
    old, disk = mount_old(system, asked["volume"], asked["device"])
    names = Names(system, old, notes)
    over = carry_mounts(system, old, disk, kept, notes)
    copy = Copy(system, names, old, kept, tell, asked.get("first") or 0.0)
    found, elsewhere = homes(system, names, old, over, notes)
    for home in found:
        copy.home(home)
        copy.compare(home, asked.get("first") or since)
    os.sync()
    if copy.failed:
        count = str(len(copy.failed)) if len(copy.failed) < FAILED_MOST else str(FAILED_MOST) + " or more"
        place, why = next(iter(copy.failed.items()))
        raise Refused(count + " of " + str(copy.files) + " files are not copied, first " + place + ": " + why)
    if not found and not elsewhere:
        raise Refused("there is no home on the old root")
    notes += remarks(copy, names)
    aside = copy.aside | ({kept} if os.path.isdir(kept) else set())
    return {
        "files": copy.files,
        "bytes": min(copy.bytes, COUNT_MOST),
        "kept": shown(" and ".join(sorted(aside))),
        "notes": [shown(note) for note in notes[:NOTES_MOST]],
    }


def homes(
    system: System, names: Names, old: str, over: "list[str]", notes: "list[str]"
) -> "tuple[list[str], bool]":
    """Make the users of the old system. Returns the homes to copy, and whether there are some on volumes that are here."""
    found: list[str] = []
    elsewhere = False
    for one in names.people():
        home = os.path.normpath(one[5])
        if home.startswith("/home/") and is_below(home, over):
            # It is on a volume that is here. What the old root has below that was out of sight, and is older.
            names.make(one)
            elsewhere = True
            if names.uids[int(one[2])] != int(one[2]):
                notes.append(
                    one[0] + " has another id here: " + home + ", on a volume of its own, has the old one"
                )
            continue
        if not home.startswith("/") or not os.path.isdir(below_old(old, home)):
            continue
        why = why_not(system, old, home)
        if why:
            notes.append("the home of " + one[0] + why + ", and not copied")
            continue
        names.make(one)
        if not is_below(home, found):
            found.append(home)
    return found, elsewhere


def below_old(old: str, home: str) -> str:
    """Where a home is on the old root."""
    return os.path.join(old, home.lstrip("/")).rstrip("/")


def is_below(home: str, places: "list[str]") -> bool:
    """Whether it is one of those places, or in one."""
    return any((home + "/").startswith(place.rstrip("/") + "/") for place in places)


def why_not(system: System, old: str, home: str) -> str:
    """Why a home is not copied; empty: it is."""
    if not (home == "/root" or home.startswith("/home/") or (home == "/" and system.played)):
        return " is " + home + ", which is not below /home"
    is_link = os.path.realpath(below_old(old, home)) != os.path.realpath(old) + ("" if home == "/" else home)
    return " is a link" if is_link else ""


def remarks(copy: Copy, names: Names) -> "list[str]":
    """What is to be said of homes that are copied."""
    found = []
    if copy.skipped:
        found.append(str(copy.skipped) + " device nodes are not copied")
    before, now = names.first()
    if before and now and before != now:
        found.append("the first user of this image is " + now + ": devboxctl attach --user " + before)
    if copy.left:
        found.append(
            str(copy.left) + " files were changed here since an earlier try, and are left as they are"
        )
    if copy.closed:
        more = " and " + str(copy.closed - 1) + " more" if copy.closed > 1 else ""
        found.append(
            "what was in "
            + copy.first_closed
            + more
            + " is not copied, as something else than a folder was put there since an earlier try"
        )
    return found


# What is asked ------------------------------------------------------------------------------------------------


def begin(system: System, asked: "dict[str, Any]", text: str) -> "dict[str, Any]":
    """Begin to copy, or say how far it is."""
    path = os.path.join(system.own, "state.json")
    is_held, state = held(system), load(path, STATE_MOST)
    if not is_held and (
        state.get("token") != asked["token"] or not (state.get("done") or state.get("problem"))
    ):
        os.makedirs(os.path.join(system.own, "private", "old"), exist_ok=True)
        os.chmod(os.path.join(system.own, "private"), 0o700)
        if "first" in state:
            asked = dict(asked, first=state["first"])
        save(path, {})
        program = os.path.join(system.own, "program.py")
        with open(program, "w") as file:
            file.write(text)
        argv = [
            sys.executable,
            "-I",
            program,
            "work",
            json.dumps(asked),
            system.root if system.played else "",
        ]
        null = subprocess.DEVNULL
        subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True, cwd="/")
        end = time.time() + BEGINS_WITHIN
        while not load(path, STATE_MOST):
            if time.time() > end:
                raise Refused("the copying did not begin")
            time.sleep(0.05)
        state = load(path, STATE_MOST)
    names = ("done", "files", "bytes", "kept", "notes", "problem")
    return {name: state[name] for name in names if name in state}


def is_worker(system: System, pid: int) -> bool:
    """Whether that process is the worker: the number of one that is gone may be another's by now."""
    try:
        with open("/proc/" + str(pid) + "/cmdline", "rb") as file:
            argv = file.read().split(b"\0")
    except OSError:
        return False
    return argv[2:4] == [os.fsencode(os.path.join(system.own, "program.py")), b"work"]


def end_it(system: System) -> "dict[str, Any]":
    """End the copying, and let go of the old root."""
    end = time.time() + ENDS_WITHIN
    while held(system) and time.time() < end + ENDS_WITHIN:
        pid = load(os.path.join(system.own, "state.json"), STATE_MOST).get("pid")
        if isinstance(pid, int):  # else it has just begun
            if not is_worker(system, pid):
                break
            try:
                os.kill(pid, signal.SIGTERM if time.time() < end else signal.SIGKILL)
            except OSError:
                break
        time.sleep(0.1)
    if not system.played:
        unmount(os.path.join(system.own, "private", "old"))
    return {}


def hold_the_box(home: str) -> None:
    """A note by which nobody takes the box for idle while it copies."""
    folder = os.path.join(home, ".devbox", "leases")
    command = "! flock -s -n /" + OWN + "/lock true"
    lease = {
        "id": "rebase",
        "until": time.time() + LEASE,
        "why": "homes are being copied",
        "command": command,
    }
    try:
        os.makedirs(folder, exist_ok=True)
        save(os.path.join(folder, "rebase.json"), lease)
    except OSError:
        pass  # it can not be written: the daemon holds the box all the same


def main() -> None:
    """Either the worker, or one request."""
    os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    if sys.argv[1] == "work":
        work(System(sys.argv[3]), json.loads(sys.argv[2]))
        return
    text, request, played = sys.argv[1:4]
    asked = json.loads(request)
    if asked["verb"] == "copy" and not played and sys.argv[4:] != ["again"]:
        hold_the_box(os.path.expanduser("~"))
    if os.getuid() and not played:
        argv = [sys.executable, "-I", "-c", "import sys; exec(sys.argv[1])", text, request, played, "again"]
        status, _ = call("sudo", "-n", "true")
        if status:
            sys.stdout.write(
                json.dumps({"problem": "homes are copied as root, and sudo is not allowed"}) + "\n"
            )
            return
        os.execvp("sudo", ["sudo", "-n", *argv])
    try:
        answer = end_it(System(played)) if asked["verb"] == "end" else begin(System(played), asked, text)
    except Refused as error:
        answer = {"problem": shown(str(error))}
    except OSError as error:
        answer = {"problem": shown(str(error.filename or "") + ": " + str(error.strerror))}
    sys.stdout.write(json.dumps(answer) + "\n")


main()

"""The bridgehead: the far end of a bridge, on the box, for one user and one daemon.

It is started once, detaches, and lives until the box stops or until no lane came for a day. It listens on loopback and
on a unix socket of its own (0600). Whoever connects must answer a challenge with the secret that came with the start,
or is closed; so is who takes more than five seconds, and the oldest of more than ``STRANGERS_MOST``.

Runs on Python 3.6 and later with the standard library only. What travels is this text behind that of
``devboxd/model/bridge`` and of the modules imported below, minified.

Streams and their purposes (JSON; see ``devboxd/boxside/bridgehead.py``): ``tcp`` and ``unix`` connect, ``listen`` accepts,
``exec`` runs a command, ``control`` sends it signals and sizes, ``watch`` tells which ports are listened on.

``start FOLDER`` reads one line of JSON (``id``, ``secret``, ``linger``) and prints one.
"""

import errno
import json
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.auth import ANSWER, GREETING, MAGIC
from devboxd.boxside.programs.head.loop import Head

if TYPE_CHECKING:
    from typing import Any

    Want = dict[str, Any]


ANSWER_TIME = 2.0  # seconds that a bridgehead has to answer a greeting
LINGER = 86400.0  # seconds without a lane after which nobody is expected to come back


def own_folder(folder: str) -> str:
    """A folder that only this user can enter.

    Raises:
        OSError: it is somebody else's, or a link.
    """
    folder = os.path.expanduser(folder)
    os.makedirs(folder, 0o700, exist_ok=True)
    found = os.lstat(folder)
    if found.st_uid != os.getuid() or not os.path.isdir(folder) or os.path.islink(folder):
        raise OSError(errno.EPERM, "the folder is not this user's own", folder)
    os.chmod(folder, 0o700)
    return folder


def paths(folder: str, name: str) -> "tuple[str, str]":
    """Socket and note of a bridgehead."""
    if not name.isalnum() or len(name) > 64:
        raise ValueError("not the name of a bridge")
    return os.path.join(folder, f"bridge-{name}.sock"), os.path.join(folder, f"bridge-{name}.json")


def running(folder: str, name: str) -> "Want | None":
    """The note of a bridgehead that lives. One that does not answer is ended."""
    path, note = paths(folder, name)
    found: Want = {}
    sock = socket.socket(socket.AF_UNIX)
    try:
        with open(note) as file:
            found = json.load(file)
        sock.settimeout(ANSWER_TIME)
        sock.connect(path)
        sock.sendall(GREETING.pack(MAGIC, bytes(16), 0, os.urandom(32)))
        return found if sock.recv(ANSWER.size) else None
    except (socket.timeout, BlockingIOError):
        end(folder, found.get("pid", 0))
    except (OSError, ValueError):
        pass  # there is none
    finally:
        sock.close()
    return None


def end(folder: str, pid: int) -> None:
    """End a bridgehead that hangs, if that is what has this number now."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            if f"start\0{folder}\0" in file.read():
                os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError):
        pass  # it has just ended


def start(folder: str) -> int:
    """Start a bridgehead, or find the one that lives; print where it listens."""
    os.umask(0o077)
    want = json.loads(sys.stdin.readline())
    folder = own_folder(folder)
    note = running(folder, want["id"])
    if note is not None:
        note["was"] = True
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()
        return 0
    path, note_path = paths(folder, want["id"])
    listeners = [bind(path), socket.socket(socket.AF_INET)]
    listeners[1].bind(("127.0.0.1", 0))
    for one in listeners:
        one.listen(64)
        one.setblocking(False)
    note = {
        "port": listeners[1].getsockname()[1],
        "path": path,
        "tells": True,  # of a connection that it stands, where a purpose wants that
        "was": False,
    }
    gone = detach()
    if gone:
        note["pid"] = gone
        with open(note_path + ".new", "w") as file:
            json.dump(note, file)
        os.rename(note_path + ".new", note_path)
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()
        return 0
    try:
        serve(bytes.fromhex(want["secret"]), float(want.get("linger") or LINGER), folder, listeners)
    finally:
        for name in (path, note_path):
            try:
                os.unlink(name)
            except OSError:
                pass  # removed by hand
    return 0


def bind(path: str) -> socket.socket:
    """The bridgehead's own socket, for this user only."""
    before = os.umask(0o177)
    try:
        if os.path.exists(path):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        return sock
    finally:
        os.umask(before)


def detach() -> int:
    """Go on as a process of its own; returns its number in the one that was started, 0 in the new one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        number = os.read(reading, 16)
        os.close(reading)
        os.waitpid(child, 0)
        return int(number)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.write(writing, b"%d" % os.getpid())
    os.close(reading)
    os.close(writing)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    return 0


def serve(secret: bytes, linger: float, folder: str, listeners: "list[socket.socket]") -> None:
    """Be the bridgehead."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):
        pass  # some kernels take no infinity here
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    Head(secret, linger, folder).run(listeners, reading, writing)


if __name__ == "__main__":
    sys.exit(start(sys.argv[2]))

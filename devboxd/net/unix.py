"""The daemon's own socket: from systemd or bound here, for this user only, and one daemon at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from devboxd.errors import Denied, DevboxError, Kind
from devboxd.net.listen import bind_unix

FIRST_FD: Final = 3  # sd_listen_fds(3)
CONTROL_NAMES: Final = frozenset({"api", "devboxd.socket", "devboxd", "control"})  # FileDescriptorName= first
LOCK_NAME: Final = "devboxd.lock"
STATE_LOCK_NAME: Final = "journal.lock"  # another name: the socket may stand in the state folder

LOOKS: Final = 20  # how often the lock is tried while others look whose it is
LOOK: Final = 0.005  # seconds between two of them

_UCRED: Final = struct.Struct("=iII")  # pid, uid, gid
_XUCRED_BYTES: Final = 76  # macOS: version, uid, number of groups, 16 groups
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1  # macOS <sys/un.h>


class AlreadyRunning(DevboxError):
    """Another devboxd of this user holds the socket."""

    code = "already-running"
    kind = Kind.STATE
    is_elsewhere = False  # it has the state folder, and another socket


class PeerDenied(Denied):
    """Somebody else's process connected to the daemon's socket."""

    code = "peer-denied"


@dataclass(slots=True)
class DaemonSocket:
    """The listening control socket. ``activation``: systemd or spawned, as in ``wire.Status``."""

    socket: socket.socket
    path: Path
    activation: str
    _locks: tuple[int, ...] = field(repr=False)
    _file: tuple[int, int] | None = field(default=None, repr=False)

    def close(self) -> None:
        """Close; remove the file where we made it and it is still ours; let the next daemon start."""
        self.socket.close()
        if self._file is not None:
            with contextlib.suppress(OSError):
                found = self.path.lstat()
                if (found.st_dev, found.st_ino) == self._file:
                    self.path.unlink()
        for lock in self._locks:
            os.close(lock)


def open_daemon_socket(
    path: Path, inherited: dict[str, list[socket.socket]] | None = None, *, state: Path | None = None
) -> DaemonSocket:
    """Take the control socket out of ``inherited`` (see ``inherited_sockets``), or bind ``path``.

    Args:
        state: the folder with the journal. Only one daemon may use it, also where two have sockets of
            their own: each would take the other's sessions for left over, and end them.

    Raises: AlreadyRunning; BadRequest or PortDenied when the path can not be used; Denied when its folder
    is not private.
    """
    locks = [_lock(path.parent / LOCK_NAME)]
    try:
        if state is not None:
            locks.append(_lock(state / STATE_LOCK_NAME, path))
        given = _take_control(inherited or {})
        if given is not None:
            given.setblocking(False)
            return DaemonSocket(given, path, "systemd", tuple(locks))
        bound = bind_unix(path)
        bound.setblocking(False)
        found = path.lstat()
        return DaemonSocket(bound, path, "spawned", tuple(locks), (found.st_dev, found.st_ino))
    except BaseException:
        for lock in locks:
            os.close(lock)
        raise


def inherited_sockets(
    environment: MutableMapping[str, str], files: dict[str, list[int]] | None = None
) -> dict[str, list[socket.socket]]:
    """The sockets that systemd passed (socket units and the descriptor store), by name.

    What is no socket is put into ``files``, by name; without it, it is closed. Clears LISTEN_* in ``environment``, so that no child believes they are for it. Call once, early.
    Source: sd_listen_fds_with_names(3).
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, list[socket.socket]] = {}
    for offset in range(int(count)):
        number = FIRST_FD + offset
        with contextlib.suppress(OSError):  # a number that is not open
            os.set_inheritable(number, False)
            name = names[offset] if offset < len(names) else ""
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                if files is None:
                    os.close(number)
                else:
                    files.setdefault(name, []).append(number)
                continue
            found.setdefault(name, []).append(socket.socket(fileno=number))
    return found


def peer_user(connection: socket.socket) -> int | None:
    """The user id at the other end of a unix connection; None where the system can not tell."""
    platform: str = sys.platform  # a plain text, so that mypy checks every branch on every system
    if platform.startswith("linux"):
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return int(_UCRED.unpack(raw)[1])
    if platform == "darwin":
        raw = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
        return int.from_bytes(raw[4:8], sys.byteorder)
    return None


def check_peer(connection: socket.socket) -> None:
    """Let in this user and root, nobody else. Raises PeerDenied."""
    user = peer_user(connection)
    if user not in (os.geteuid(), 0):
        raise PeerDenied(
            f"user id {user} may not talk to this devboxd", hint="each user runs a devboxd of their own"
        )


def send_fd(connection: socket.socket, descriptor: int, data: bytes = b"\0") -> None:
    """Pass a descriptor (SCM_RIGHTS) with one byte of data. The caller still owns its copy.

    Raises: OSError, BlockingIOError included: the peer has to be reading.
    """
    socket.send_fds(connection, [data], [descriptor])


def _take_control(inherited: dict[str, list[socket.socket]]) -> socket.socket | None:
    for name in CONTROL_NAMES & inherited.keys():
        listeners = [one for one in inherited[name] if one.family == socket.AF_UNIX]
        if listeners:
            inherited[name].remove(listeners[0])
            return listeners[0]
    return None


def _lock(file: Path, path: Path | None = None) -> int:
    """Lock out a second daemon. The lock dies with the process, however it dies.

    The file names the process that holds it and, where it is given, that one's socket ``path``.
    """
    folder = file.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise Denied(
            f"{folder} can be written by others, so the daemon's files are not safe there",
            hint=f"run: chmod 700 {folder}"
            if found.st_uid == os.geteuid()
            else "set DEVBOX_SOCKET to a path of yours",
        )
    try:
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise Denied(
            f"{file} cannot be opened: {error.strerror}", hint="move away what stands there"
        ) from error
    if not stat.S_ISREG(os.fstat(lock).st_mode):
        os.close(lock)
        raise Denied(f"{file} is no regular file", hint="move away what stands there")
    try:
        _take(lock)
    except OSError as error:
        pid, _, other = os.pread(lock, 4096, 0).decode(errors="replace").strip().partition("\n")
        os.close(lock)
        who = f" (process {pid})" if pid.isdecimal() else ""
        if not other or path is None or other == str(path):
            raise AlreadyRunning(
                f"devboxd is running already{who}", hint="see: devboxctl daemon status"
            ) from error
        elsewhere = AlreadyRunning(
            f"devboxd is running already{who}, with the same state folder and another socket: {other}",
            hint=f"use that one (DEVBOX_SOCKET={other}), or give this one its own XDG_STATE_HOME",
        )
        elsewhere.is_elsewhere = True
        raise elsewhere from error
    os.ftruncate(lock, 0)
    with contextlib.suppress(OSError):  # a full disk: the lock holds, it only does not say whose it is
        os.pwrite(lock, (f"{os.getpid()}\n" + (f"{path}\n" if path is not None else "")).encode(), 0)
    return lock


def _take(lock: int) -> None:
    """Lock a file. Raises OSError where a daemon has it: whoever only looks (``starting.process_id``) shares it."""
    for _ in range(LOOKS):
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(LOOK)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""The daemon as a process: start it, say whether it answers, find and end it. Standard library only.

``client`` comes here only when nobody listens, or nobody answers, so that the usual case does not pay for it.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import time

from devboxd.api import client
from devboxd.text import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LOCK_NAME = "devboxd.lock"  # beside the socket; its holder writes its process id into it (devboxd.net.unix)
STOPPED_SUFFIX = ".stopped"  # beside the socket: the user has stopped the daemon, so nobody starts it unasked
HAND_OVER_FD = (
    "DEVBOX_HAND_OVER_FD"  # the connection to a daemon that leaves what it holds (devboxd.net.handover)
)
START_FD = "DEVBOX_START_FD"  # descriptor on which a daemon that cannot start says why (devboxd.host.starter)
AGAIN = "again"  # its third line: another daemon was in the way, which may be gone soon
HANG = 8.0  # more seconds for a daemon that runs but does not answer
TERMINATE, KILL = 5.0, 5.0  # seconds for a process to end when asked to, and when made to

# Paths that the daemon reads from its environment. It runs in another folder, so they must be whole.
PATHS = (
    *("DEVBOX_SOCKET", "DEVBOX_CONFIG", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE"),
    *("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_DATA_PATH"),
    *("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


# Starting.


class Starting:
    """A daemon of our own that is coming up, away from this terminal.

    Of several callers at once only one starts a daemon: the others find the lock taken and wait with it.
    """

    def __init__(self, path: str, link: int | None = None) -> None:
        """Start one. ``link``: a connection to the daemon that runs, which leaves what it holds to ours."""
        import fcntl

        state = client.state_directory()
        for needed in (os.path.dirname(path), state):
            make_folder(needed)
        self._path = path
        self._pid: int | None = None
        self._words = -1
        self._said: list[str] | None = None  # why it could not start, once it has ended
        self._log = f"{state}/{client.LOG_NAME}"
        self._log_size = _size(self._log)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._lock = _opened(f"{path}.start", flags)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        try:
            self._pid, self._words = _spawn(self._log, link)
        except BaseException:
            self.release()
            raise

    @property
    def is_ours(self) -> bool:
        """Tell whether we have started one, and not another caller."""
        return self._pid is not None

    def alive(self) -> bool:
        """Tell whether waiting still makes sense."""
        if self._pid is None:
            return True
        if self._said is None:
            try:
                if os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                    return True
            except ChildProcessError:
                pass
            self._said = self._last_words()
        if AGAIN not in self._said[2:]:
            return False
        # Another daemon has the socket: it comes up and will answer, or it goes and leaves it to the next one.
        if process_id(self._path) is None:
            os.close(self._words)
            self._words, self._said = -1, None
            self._pid, self._words = _spawn(self._log)
        return True

    def _last_words(self) -> list[str]:
        """What it has said: the message, the hint, and ``AGAIN`` where the next one may fare better."""
        os.set_blocking(self._words, False)
        try:
            return os.read(self._words, 4096).decode("utf-8", "replace").split("\n")
        except OSError:
            return []

    def release(self) -> None:
        """Let others start a daemon, now that this one answers or has failed."""
        for descriptor in (self._lock, self._words):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._words = -1

    def failure(self) -> client.ClientError:
        """Say why it did not come up: in its own words, or else in those that Python had for it."""
        if self._said is None and self._words >= 0:
            self._said = self._last_words()
        message, hint, *_ = [*(self._said or []), "", ""]
        message = message or self._last_line()
        return client.ClientError(
            "devboxd could not be started" + (f": {one_line(message, 400)}" if message else ""),
            one_line(hint, 400) if hint.strip() else f"its log is {self._log}",
        )

    def _last_line(self) -> str:
        """The last line that was written to the log since we began: what Python said as it ended."""
        try:
            with open(self._log, "rb") as log:
                size = os.fstat(log.fileno()).st_size
                log.seek(max(self._log_size if size >= self._log_size else 0, size - 8192))
                lines = log.read().decode("utf-8", "replace").strip().splitlines()
        except OSError as error:
            return f"and its log cannot be read: {error.strerror}"
        # Lines of the log itself may be of a daemon that runs.
        return next((line for line in reversed(lines) if not line.startswith("{")), "")


def _spawn(log_path: str, link: int | None = None) -> tuple[int, int]:
    """Run ``python -m devboxd`` in a session of its own; returns its process id and where it says why not."""
    import subprocess

    log = _opened(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    words, ours = os.pipe()
    passed = {START_FD: str(ours)} | ({} if link is None else {HAND_OVER_FD: str(link)})
    try:
        # -P: a folder named devboxd in the caller's current folder must not become the daemon.
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "devboxd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment(os.environ, os.getcwd() if _has_folder() else "/") | passed,
            pass_fds=[int(descriptor) for descriptor in passed.values()],
            start_new_session=True,
        )
    except OSError as error:
        os.close(words)
        raise client.ClientError(f"cannot run {sys.executable}: {error.strerror}") from None
    finally:
        os.close(log)
        os.close(ours)
    child.returncode = 0  # it outlives us, and Popen would warn about that
    return child.pid, words


def _has_folder() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False  # it was removed under us
    return True


def environment(environ: Mapping[str, str], folder: str) -> dict[str, str]:
    """What a daemon gets of our environment: paths are made whole, and nothing is meant for another Python."""
    found = {name: value for name, value in environ.items() if not name.startswith("PYTHON")}
    if here := own_root(environ.get("PYTHONPATH", ""), folder):
        found["PYTHONPATH"] = here
    for name in PATHS:
        if (value := found.get(name)) and not value.startswith(("/", "~")):
            found[name] = os.path.normpath(os.path.join(folder, value))
    return found


def own_root(python_path: str, folder: str) -> str:
    """The folder of PYTHONPATH that we ourselves were loaded from (a checkout); empty if there is none."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    given = [os.path.normpath(os.path.join(folder, part)) for part in python_path.split(os.pathsep) if part]
    return root if root in given else ""


def make_folder(path: str) -> None:
    """Make a folder and what is missing above it, for this user alone whatever the umask. Raises ClientError."""
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            if not os.path.isdir(folder):
                raise client.ClientError(f"{folder} is in the way: it is not a folder") from None
        except OSError as error:
            raise client.ClientError(f"cannot make {folder}: {error.strerror}") from None


def _opened(path: str, flags: int) -> int:
    """A file of ours. A pipe in its place is not waited for."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK, 0o600)
    except OSError as error:
        why = "it is no regular file" if error.errno == errno.ENXIO else error.strerror
        raise client.ClientError(f"cannot write {path}: {why}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise client.ClientError(f"cannot write {path}: it is no regular file")
    os.set_blocking(descriptor, True)
    return descriptor


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


# Stopped on purpose.


def mark_stopped(path: str, *, stopped: bool) -> None:
    """Remember that the user has stopped the daemon, or that somebody wants it again. Never fails."""
    try:
        if stopped:
            os.close(
                os.open(
                    path + STOPPED_SUFFIX,
                    os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
                    0o600,
                )
            )
        else:
            os.unlink(path + STOPPED_SUFFIX)
    except OSError:
        pass


def is_stopped(path: str) -> bool:
    """Tell whether the user has stopped the daemon and nobody has asked for it since."""
    return os.path.lexists(path + STOPPED_SUFFIX)


# Answering.


class Probe:
    """A question to the daemon that only a hung one does not answer at once. ``descriptor`` is to be polled."""

    def __init__(self, path: str) -> None:
        self._connection = client.connect(path, 0.0)
        self.descriptor = self._connection.fileno()
        self._connection.send(client.request_bytes("GET", "status"))

    def answered(self) -> bool:
        """Tell whether it has said something."""
        try:
            return bool(self._connection.recv(1))
        except OSError:
            return False

    def close(self) -> None:
        """Take the question back."""
        self._connection.close()


def check(path: str, patience: float) -> None:
    """Return if the daemon answers within ``patience`` seconds, or some more if it at least runs.

    Raises:
        NotAnswering: it does not.
    """
    import select

    pid = process_id(path)
    if is_frozen(pid):
        raise not_answering(pid)
    try:
        probe = Probe(path)
    except BlockingIOError:
        raise not_answering(pid) from None  # so many wait already that there is no room to
    except OSError:
        return  # it is going away, which the caller will see
    try:
        poll = select.poll()
        poll.register(probe.descriptor, select.POLLIN)
        for seconds in (patience, HANG):
            if poll.poll(seconds * 1000):
                return
            if seconds == patience:
                client.tell(not_answering(pid).message + "; waiting")
    finally:
        probe.close()
    raise not_answering(pid)


def not_answering(pid: int | None) -> client.NotAnswering:
    """The error for a daemon that hangs."""
    who = f"devboxd (pid {pid})" if pid else "devboxd"
    if is_frozen(pid):
        return client.NotAnswering(
            f"{who} does not answer: it is stopped, as with SIGSTOP",
            f"kill -CONT {pid}, or: devboxctl daemon restart",
        )
    return client.NotAnswering(
        f"{who} does not answer", "devboxctl daemon restart ends it and starts another"
    )


def process_id(path: str) -> int | None:
    """The process that holds the daemon's lock; None where none does."""
    import fcntl

    try:
        lock = os.open(
            os.path.join(os.path.dirname(path), LOCK_NAME),
            os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK,
        )
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        first = os.pread(lock, 64, 0).decode("ascii", "replace").partition("\n")[0]
        return int(first) if first.isdecimal() else None
    finally:
        os.close(lock)
    return None  # nobody holds it: what it says is of a daemon that is gone


def is_frozen(pid: int | None) -> bool:
    """Tell whether a process is stopped by a signal. Only Linux can tell."""
    return pid is not None and _state(pid) in ("T", "t")


def is_alive(pid: int) -> bool:
    """Tell whether a process runs. One that nobody waits for is gone for every purpose.

    Its first thread may have ended before the others: as long as one is left it holds its sockets and locks.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    if _state(pid) == "Z" and _threads(pid) <= 1:
        return False
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return True


def _state(pid: int) -> str:
    return _told(pid, 3) or ""  # macOS, or just gone


def _threads(pid: int) -> int:
    return int(_told(pid, 20) or 0)


def _told(pid: int, field: int) -> str | None:
    """What Linux tells of a process: a field of ``/proc/PID/stat``, counted as in proc_pid_stat(5), behind the name."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[field - 3].decode()
    except (OSError, IndexError):
        return None


# Ending.


def end(pid: int) -> None:
    """End a process that does not answer: ask it, wake it so that it can, then make it. Raises ClientError."""
    try:
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        if wait_for_end(pid, TERMINATE):
            return
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    except PermissionError:
        raise client.ClientError(f"devboxd (pid {pid}) belongs to another user") from None
    if not wait_for_end(pid, KILL):
        raise client.ClientError(f"devboxd (pid {pid}) cannot be ended: the system waits for something in it")


def wait_for_end(pid: int, seconds: float) -> bool:
    """Wait until a process is gone; says whether it is."""
    until = time.monotonic() + seconds
    while is_alive(pid):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True

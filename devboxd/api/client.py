"""The other end of the control API: HTTP/1.1 over the unix socket, blocking, standard library only.

This module is in the start-up path of ``devboxctl proxy`` and ``attach`` (a budget of some 20 ms), so it
imports nothing that costs: no typing, no json, no msgspec, no asyncio. It moves bytes; ``devboxctl.ask``
turns them into the types of ``wire``. It also knows where the daemon listens, whether that socket can be
trusted, and how to start a daemon that is not there.

Everything that fails raises ``ClientError``.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys

from devboxd.errors import Kind
from devboxd.text import printable

TYPE_CHECKING = False  # mypy takes it for typing.TYPE_CHECKING; importing typing costs 8 ms
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

API_PREFIX = "/v1/"
UPGRADE = "devbox"
HEAD_MAX = 65536  # bytes of status line and headers; more is not our daemon
WAITS = "Devbox-Waits"  # asks for, and says in an answer 102 before the real one, what is waited for
BODY_MAX = 64 << 20  # bytes of one reply; more is not our daemon
CALL_TIMEOUT = 60.0  # seconds without a byte of answer to an ordinary call
PATIENCE = (
    1.0  # seconds without an answer before we ask whether the daemon answers at all, and for that answer
)
ASK_AGAIN = 10.0  # seconds until we ask that once more
START_TIMEOUT = 10.0  # seconds for a new daemon to answer
TRIES = 3  # of a request that nobody has read
SOCKET_NAME = "devboxd.sock"
LOG_NAME = "devboxd.log"

has_told = False  # a person has been told what is waited for
is_chatty = True  # a person reads what we say; False where it is a program


class ClientError(Exception):
    """The daemon could not be asked. ``code`` and ``kind`` as in ``wire.Failure``."""

    code = "no-daemon"
    kind = Kind.NO_DAEMON
    retryable = True

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotTrusted(ClientError):
    """The socket belongs to somebody else, so nothing is sent to it."""

    code = "socket-not-trusted"
    retryable = False


class DaemonLost(ClientError):
    """The daemon went away in the middle of an answer."""

    code = "daemon-lost"
    is_unread = (
        False  # True where it is sure that it had not read all that was asked, so has done nothing of it
    )
    is_unanswered = False  # True where nothing of its answer had come

    def may_ask_again(self, is_harmless: bool) -> bool:
        """Whether the next daemon may be asked the same. ``is_harmless``: to ask twice is."""
        return self.is_unread or (is_harmless and self.is_unanswered)


class NotAnswering(ClientError):
    """The daemon runs, or at least its socket is there, but it does not answer."""

    code = "not-answering"
    is_sure = True  # False where it may just be slow


class NotUnderstood(ClientError):
    """The daemon's answer has a form that we do not know."""

    code = "not-understood"
    kind = Kind.FAILED
    retryable = False


class Refused(ClientError):
    """The daemon answered with an HTTP error; ``body`` is a ``wire.Failure`` as JSON."""

    code = "refused"
    kind = Kind.FAILED
    retryable = False

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the daemon answered {status}")
        self.status = status
        self.body = body


# Where things are. devboxd.host.paths has the same rules; a test compares them.


def state_directory(environ: Mapping[str, str] | None = None) -> str:
    """Name the folder for journal and logs. Relative XDG values are ignored, as their specification asks."""
    environ = os.environ if environ is None else environ
    given = environ.get("XDG_STATE_HOME", "")
    if given.startswith("/"):
        return given.rstrip("/") + "/devbox"
    home = _home(environ)
    if sys.platform == "darwin":
        return home + "/Library/Application Support/devbox"
    return home + "/.local/state/devbox"


def config_directory(environ: Mapping[str, str] | None = None) -> str:
    """Name the folder of ``config.toml`` and ``config.d``."""
    environ = os.environ if environ is None else environ
    given = environ.get("XDG_CONFIG_HOME", "")
    if given.startswith("/"):
        return given.rstrip("/") + "/devbox"
    return _home(environ) + "/.config/devbox"


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME") or os.path.expanduser("~")
    if not home.startswith("/"):  # a user that no passwd entry names, or a HOME that holds in one folder only
        raise ClientError(f"{home!r} is no home folder", "set HOME to a folder of your own")
    return home


def socket_path(environ: Mapping[str, str] | None = None) -> str:
    """Name the daemon's socket: DEVBOX_SOCKET, the runtime directory, or else the state directory."""
    environ = os.environ if environ is None else environ
    if given := environ.get("DEVBOX_SOCKET"):
        try:
            return os.path.abspath(given)
        except OSError:
            raise ClientError(
                "DEVBOX_SOCKET is relative to a folder that no longer exists",
                "set it to a path that begins with /",
            ) from None
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return f"{runtime.rstrip('/')}/devbox/{SOCKET_NAME}"
    return f"{state_directory(environ)}/run/{SOCKET_NAME}"


# Connecting.


def connect(path: str, timeout: float | None = CALL_TIMEOUT) -> socket.socket:
    """Connect to the daemon's socket, after checking that it is ours.

    Raises:
        NotTrusted: the socket, its folder or the process behind it belongs to somebody else.
        OSError: ``FileNotFoundError`` and ``ConnectionRefusedError`` mean that no daemon runs.
    """
    _check_owner(path)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        _connect(connection, path, patient=timeout != 0.0)
        peer = _peer_user(connection)
        if peer is not None and peer not in (os.geteuid(), 0):
            raise NotTrusted(f"the daemon behind {path} runs as user id {peer}")
    except OSError as error:
        connection.close()
        if "too long" in str(error):
            raise ClientError(
                f"the socket path is too long for this system: {path}", "set DEVBOX_SOCKET to a shorter one"
            ) from None
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(connection: socket.socket, path: str, *, patient: bool) -> None:
    """Connect; where too many wait to be accepted, try again for a moment. Raises OSError (EAGAIN)."""
    tries = int(2 * PATIENCE / 0.02)
    while True:
        try:
            connection.connect(path)
            return
        except BlockingIOError:
            tries -= 1
            if not patient or not tries:
                raise
        import time

        time.sleep(0.02)


def _check_owner(path: str) -> None:
    """Refuse a socket that another local user may have put there (a shared /tmp, a wrong DEVBOX_SOCKET)."""
    user = os.geteuid()
    found = os.lstat(path)
    if not stat.S_ISSOCK(found.st_mode):
        raise NotTrusted(f"{path} is not a socket", "unset DEVBOX_SOCKET or remove the file")
    if found.st_uid != user:
        raise NotTrusted(f"{path} belongs to user id {found.st_uid}, not to you", "unset DEVBOX_SOCKET")
    folder = os.stat(os.path.dirname(path) or ".")
    if folder.st_uid not in (user, 0):
        raise NotTrusted(f"the folder of {path} belongs to user id {folder.st_uid}", "unset DEVBOX_SOCKET")


def _peer_user(connection: socket.socket) -> int | None:
    """Ask the system who listens at the other end; None where it cannot tell."""
    if (option := getattr(socket, "SO_PEERCRED", None)) is not None:
        credentials = connection.getsockopt(socket.SOL_SOCKET, option, 12)  # Linux: pid, uid, gid
    elif sys.platform == "darwin":
        credentials = connection.getsockopt(0, 1, 76)  # SOL_LOCAL, LOCAL_PEERCRED: version, uid, groups
    else:
        return None
    return int.from_bytes(credentials[4:8], sys.byteorder)


def connect_or_start(
    path: str | None = None, *, start: bool = True, timeout: float | None = CALL_TIMEOUT
) -> socket.socket:
    """Connect to the daemon; start it when nobody listens, and say so in one line on standard error.

    Raises:
        ClientError: there is no daemon and none could be started within ``START_TIMEOUT``.
    """
    path = path or socket_path()
    if start:
        try:
            os.unlink(path + ".stopped")  # see starting.mark_stopped: somebody wants it again
        except OSError:
            pass
    try:
        return connect(path, timeout)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            from devboxd.api import starting

            raise starting.not_answering(starting.process_id(path)) from None
        if error.errno not in (errno.ENOENT, errno.ECONNREFUSED):
            raise ClientError(f"cannot connect to {path}: {error.strerror or error}") from None
    if not start:
        raise ClientError("devboxd is not running", "start it with: devboxctl daemon start")
    return _started(path, timeout)


def _started(path: str, timeout: float | None) -> socket.socket:
    import time

    from devboxd.api.starting import Starting

    deadline = time.monotonic() + START_TIMEOUT
    starting = Starting(path)
    try:
        while True:
            try:
                connection = connect(path, timeout)
            except OSError:
                pass
            else:
                tell("devboxd was not running: started it")
                return connection
            if not starting.alive() or time.monotonic() > deadline:
                raise starting.failure()
            time.sleep(0.02)
    finally:
        starting.release()


def tell(text: str) -> None:
    """Say something to the person on standard error, unless programs read it."""
    if is_chatty and sys.stderr is not None:
        try:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()
        except OSError:
            pass


def lost(error: OSError, *, answered: bool) -> DaemonLost:
    """The error for a connection that broke. ``answered``: something has come over it.

    The kernel tells whether a daemon that is gone had read what it was sent: ECONNRESET where bytes were left
    (nobody had accepted the connection, as a rule), EPIPE where it did not get them all. A daemon begins when it
    has read the whole request.
    """
    found = DaemonLost(f"lost the connection to devboxd: {error.strerror or error}")
    found.is_unread = not answered and error.errno in (errno.ECONNRESET, errno.EPIPE)
    found.is_unanswered = not answered
    return found


# HTTP.


def request_bytes(method: str, path: str, body: bytes | None = None, *, upgrade: bool = False) -> bytes:
    """Build one request. ``path`` is escaped already; one without a leading slash is below ``/v1/``."""
    whole = path if path.startswith("/") else API_PREFIX + path
    head = [f"{method} {whole} HTTP/1.1", "Host: devboxd", "Accept: application/json"]
    if upgrade:
        head += ["Connection: Upgrade", f"Upgrade: {UPGRADE}"]
    else:
        head.append("Connection: close")
    if is_chatty:
        head.append(f"{WAITS}: 1")  # a person may wonder what is waited for
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*head, "", ""]).encode("ascii") + (body or b"")


class Head:
    """Status and headers of an answer; ``rest`` is what came after them."""

    def __init__(self, status: int, headers: dict[str, str], rest: bytes) -> None:
        self.status = status
        self.headers = headers
        self.rest = rest


def parse_head(data: bytes) -> Head | None:
    """Read the head of an answer; None while it is not complete. Raises DaemonLost for anything else."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > HEAD_MAX or not b"HTTP/1.1 ".startswith(data[:9]):
            raise DaemonLost("what answers on the socket does not speak HTTP", "check DEVBOX_SOCKET")
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    parts = first.split(" ", 2)
    if len(parts) < 2 or not parts[0].startswith("HTTP/1.") or not parts[1].isdigit():
        raise DaemonLost("what answers on the socket does not speak HTTP", "check DEVBOX_SOCKET")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return Head(int(parts[1]), headers, data[end + 4 :])


def next_head(data: bytes) -> tuple[Head | None, bytes, list[str]]:
    """Read the head of an answer, behind all answers 102: it, if it is complete, what is left, and what those say."""
    waits = []
    while (head := parse_head(data)) is not None and head.status == 102:
        if text := head.headers.get(WAITS.lower()):
            waits.append(text.encode("latin-1").decode("utf-8", "replace"))
        data = head.rest
    return head, data, waits


def tell_waits(waits: list[str]) -> None:
    """Say to a person on a terminal what is waited for."""
    global has_told
    for text in waits:
        if sys.stderr is not None and sys.stderr.isatty():
            has_told = True
            tell(printable(text))


class Exchange:
    """One request and its answer on a connection of its own. Use it in a ``with`` block."""

    def __init__(self, connection: socket.socket, head: Head) -> None:
        self.connection = connection
        self.head = head
        self._buffer = head.rest

    @classmethod
    def start(
        cls,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        upgrade: bool = False,
        start: bool = True,
        timeout: float | None = CALL_TIMEOUT,
        socket_at: str | None = None,
        is_harmless: bool = False,
    ) -> Exchange:
        """Ask, and wait for the head of the answer. Raises ``Refused`` for an HTTP error.

        A daemon that ends before it has read the request is none: the next one is asked. ``is_harmless``: so it is where one
        ends before it has answered, for asking twice does no harm.
        """
        tries = TRIES
        while True:
            connection = connect_or_start(socket_at, start=start, timeout=timeout)
            try:
                connection.sendall(request_bytes(method, path, body, upgrade=upgrade))
                wait_for_answer(connection, socket_at or socket_path(), timeout)
                exchange = cls(connection, _receive_head(connection, socket_at or socket_path(), timeout))
                head = exchange.head
                # 202 is a Failure too: what was asked for is still pending (exit status 8).
                if head.status >= 400 or head.status == 202 or (upgrade and head.status != 101):
                    raise Refused(head.status, exchange.body())
            except TimeoutError:
                connection.close()
                raise DaemonLost(f"devboxd did not answer within {timeout:g} s") from None
            except (OSError, DaemonLost) as error:  # of sending, or of waiting for the answer
                connection.close()
                failure = error if isinstance(error, DaemonLost) else lost(error, answered=False)
                tries -= 1
                if not (failure.may_ask_again(is_harmless) and tries):
                    raise failure from None
            except BaseException:
                connection.close()
                raise
            else:
                return exchange

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def body(self) -> bytes:
        """Read the whole answer."""
        data = b"".join(self.chunks())
        if "content-length" in self.head.headers and len(data) != int(self.head.headers["content-length"]):
            raise DaemonLost("devboxd broke off in the middle of an answer")
        return data

    def lines(self) -> Iterator[bytes]:
        """Yield an NDJSON answer line by line, as the lines arrive."""
        waiting = b""
        for chunk in self.chunks():
            waiting += chunk
            *complete, waiting = waiting.split(b"\n")
            yield from (line for line in complete if line.strip())
        if waiting.strip():
            yield waiting

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in pieces: by its length, in HTTP chunks, or to the end of the connection."""
        headers = self.head.headers
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                yield self._exactly(size)
                self._exactly(2)
            self._until(b"\r\n")
            return
        left = int(headers.get("content-length", BODY_MAX))
        if left > BODY_MAX:
            raise DaemonLost("the answer of devboxd is too long")
        while left > 0:
            chunk = self._buffer or _receive(self.connection, at_end=b"")
            self._buffer = b""
            if not chunk:
                return
            yield chunk[:left]
            left -= len(chunk)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > HEAD_MAX:
                raise DaemonLost("the answer of devboxd is malformed")
            self._buffer += _receive(self.connection)
        found, _, self._buffer = self._buffer.partition(mark)
        return found

    def _exactly(self, size: int) -> bytes:
        if size > BODY_MAX:
            raise DaemonLost("the answer of devboxd is too long")
        while len(self._buffer) < size:
            self._buffer += _receive(self.connection)
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found


def wait_for_answer(connection: socket.socket, path: str, timeout: float | None) -> None:
    """Wait for the first byte of an answer, as long as the daemon answers anything.

    Raises:
        NotAnswering: it hangs.
        TimeoutError: it does not, but this answer has not come within ``timeout`` seconds.
    """
    left, patience = timeout, PATIENCE
    while left is None or left > 0:
        step = patience if left is None else min(patience, left)
        connection.settimeout(step)
        try:
            connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            left = None if left is None else left - step
        else:
            connection.settimeout(timeout)
            return
        if left is None or left > 0:
            from devboxd.api import starting

            starting.check(path, PATIENCE)
            patience = ASK_AGAIN
    raise TimeoutError


def _receive_head(connection: socket.socket, path: str, timeout: float | None) -> Head:
    data = b""
    while True:
        try:
            data += _receive(connection)
        except DaemonLost as error:
            error.is_unanswered = not data
            raise
        head, data, waits = next_head(data)
        tell_waits(waits)
        if head is not None:
            return head
        if not data:
            try:
                wait_for_answer(connection, path, timeout)
            except TimeoutError:
                raise
            except OSError as error:  # it had read all and begun
                raise lost(error, answered=True) from None


def _receive(connection: socket.socket, at_end: bytes | None = None) -> bytes:
    try:
        data = connection.recv(65536)
    except TimeoutError:
        raise
    except OSError as error:
        raise DaemonLost(f"lost the connection to devboxd: {error.strerror or error}") from None
    if not data:
        if at_end is None:
            raise DaemonLost("devboxd closed the connection without an answer")
        return at_end
    return data


def call(
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    start: bool = True,
    timeout: float | None = CALL_TIMEOUT,
    socket_at: str | None = None,
) -> bytes:
    """Ask and read the whole answer. Raises ``Refused`` for an HTTP error, ``ClientError`` for the rest."""
    with Exchange.start(method, path, body, start=start, timeout=timeout, socket_at=socket_at) as exchange:
        return exchange.body()

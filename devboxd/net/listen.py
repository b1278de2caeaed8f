"""Local listeners for forwards: bound first, accepted from when somebody asks, TCP and unix.

A listener belongs to its forward and stays bound while sessions come and go. It accepts only inside
``accept``: while nobody asks, connections wait in the kernel's queue instead of being refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import struct
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from devboxd.errors import BadRequest, DevboxError, ListenerClosed, PortDenied, PortInUse
from devboxd.model.loose import Loose
from devboxd.net import loose, peer
from devboxd.net.listening import listening
from devboxd.net.room import FULL, ROOM

BACKLOG: Final = 1024  # a browser or test run may open hundreds at once, and a full queue costs them a second
READ_LIMIT: Final = 65536  # bytes that are read ahead of their consumer
PATH_MAX: Final = 103  # bytes of a socket path that every system takes (Linux 107, macOS 103)
CUT_FIRST, CUT_LOOK = 0.01, 1.0  # seconds between two looks whether all is delivered
FULL_FIRST, FULL_LOOK = 0.02, 0.3  # seconds between two tries at a unix socket that has too many waiting
PORT_TRIES: Final = 8  # for one free port in two address families

_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 s


class Connection:
    """One accepted connection. One task reads, one writes."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        peer: str,
        tail: loose.Tail | None = None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._tail = tail or loose.Tail()
        self.peer = peer

    async def read(self, limit: int = READ_LIMIT) -> bytes:
        """The next bytes; empty when the peer has finished sending. Raises OSError after a reset."""
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Write; waits while the peer does not take more. Raises OSError when it is gone."""
        if self._writer.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._writer.write(data)
        self._tail.wrote(data, self._writer.transport.get_write_buffer_size())
        await self._writer.drain()

    def let_go(self) -> Loose | None:
        """Leave it to another process: see ``net.loose.let_go``."""
        return loose.let_go(self._reader, self._writer, self._tail)

    def has_left(self) -> bool:
        """Whether everything was read that will ever come, and nobody is there to be answered."""
        if self._writer.is_closing() or not self._reader.at_eof():
            return False
        return peer.has_left(self._writer.get_extra_info("socket")) is True

    def finish(self) -> None:
        """Say that no more will be written (half-close); reading goes on."""
        with contextlib.suppress(OSError):
            if not self._writer.is_closing() and self._writer.can_write_eof():
                self._writer.write_eof()

    async def cut(self) -> None:
        """Reset it once the peer's system has all that was written: a reset throws away what is on its way."""
        pause = CUT_FIRST
        while self._is_behind() and not self.has_left():
            await asyncio.sleep(pause)
            pause = min(2 * pause, CUT_LOOK)
        self.reset()

    def _is_behind(self) -> bool:
        raw: socket.socket | None = self._writer.get_extra_info("socket")
        if self._writer.is_closing() or raw is None:
            return False
        return bool(self._writer.transport.get_write_buffer_size() or peer.unsent(raw))

    def reset(self) -> None:
        """Break the connection so that the peer sees an error (RST on TCP), not an ordinary end."""
        with contextlib.suppress(OSError):
            raw: socket.socket | None = self._writer.get_extra_info("socket")
            if raw is not None and raw.family != socket.AF_UNIX:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close after what was written has gone out (the system takes care of that)."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Listener:
    """Bound sockets with one ``accept`` for all of them."""

    def __init__(self, sockets: Sequence[socket.socket], *, path: Path | None = None) -> None:
        self.sockets = tuple(sockets)
        self.path = path
        self._file = _identity(path) if path is not None else None
        self._room = ROOM
        self._closed = False
        self._paused = False
        self._accepting = False
        self._waiting: asyncio.Future[None] | None = None
        for one in self.sockets:
            one.setblocking(False)

    @property
    def port(self) -> int | None:
        """The TCP port, also where 0 was asked for; None for a unix socket."""
        return None if self.path is not None else int(self.sockets[0].getsockname()[1])

    @property
    def is_closed(self) -> bool:
        """Whether it listens no more."""
        return self._closed

    def pause(self) -> bool:
        """Accept nothing more until it is closed: who connects waits. Whether nothing is being accepted now."""
        self._paused = True
        return not self._accepting

    def leave_to_another(self) -> list[int]:
        """Stop listening here, and leave the bound sockets to another process: who connects waits for it.

        Their descriptors are the caller's to close. Raises OSError: no descriptor is left; then it listens as before.
        """
        descriptors: list[int] = []
        try:
            descriptors += [os.dup(one.fileno()) for one in self.sockets]
        except OSError:
            for descriptor in descriptors:
                os.close(descriptor)
            raise
        self._file = None  # it stays
        self.close()
        return descriptors

    @property
    def descriptors(self) -> list[int]:
        """What a service manager would keep over a restart."""
        return [one.fileno() for one in self.sockets]

    @property
    def address(self) -> str:
        """``127.0.0.1:8080``, ``[::1]:8080`` or the path of the socket."""
        if self.path is not None:
            return str(self.path)
        host, port = self.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def accept(self) -> Connection:
        """Wait for a connection. One task at a time. Raises ListenerClosed.

        While this process has few descriptors left, connections wait in the system's queue.
        """
        while True:
            await self._room.wait()
            if self._paused and not self._closed:
                await self._woken()
            if self._closed:
                raise ListenerClosed(self.address if self.path else "closed")
            for one in self.sockets:
                try:
                    accepted, address = one.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno in FULL:
                        self._room.ran_out()
                    continue  # else: the peer gave up while it was waiting
                self._room.seen(accepted.fileno())
                self._accepting = True
                try:
                    return await _connection(accepted, address)
                except OSError:  # reset before we looked (macOS: EINVAL): the next ones are none the worse
                    accepted.close()
                except BaseException:
                    accepted.close()
                    raise
                finally:
                    self._accepting = False
                if self._paused:
                    break
            else:
                await self._readable()

    def close(self) -> None:
        """Stop listening. Connections that were accepted live on."""
        if self._closed:
            return
        self._closed = True
        if self._waiting is not None and not self._waiting.done():
            self._stop_watching()
            self._waiting.set_result(None)
        for one in self.sockets:
            one.close()
        if self.path is not None and self._file is not None and _identity(self.path) == self._file:
            self.path.unlink(missing_ok=True)

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = waiting = loop.create_future()
        for one in self.sockets:
            loop.add_reader(one, _wake, waiting)
        try:
            await waiting
        finally:
            self._stop_watching()
            self._waiting = None

    async def _woken(self) -> None:
        """Wait until it is closed."""
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def _stop_watching(self) -> None:
        loop = asyncio.get_running_loop()
        for one in self.sockets:
            if one.fileno() >= 0:
                loop.remove_reader(one)


class Kept(Protocol):
    """Where a service manager keeps sockets over a restart of the daemon, by name."""

    def take(self, name: str) -> list[socket.socket]:
        """What an earlier daemon stored under this name."""

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Store them: connections wait in their queue while no daemon runs."""

    def drop(self, name: str) -> None:
        """Forget what is stored under this name."""

    def drop_rest(self) -> None:
        """Close and forget what was inherited and not taken: nobody would ever accept from it."""


class Listeners:
    """Binds local ends for forwards, and keeps them over a restart where somebody does."""

    def __init__(self, kept: Kept | None = None) -> None:
        self._kept = kept
        self._made: weakref.WeakSet[Listener] = weakref.WeakSet()

    async def tcp(self, bind: str, port: int) -> Listener:
        """Listen on a TCP port: see ``listen_tcp``."""
        listener = await listen_tcp(bind, port)
        self._made.add(listener)
        return listener

    async def others(self) -> frozenset[int] | None:
        """The TCP ports that other programs of this machine listen on; None where it cannot be told."""
        before = self._ports()
        found = await listening()
        return None if found is None else found - before - self._ports()

    def _ports(self) -> set[int]:
        return {port for one in self._made if not one.is_closed and (port := one.port) is not None}

    def unix(self, path: str) -> Listener:
        """Listen on a unix socket, by a path as a person writes it: see ``listen_unix``."""
        return listen_unix(expanded(path))

    async def connected(self, address: tuple[str, int] | str) -> Connection:
        """Connect from here: to a host's port, or a unix socket's path. Raises OSError."""
        if isinstance(address, str):
            reader, writer = await asyncio.open_unix_connection(
                sock=await _connected_unix(address), limit=READ_LIMIT
            )
        else:
            reader, writer = await asyncio.open_connection(*address, limit=READ_LIMIT)
        return Connection(reader, writer, "")

    async def resumed(self, found: Loose) -> Connection:
        """Go on with a connection that another process let go of. Raises OSError."""
        tail = loose.Tail()
        reader, writer = await loose.take_up(found, limit=READ_LIMIT, tail=tail)
        return Connection(reader, writer, "", tail)

    def take(self, name: str) -> Listener | None:
        """The listener that an earlier daemon stored under this name."""
        sockets = self._kept.take(name) if self._kept is not None else []
        if not sockets:
            return None
        listener = adopt(*sockets)
        self._made.add(listener)
        return listener

    def keep(self, name: str, listener: Bound) -> None:
        """Store a listener."""
        if self._kept is not None:
            self._kept.keep(name, listener.descriptors)

    def drop(self, name: str) -> None:
        """Forget one."""
        if self._kept is not None:
            self._kept.drop(name)

    def drop_rest(self) -> None:
        """Close and forget what nobody took."""
        if self._kept is not None:
            self._kept.drop_rest()


class Bound(Protocol):
    """Whatever has descriptors that can be kept."""

    @property
    def descriptors(self) -> Sequence[int]: ...


async def listen_tcp(bind: str = "127.0.0.1", port: int = 0) -> Listener:
    """Listen on a TCP port.

    Args:
        bind: an address, ``localhost`` (IPv4 and IPv6 loopback), ``*`` or empty (every address), or a name.
        port: 0 picks a free one, the same in both families.

    Raises: PortInUse, PortDenied; BadRequest when the address is not one of this machine's.
    """
    if not 0 <= port < 65536:
        raise BadRequest(f"{port} is no port", hint="0 to 65535; 0 picks a free one")
    # Brackets are not stripped one by one: "[" must not become "", which means every address.
    is_bracketed = bind.startswith("[") and bind.endswith("]")
    addresses = await _addresses(bind[1:-1] or "[]" if is_bracketed else bind)
    for _ in range(PORT_TRIES):
        try:
            return Listener(_bind_all(addresses, port))
        except PortInUse:
            # The port that the first family was given may be taken in the second.
            if port or len(addresses) == 1:
                raise
    raise PortInUse("no free port was found", hint="name one")


def listen_unix(path: Path) -> Listener:
    """Listen on a unix socket that only this user can connect to (0600).

    A socket file that nobody listens on is replaced; any other file is not.

    Raises: PortInUse, PortDenied, BadRequest.
    """
    if not path.is_absolute():
        raise BadRequest(f"{os.fspath(path)[:100]!r} is not an absolute path", hint="begin it with / or ~/")
    return Listener([bind_unix(path)], path=path)


def expanded(text: str) -> Path:
    """A path as a person writes it, ``~`` included.

    Raises: BadRequest for a user that this machine does not know (now: the directory may be away), and for
    what can be no path.
    """
    try:
        path = Path(text).expanduser()
        os.fsencode(path)
    except (RuntimeError, ValueError) as error:
        raise BadRequest(f"{text!r} is no path here: {error}", hint="is the user after ~ known?") from error
    if "\0" in text:
        raise BadRequest(f"{text!r} is no path")
    return path


def bind_unix(path: Path, *, backlog: int = BACKLOG) -> socket.socket:
    """Bind and listen, 0600 from the first moment. Errors as ``listen_unix``."""
    if len(os.fsencode(path)) > PATH_MAX:
        raise BadRequest(f"the socket path is too long ({PATH_MAX} bytes are allowed): {path}")
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The mask holds for the whole process, but only while bind runs, and a file that another thread
    # makes just then comes out more private than meant, never less.
    mask = os.umask(0o177)
    try:
        bound.bind(os.fspath(path))
        bound.listen(backlog)
    except OSError as error:
        bound.close()
        raise _refused(error, str(path)) from error
    finally:
        os.umask(mask)
    return bound


def adopt(*inherited: socket.socket) -> Listener:
    """Take over listening sockets that an earlier daemon bound (systemd's descriptor store)."""
    first = inherited[0]
    path = Path(os.fsdecode(first.getsockname())) if first.family == socket.AF_UNIX else None
    return Listener(inherited, path=path)


async def _connection(accepted: socket.socket, address: object) -> Connection:
    accepted.setblocking(False)
    if accepted.family == socket.AF_UNIX:
        reader, writer = await asyncio.open_unix_connection(sock=accepted, limit=READ_LIMIT)
        return Connection(reader, writer, "unix")
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    reader, writer = await asyncio.open_connection(sock=accepted, limit=READ_LIMIT)
    peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else ""
    return Connection(reader, writer, peer)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


async def _addresses(name: str) -> list[tuple[socket.AddressFamily, str, bool]]:
    """(family, address, must it work) for each socket to bind."""
    if name == "localhost":
        # Not by name lookup: some machines map it to one family only, and browsers try both.
        return [(socket.AF_INET, "127.0.0.1", True), (socket.AF_INET6, "::1", False)]
    if name in ("", "*"):
        return [(socket.AF_INET, "0.0.0.0", True), (socket.AF_INET6, "::", False)]  # asked for
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, 0, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: no host name at all (its encoding, a zero byte)
        raise BadRequest(f"{name[:100]!r} is not an address to listen on") from error
    family, address = found[0][0], str(found[0][4][0])
    return [(family, address, True)]


def _bind_all(addresses: Sequence[tuple[socket.AddressFamily, str, bool]], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for family, address, required in addresses:
            try:
                bound.append(_bind(family, address, bound[0].getsockname()[1] if bound else port))
            except OSError as error:
                if required or error.errno == errno.EADDRINUSE:
                    raise _refused(error, f"{address} port {port}") from error
    except BaseException:
        for one in bound:
            one.close()
        raise
    return bound


def _bind(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Lets us come back while old connections are in TIME_WAIT; no second listener can slip in.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen(BACKLOG)
    except BaseException:
        one.close()
        raise
    return one


def _refused(error: OSError, where: str) -> DevboxError:
    match error.errno:
        case errno.EADDRINUSE:
            return PortInUse(
                f"{where} is in use by another program",
                hint="choose another local end, or local port 0 for any free one",
            )
        case errno.EACCES | errno.EPERM:
            return PortDenied(
                f"the system does not allow to listen on {where}",
                hint="ports below 1024 belong to root: choose a higher one" if " port " in where else None,
            )
        case errno.ENOENT | errno.ENOTDIR:
            return BadRequest(f"the folder of {where} does not exist")
        case _:
            return BadRequest(f"can not listen on {where}: {os.strerror(error.errno or 0)}")


def _remove_stale(path: Path) -> None:
    """Remove a socket file of ours that nobody listens on. Raises PortInUse or BadRequest."""
    try:
        found = path.lstat()
    except OSError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BadRequest(f"{path} exists and is not a socket", hint="choose another path")
    if found.st_uid != os.geteuid():
        raise PortInUse(f"{path} belongs to another user")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError:
            pass  # a full queue: somebody listens
    raise PortInUse(f"another program listens on {path}")


def _identity(path: Path) -> tuple[int, int] | None:
    with contextlib.suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None


async def _connected_unix(path: str) -> socket.socket:
    """Connect; waits while its listener has as many waiting as it takes, which no system tells the end of. Raises OSError."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    one.setblocking(False)
    pause = FULL_FIRST
    try:
        while True:
            # Not the loop's ``sock_connect``: it takes "there is no room" for "on its way", and then for connected.
            try:
                one.connect(path)
            except BlockingIOError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, FULL_LOOK)
            else:
                return one
    except BaseException:
        one.close()
        raise

"""Streams that are sockets on the box, or stand for a listener there."""

import errno
import json
import os
import select
import selectors
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.reach import READ_SIZE, addresses, connecting, reason
from devboxd.model.bridge.wire import BridgeError

if TYPE_CHECKING:
    from typing import Any

    from devboxd.boxside.programs.head.loop import Head

    Address = tuple[int, tuple[Any, ...]]
    Want = dict[str, Any]


CONNECTED = b"+"
GONE = "GONE"  # a reset's reason: nobody is there any more, and nothing was lost by that
FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # why nobody can be let in for now
FULL_REST = 1.0  # seconds until it is tried again
QUEUE_FIRST, QUEUE_LOOK = 0.02, 0.3  # seconds between two tries at a socket that has too many waiting
NOBODY = -1  # the number of no stream
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))  # seconds, seconds, probes


class Hangups:
    """Sockets that have said everything: of those nothing is awaited but that the other side goes away for good."""

    def __init__(self, head: "Head") -> None:
        self.poll = select.epoll() if hasattr(select, "epoll") else None  # elsewhere the next write tells
        self.pipes: dict[int, Pipe] = {}
        if self.poll is not None:
            head.watch(self.poll.fileno(), selectors.EVENT_READ, self)

    def add(self, pipe: "Pipe") -> None:
        """Let ``pipe.hung_up`` be called."""
        if self.poll is not None:
            self.pipes[pipe.sock.fileno()] = pipe
            self.poll.register(pipe.sock.fileno(), 0)

    def remove(self, pipe: "Pipe") -> None:
        """Call nobody any more."""
        if self.poll is not None and self.pipes.pop(pipe.sock.fileno(), None) is not None:
            self.poll.unregister(pipe.sock.fileno())

    def ready(self, mask: int) -> None:
        """Somebody has gone."""
        if self.poll is not None:
            for fd, _ in self.poll.poll(0):
                if fd in self.pipes:
                    self.pipes[fd].hung_up()


class Handler:
    """Who serves a stream. By itself it takes nothing in and says nothing."""

    def __init__(self, head: "Head", number: int) -> None:
        self.head = head
        self.number = number

    def data(self, data: bytes) -> None:
        """Bytes of the other end."""
        self.head.bridge.consumed(self.number, len(data), time.monotonic())

    def ended(self) -> None:
        """The other end sends no more: it is no longer wanted."""
        self.head.bridge.finish(self.number)
        self.head.drop(self.number)

    def room(self) -> None:
        """The bridge takes bytes again."""

    def ready(self, mask: int) -> None:
        """Something can be read or written."""

    def on_time(self) -> None:
        """A time that it asked for has come."""

    def close(self, reset: bool) -> None:
        """The stream is over."""


class Pipe(Handler):
    """A stream that is a socket on the box. Each direction ends by itself, as TCP has it.

    What has come is written although the stream is over, and what the socket said arrives although it was reset then.
    """

    def __init__(
        self,
        head: "Head",
        number: int,
        sock: socket.socket,
        rest: "list[Address] | None" = None,
        tells: bool = False,
    ) -> None:
        """Serve it.

        ``rest``: it is still to be connected, to the first of these that takes it.
        ``tells``: say ``CONNECTED`` in front of everything else, once it is.
        """
        Handler.__init__(self, head, number)
        self.sock = sock
        self.tells = tells
        self.rest = rest or []
        self.connecting = rest is not None
        self.out = bytearray()  # no more than the stream's credit
        self.in_ended = False  # the other end of the bridge sends no more
        self.is_shut = False  # and the socket was told so
        self.out_ended = False  # the socket sends no more
        self.deaf = ""  # it takes no more, for this reason; what it had said is still read
        self.reading = not self.connecting
        if not self.connecting:
            self.connected()
        self.look()

    def connected(self) -> None:
        """It stands."""
        if self.tells:
            self.head.bridge.write(self.number, CONNECTED)

    def look(self) -> None:
        """Watch for what is of use now."""
        mask = selectors.EVENT_READ if self.reading and not self.connecting else 0
        if self.out or self.connecting:
            mask |= selectors.EVENT_WRITE
        self.head.watch(self.sock, mask, self)

    def try_next(self, problem: int) -> None:
        """A name may have several addresses, and its service listen on one of them."""
        self.head.unwatch(self.sock)
        self.sock.close()
        try:
            self.sock, self.rest = connecting(self.rest, problem)
        except OSError as error:
            self.failed(reason(error.errno))
        else:
            self.look()

    def data(self, data: bytes) -> None:
        """Bytes of the other end."""
        if self.deaf or self.number in self.head.leaving:  # no credit for them: not many more come
            self.deaf = self.deaf or reason(errno.EPIPE)
            return
        self.out += data
        if not self.connecting:
            self.write()

    def ended(self) -> None:
        """The other end sends no more."""
        self.in_ended = True
        if not self.connecting:
            self.write()

    def room(self) -> None:
        """The bridge takes bytes again."""
        self.reading = not self.connecting and not self.out_ended
        self.look()

    def failed(self, why: str) -> None:
        """The socket takes no more. What it said before it ended arrives before that does."""
        self.connecting = False
        del self.out[:]
        if self.number == NOBODY:
            self.close(True)
        elif self.out_ended:
            self.head.unwatch(self.sock)
            self.head.hangups.remove(self)
            self.deaf = self.deaf or ("" if why == GONE else why)
            self.head.leaving[self.number] = self
        else:
            self.head.give_up(self.number, why)

    def hung_up(self) -> None:
        """It had ended, and is gone now."""
        problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not problem and not self.out:
            self.failed(GONE)
        else:
            self.failed(reason(problem or errno.EPIPE))

    def ready(self, mask: int) -> None:
        """Something can be read or written."""
        if self.connecting and mask & selectors.EVENT_WRITE:
            problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                self.try_next(problem)
                return
            self.connecting = False
            self.reading = True
            self.connected()
            self.write()
        elif mask & selectors.EVENT_WRITE:
            self.write()
        if mask & selectors.EVENT_READ and self.reading and self.head.handlers.get(self.number) is self:
            self.read()

    def read(self) -> None:
        """Give the bridge what the socket has, as far as it takes it."""
        room = min(READ_SIZE, self.head.bridge.room(self.number))
        if not room:
            self.head.bridge.ask_room(self.number)
            self.reading = False
            self.look()
            return
        try:
            data = self.sock.recv(room)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(reason(error.errno))
            return
        if data:
            self.head.bridge.write(self.number, data)
        else:
            self.reading = False
            self.out_ended = True
            self.look()
            self.head.bridge.finish(self.number)
            if self.deaf:
                self.failed(self.deaf)
            elif not self.is_shut:
                self.outlook()

    def outlook(self) -> None:
        """Learn of it when the other side, which has ended, goes for good: nobody may ever write to it."""
        if self.sock.family != socket.AF_UNIX:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for name, value in KEEPALIVE:
                    self.sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
            except (OSError, AttributeError):
                pass  # a system that has none of this, or the socket is gone already
        self.head.hangups.add(self)

    def write(self) -> None:
        """Give the socket what it takes."""
        while self.out:
            try:
                sent = self.sock.send(memoryview(self.out)[:READ_SIZE])
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EPIPE or self.out_ended or self.number == NOBODY:
                    self.failed(reason(error.errno))
                    return
                self.deaf = reason(error.errno)  # it had ended before, in order: read what it said
                del self.out[:]
                break
            del self.out[:sent]
            self.head.bridge.consumed(self.number, sent, time.monotonic())
        if self.in_ended and not self.out and not self.is_shut:
            self.is_shut = True
            self.head.hangups.remove(self)  # from here on that is no news
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has gone both ways already
            if self.number == NOBODY:
                self.close(False)
                return
        self.look()

    def close(self, reset: bool) -> None:
        """The stream is over. Who had said everything before has only left: that is still written, and is no reset."""
        if self.in_ended and (self.out or self.connecting):
            self.number = NOBODY
            self.reading = False
            self.look()
            return
        self.head.unwatch(self.sock)
        self.head.hangups.remove(self)
        if reset and not self.in_ended:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # a unix socket knows no such thing
        self.sock.close()


class Early(Handler):
    """A stream to something that is not there yet: keeps what comes for it."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.want = want
        self.out = b""  # no more than the stream's credit
        self.in_ended = False

    def data(self, data: bytes) -> None:
        """Bytes of the other end: for whom is found."""
        self.out += data

    def ended(self) -> None:
        """The other end sends no more."""
        self.in_ended = True

    def pipe(self, sock: socket.socket, rest: "list[Address] | None") -> "Pipe":
        """Go on with this socket; ``rest`` as for ``Pipe``."""
        pipe = Pipe(self.head, self.number, sock, rest, bool(self.want.get("tells")))
        pipe.out += self.out
        pipe.in_ended = self.in_ended
        if not pipe.connecting:
            pipe.write()
        return pipe


class Queuing(Early):
    """A stream to a unix socket. Who has as many waiting as it takes refuses nobody: it is asked again."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Early.__init__(self, head, number, want)
        self.pause = QUEUE_FIRST

    def serve(self) -> "Handler":
        """Connect, or stay until that is possible: no system tells when.

        Raises:
            OSError: nobody listens there.
        """
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(os.path.expanduser(self.want["path"]))
        except BlockingIOError:
            sock.close()
            self.head.later(self, self.pause)
            self.pause = min(2 * self.pause, QUEUE_LOOK)
            return self
        return self.pipe(sock, None)

    def on_time(self) -> None:
        """Try again."""
        self.head.serve(self.number, self.serve)


class Lookup(Early):
    """A stream to a host whose name is being looked up: by a thread, for a resolver may need half a minute."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Early.__init__(self, head, number, want)
        self.found: Any = None  # addresses, or why there are none

    def start(self) -> None:
        """Look it up."""
        threading.Thread(target=self.run, daemon=True).start()

    def run(self) -> None:
        """In the thread: whatever comes of it, the loop goes on with it."""
        try:
            self.found = addresses(self.want["host"], int(self.want["port"]))
        except Exception as error:  # noqa: BLE001 - a name may be none in many ways
            self.found = error
        self.head.looked_up(self)

    def serve(self) -> "Pipe":
        """Go on with what was found.

        Raises:
            Exception: there is no such name, or nothing at its addresses.
        """
        if isinstance(self.found, Exception):
            raise self.found
        return self.pipe(*connecting(self.found))


def accepted(head: "Head", owner: Handler, listener: socket.socket) -> "tuple[socket.socket, Any] | None":
    """Who connects to a listener. Where nobody can be let in, it is watched again a second later."""
    try:
        return listener.accept()
    except OSError as error:
        if error.errno in FULL:
            head.unwatch(listener)
            head.later(owner, FULL_REST)
        return None


class Listener(Handler):
    """A stream that stands for a listener on the box: each connection to it opens a stream of its own."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.path = ""
        self.inode = 0
        self.sock = self.bound(want)
        self.sock.listen(128)
        self.sock.setblocking(False)
        self.on_time()
        port = 0 if self.path else self.sock.getsockname()[1]
        head.bridge.write(number, json.dumps({"port": port, "path": self.path or None}).encode() + b"\n")

    def bound(self, want: "Want") -> socket.socket:
        """What it listens on."""
        if "path" in want:
            return self.bind_unix(os.path.expanduser(want["path"]))
        sock = socket.socket(socket.AF_INET6 if ":" in want.get("host", "") else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((want.get("host") or "127.0.0.1", int(want["port"])))
        return sock

    def bind_unix(self, path: str) -> socket.socket:
        """Bind beside the path and move it there: whoever had the path before keeps no claim, and none is lost."""
        folder = os.path.dirname(path)
        os.makedirs(folder, 0o700, exist_ok=True)
        own = path + f".{os.getpid()}"
        sock = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)
        try:
            sock.bind(own)
        finally:
            os.umask(before)
        self.inode = os.stat(own).st_ino
        os.rename(own, path)
        self.path = path
        return sock

    def ready(self, mask: int) -> None:
        """Somebody connects."""
        one = accepted(self.head, self, self.sock)
        if one is None:
            return
        sock = one[0]
        sock.setblocking(False)
        try:
            number = self.head.bridge.open(json.dumps({"kind": "accepted", "of": self.number}).encode())
        except BridgeError:
            sock.close()
            return
        self.head.handlers[number] = Pipe(self.head, number, sock)

    def on_time(self) -> None:
        """Let others in."""
        self.head.watch(self.sock, selectors.EVENT_READ, self)

    def close(self, reset: bool) -> None:
        """Stop listening; take the path away while it is still ours."""
        self.head.unwatch(self.sock)
        self.sock.close()
        try:
            if self.path and os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except OSError:
            pass  # somebody was faster

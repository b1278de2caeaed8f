"""The bridgehead: the far end of a bridge, on the box, for one user and one daemon.

It is started once, detaches, and lives until the box stops or until no lane came for a day. It listens on loopback and
on a unix socket of its own (0600). Whoever connects must answer a challenge with the secret that came with the start,
or is closed; so is who takes more than five seconds, and the oldest of more than ``STRANGERS_MOST``.

Runs on Python 3.6 and later with the standard library only. What travels is this text behind that of
``devboxd/model/bridge.py`` (the import below is taken out), minified.

Streams and their purposes (JSON; see ``devboxd/boxside/bridgehead.py``): ``tcp`` and ``unix`` connect, ``listen`` accepts,
``exec`` runs a command, ``control`` sends it signals and sizes, ``watch`` tells which ports are listened on.

Modes: ``start FOLDER`` reads one line of JSON (``id``, ``secret``, ``linger``) and prints one; ``lane FOLDER ID`` carries
standard input and output to the socket, for boxes where ports are denied.
"""

import errno
import fcntl
import hashlib
import hmac
import json
import os
import resource
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

from devboxd.model.bridge import (
    Bridge,
    BridgeError,
    Data,
    Ended,
    Opened,
    Room,
    WasReset,
)

GREETING = struct.Struct(">4s16sI32s")  # magic, the daemon's life, number of the lane, nonce
MAGIC = b"DBX1"
ANSWER = struct.Struct(">32s32s")  # nonce, proof
PROOF_SIZE = 32
STRANGERS_MOST = 32  # connections that have not shown who they are
STRANGER_TIME = 5.0  # seconds that one has for it
LINGER = 86400.0  # seconds without a lane after which nobody is expected to come back
READ_SIZE = 64 << 10
LANE_BUFFER = 256 << 10  # bytes that a lane may be behind with sending
WATCH_EVERY = 1.0  # seconds
LEFT_OPEN = 1.0  # seconds that a child's descendants may hold its output after it has ended
RECORD = struct.Struct(">BI")
STDIN, STDIN_END = 0, 1
STDOUT, STDERR, EXIT = 1, 2, 3
SIGNAL, SIZE = 1, 2
RECORD_MOST = 1 << 20  # bytes


if TYPE_CHECKING:
    from typing import Any

    Address = tuple[int, tuple[Any, ...]]
    Want = dict[str, Any]
    Watchable = int | socket.socket


class Lane:
    """A connection that carries part of the bridge, or a stranger that has yet to show who it is."""

    def __init__(self, head: "Head", sock: socket.socket) -> None:
        self.head = head
        self.sock = sock
        self.number: int | None = None
        self.greeting = b""
        self.nonce = b""
        self.seen = b""
        self.out = bytearray()
        self.since = time.monotonic()
        head.watch(sock, selectors.EVENT_READ, self)

    def ready(self, mask: int) -> None:
        """Something can be read or written."""
        if mask & selectors.EVENT_WRITE:
            self.flush()
        if mask & selectors.EVENT_READ:
            try:
                data = self.sock.recv(READ_SIZE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.head.lane_lost(self)
            elif self.number is None:
                self.introduce(data)
            else:
                self.head.lane_says(self, data)

    def introduce(self, data: bytes) -> None:
        """Take a stranger's greeting, answer it, and take its proof."""
        self.seen += data
        if not self.greeting and len(self.seen) >= GREETING.size:
            self.greeting, self.seen = self.seen[: GREETING.size], self.seen[GREETING.size :]
            if not self.greeting.startswith(MAGIC):
                self.head.lane_lost(self)
                return
            self.nonce = os.urandom(32)
            self.out += ANSWER.pack(self.nonce, self.head.proof(b"far", self.greeting, self.nonce))
            self.flush()
        if self.greeting and len(self.seen) >= PROOF_SIZE:
            proof, rest = self.seen[:PROOF_SIZE], self.seen[PROOF_SIZE:]
            self.seen = b""
            if not hmac.compare_digest(proof, self.head.proof(b"near", self.greeting, self.nonce)):
                self.head.lane_lost(self)
                return
            self.head.lane_known(self)
            if rest:
                self.head.lane_says(self, rest)
        elif len(self.seen) > GREETING.size + PROOF_SIZE:
            self.head.lane_lost(self)

    @property
    def room(self) -> int:
        """Bytes that it takes now."""
        return max(0, LANE_BUFFER - len(self.out))

    def flush(self) -> None:
        """Send what waits, as far as it goes."""
        while self.out:
            try:
                sent = self.sock.send(memoryview(self.out)[:READ_SIZE])
            except BlockingIOError:
                break
            except OSError:
                self.head.lane_lost(self)
                return
            del self.out[:sent]
        self.head.watch(self.sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self.out else 0), self)


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
    """A stream that is a socket on the box. Half-close goes both ways."""

    def __init__(
        self, head: "Head", number: int, sock: socket.socket, rest: "list[Address] | None" = None
    ) -> None:
        """Serve it. ``rest``: it is still to be connected, to the first of these that takes it."""
        Handler.__init__(self, head, number)
        self.sock = sock
        self.rest = rest or []
        self.connecting = rest is not None
        self.out = bytearray()  # no more than the stream's credit
        self.in_ended = False  # the other end of the bridge sends no more
        self.reading = not self.connecting
        self.look()

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
            self.head.give_up(self.number, reason(error.errno))
        else:
            self.look()

    def data(self, data: bytes) -> None:
        """Bytes of the other end."""
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
        self.reading = not self.connecting
        self.look()

    def ready(self, mask: int) -> None:
        """Something can be read or written."""
        if self.connecting and mask & selectors.EVENT_WRITE:
            problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                self.try_next(problem)
                return
            self.connecting = False
            self.reading = True
            self.write()
        elif mask & selectors.EVENT_WRITE:
            self.write()
        if mask & selectors.EVENT_READ and self.reading and self.number in self.head.handlers:
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
            self.head.give_up(self.number, reason(error.errno))
            return
        if data:
            self.head.bridge.write(self.number, data)
        else:
            self.reading = False
            self.look()
            self.head.bridge.finish(self.number)

    def write(self) -> None:
        """Give the socket what it takes."""
        while self.out:
            try:
                sent = self.sock.send(memoryview(self.out)[:READ_SIZE])
            except BlockingIOError:
                break
            except OSError as error:
                self.head.give_up(self.number, reason(error.errno))
                return
            del self.out[:sent]
            self.head.bridge.consumed(self.number, sent, time.monotonic())
        if self.in_ended and not self.out:
            self.in_ended = False
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has gone both ways already
        self.look()

    def close(self, reset: bool) -> None:
        """The stream is over."""
        self.head.unwatch(self.sock)
        if reset:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # a unix socket knows no such thing
        self.sock.close()


class Listener(Handler):
    """A stream that stands for a listener on the box: each connection to it opens a stream of its own."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.path = ""
        self.inode = 0
        self.sock = self.bound(want)
        self.sock.listen(128)
        self.sock.setblocking(False)
        head.watch(self.sock, selectors.EVENT_READ, self)
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
        try:
            sock, _ = self.sock.accept()
        except OSError:
            return
        sock.setblocking(False)
        try:
            number = self.head.bridge.open(json.dumps({"kind": "accepted", "of": self.number}).encode())
        except BridgeError:
            sock.close()
            return
        self.head.handlers[number] = Pipe(self.head, number, sock)

    def close(self, reset: bool) -> None:
        """Stop listening; take the path away while it is still ours."""
        self.head.unwatch(self.sock)
        self.sock.close()
        try:
            if self.path and os.stat(self.path).st_ino == self.inode:
                os.unlink(self.path)
        except OSError:
            pass  # somebody was faster


class Output:
    """One output of a command: read while the bridge takes it."""

    def __init__(self, program: "Program", fd: int, kind: int) -> None:
        self.program = program
        self.fd = fd
        self.kind = kind
        os.set_blocking(fd, False)

    def ready(self, mask: int) -> None:
        """There is something, or its end."""
        head, number = self.program.head, self.program.number
        room = min(READ_SIZE, head.bridge.room(number) - RECORD.size)
        if room <= 0:
            head.bridge.ask_room(number)
            self.program.read(False)
            return
        try:
            data = os.read(self.fd, room)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal says so when its last program is gone
        if data:
            head.bridge.write(number, RECORD.pack(self.kind, len(data)) + data)
        else:
            self.program.output_over(self)


class Program(Handler):
    """A stream that is a command: records both ways, its exit status at the end."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.parser = bytearray()
        self.input = bytearray()  # no more than the stream's credit
        self.input_over = False
        self.status: int | None = None
        self.ended_at = 0.0
        self.master = -1
        env = dict(os.environ)
        env.update(want.get("env") or {})
        folder = os.path.expanduser(want.get("cwd") or "~")
        if not os.path.isdir(folder):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", folder)
        slave = -1
        size = want.get("tty")
        if size:
            self.master, slave = os.openpty()
            set_size(self.master, size)
        try:
            self.child = subprocess.Popen(
                want["argv"],
                stdin=slave if size else subprocess.PIPE if want.get("stdin") else subprocess.DEVNULL,
                stdout=slave if size else subprocess.PIPE,
                stderr=slave if size else subprocess.PIPE,
                env=env,
                cwd=folder,
                bufsize=0,
                preexec_fn=take_terminal if size else take_session,
            )
        except Exception:
            if self.master >= 0:
                os.close(self.master)
            raise
        finally:
            if slave >= 0:
                os.close(slave)
        self.outputs = self.open_outputs()
        self.stdin = self.master if size else self.child.stdin.fileno() if self.child.stdin else -1
        if self.stdin >= 0:
            os.set_blocking(self.stdin, False)
        head.programs[self.child.pid] = self
        self.read(True)

    def open_outputs(self) -> "list[Output]":
        """What is to be read of the child."""
        if self.master >= 0:
            return [Output(self, self.master, STDOUT)]
        assert self.child.stdout is not None
        assert self.child.stderr is not None
        return [
            Output(self, self.child.stdout.fileno(), STDOUT),
            Output(self, self.child.stderr.fileno(), STDERR),
        ]

    def read(self, wanted: bool) -> None:
        """Read its outputs, or let it wait."""
        for one in self.outputs:
            writing = one.fd == self.stdin and bool(self.input)
            mask = (selectors.EVENT_READ if wanted else 0) | (selectors.EVENT_WRITE if writing else 0)
            self.head.watch(one.fd, mask, self if writing else one)
        self.reading = wanted

    def room(self) -> None:
        """The bridge takes bytes again."""
        self.read(True)

    def data(self, data: bytes) -> None:
        """Records of the other end."""
        self.parser += data
        position = 0
        while len(self.parser) - position >= RECORD.size:
            kind, size = RECORD.unpack_from(self.parser, position)
            if size > RECORD_MOST:
                self.head.give_up(self.number, "a record that is too long")
                return
            end = position + RECORD.size + size
            if len(self.parser) < end:
                break
            self.consumed(RECORD.size)
            if kind == STDIN:
                self.input += self.parser[position + RECORD.size : end]
            elif kind == STDIN_END:
                self.input_over = True
            position = end
        del self.parser[:position]
        self.feed()

    def ended(self) -> None:
        """The other end sends no more: the end of the input, too."""
        self.input_over = True
        self.feed()

    def feed(self) -> None:
        """Give the child its input."""
        while self.input and self.stdin >= 0:
            try:
                sent = os.write(self.stdin, memoryview(self.input)[:READ_SIZE])
            except BlockingIOError:
                break
            except OSError:
                self.consumed(len(self.input))
                del self.input[:]
                break
            del self.input[:sent]
            self.consumed(sent)
        if self.stdin < 0 and self.input:
            self.consumed(len(self.input))
            del self.input[:]
        if self.stdin >= 0 and self.stdin != self.master:
            self.head.watch(self.stdin, selectors.EVENT_WRITE if self.input else 0, self)
            if self.input_over and not self.input:
                self.close_stdin()
        elif self.stdin >= 0:
            self.read(self.reading)

    def ready(self, mask: int) -> None:
        """Its standard input takes more; on a terminal also: it says something."""
        if mask & selectors.EVENT_WRITE:
            self.feed()
        if mask & selectors.EVENT_READ and self.outputs:
            self.outputs[0].ready(mask)

    def consumed(self, size: int) -> None:
        self.head.bridge.consumed(self.number, size, time.monotonic())

    def close_stdin(self) -> None:
        if self.stdin >= 0 and self.stdin != self.master:
            self.head.unwatch(self.stdin)
            assert self.child.stdin is not None
            self.child.stdin.close()
        self.stdin = -1

    def control(self, kind: int, data: bytes) -> None:
        """A signal or a size."""
        if kind == SIGNAL and self.status is None:
            try:
                os.killpg(self.foreground(), int(data))
            except (OSError, ValueError):
                pass  # it has ended meanwhile
        elif kind == SIZE and self.master >= 0:
            set_size(self.master, json.loads(data.decode()))

    def foreground(self) -> int:
        """The process group that a key's signal would reach."""
        if self.master >= 0:
            try:
                return os.tcgetpgrp(self.master)
            except OSError:
                pass  # no terminal program is left
        return self.child.pid

    def output_over(self, output: Output) -> None:
        self.head.unwatch(output.fd)
        self.outputs.remove(output)
        self.finish_if_over()

    def exited(self, status: int) -> None:
        """The child is gone; its output may still come."""
        self.status = status
        self.ended_at = time.monotonic()
        self.close_stdin()
        self.finish_if_over()

    def finish_if_over(self) -> None:
        """Tell the exit status once the output is complete, or was left open by others for a while."""
        if self.status is None:
            return
        if self.outputs and (not self.reading or time.monotonic() - self.ended_at < LEFT_OPEN):
            self.head.later(self, LEFT_OPEN)
            return
        text = json.dumps({"status": self.status}).encode()
        if self.head.bridge.room(self.number) < RECORD.size + len(text):
            self.head.later(self, 0.05)
            return
        self.head.bridge.write(self.number, RECORD.pack(EXIT, len(text)) + text)
        self.head.bridge.finish(self.number)
        self.head.drop(self.number)

    def on_time(self) -> None:
        """Look again whether it is over."""
        self.finish_if_over()

    def close(self, reset: bool) -> None:
        """The stream is over: so is the command, as when a terminal is closed."""
        for one in self.outputs:
            self.head.unwatch(one.fd)
        if self.stdin >= 0:
            self.head.unwatch(self.stdin)
        if self.status is None:
            for number in (signal.SIGHUP, signal.SIGCONT):
                try:
                    os.killpg(self.child.pid, number)
                except OSError:
                    pass  # it has just ended
        if self.master >= 0:
            os.close(self.master)
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe is not None:
                pipe.close()


class Control(Handler):
    """A stream beside a command's: signals and sizes overtake its input."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.of = int(want["of"])
        self.parser = bytearray()

    def data(self, data: bytes) -> None:
        """Records."""
        self.head.bridge.consumed(self.number, len(data), time.monotonic())
        self.parser += data
        while len(self.parser) >= RECORD.size:
            kind, size = RECORD.unpack_from(self.parser)
            if size > 1024:
                self.head.give_up(self.number, "a record that is too long")
                return
            if len(self.parser) < RECORD.size + size:
                return
            program = self.head.handlers.get(self.of)
            if isinstance(program, Program):
                program.control(kind, bytes(self.parser[RECORD.size : RECORD.size + size]))
            del self.parser[: RECORD.size + size]


class Watch(Handler):
    """A stream that tells the ports this user's programs listen on: a line of JSON at each change."""

    def __init__(self, head: "Head", number: int, want: "Want") -> None:
        Handler.__init__(self, head, number)
        self.last: list[int] | None = None
        self.on_time()

    def on_time(self) -> None:
        """Look, and tell what is new."""
        now = listening(os.getuid())
        line = json.dumps({"ports": now}).encode() + b"\n"
        if now != self.last and self.head.bridge.room(self.number) > len(line):
            self.last = now
            self.head.bridge.write(self.number, line)
        self.head.later(self, WATCH_EVERY)

    def close(self, reset: bool) -> None:
        """Stop looking."""
        self.head.timers.pop(self, None)


class Head:
    """The loop: lanes on one side, handlers of streams on the other, the bridge between."""

    def __init__(self, secret: bytes, linger: float) -> None:
        self.secret = secret
        self.linger = linger
        self.selector = selectors.DefaultSelector()
        self.bridge = Bridge(False)
        self.life = b""
        self.strangers: list[Lane] = []
        self.lanes: dict[int, Lane] = {}
        self.handlers: dict[int, Handler] = {}
        self.programs: dict[int, Program] = {}
        self.timers: dict[Handler, float] = {}
        self.lonely_since = time.monotonic()
        self.masks: dict[int, tuple[int, Any]] = {}

    def proof(self, who: bytes, greeting: bytes, nonce: bytes) -> bytes:
        """What only who holds the secret can say."""
        return hmac.new(self.secret, who + greeting + nonce, hashlib.sha256).digest()

    # Watching -----------------------------------------------------------------------------------------------

    def watch(self, what: "Watchable", mask: int, owner: "Any") -> None:
        """Let ``owner.ready`` be called for these events of a socket or descriptor; none: not at all."""
        key = what if isinstance(what, int) else what.fileno()
        if self.masks.get(key) == (mask, owner):
            return
        if key in self.masks:
            if not mask:
                self.unwatch(what)
            else:
                self.selector.modify(what, mask, owner)
                self.masks[key] = (mask, owner)
        elif mask:
            self.selector.register(what, mask, owner)
            self.masks[key] = (mask, owner)

    def unwatch(self, what: "Watchable") -> None:
        """Call nobody any more."""
        key = what if isinstance(what, int) else what.fileno()
        if self.masks.pop(key, None) is not None:
            self.selector.unregister(what)

    def later(self, owner: Handler, seconds: float) -> None:
        """Call ``owner.on_time`` after so many seconds."""
        self.timers[owner] = time.monotonic() + seconds

    # Lanes --------------------------------------------------------------------------------------------------

    def accept(self, listener: socket.socket) -> None:
        """A stranger. Where there are too many, the one that has waited longest goes."""
        try:
            sock, peer = listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        if listener.family == socket.AF_INET:
            if not may_connect(peer):
                sock.close()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.strangers.append(Lane(self, sock))
        if len(self.strangers) > STRANGERS_MOST:
            self.lane_lost(self.strangers[0])

    def lane_known(self, lane: "Lane") -> None:
        """It has shown that it is the daemon's. A new life of the daemon begins with no streams."""
        _, life, number, _ = GREETING.unpack(lane.greeting)
        self.strangers.remove(lane)
        if life != self.life:
            self.begin(life)
        if number in self.lanes:
            self.lane_lost(self.lanes[number])
        lane.number = number
        self.lanes[number] = lane
        self.bridge.lane_up(number, time.monotonic())

    def begin(self, life: bytes) -> None:
        """Forget what another life of the daemon had open."""
        for number in list(self.handlers):
            self.drop(number, True)
        for lane in list(self.lanes.values()):
            self.lane_lost(lane)
        self.life = life
        self.bridge = Bridge(False)

    def lane_lost(self, lane: "Lane") -> None:
        """It is gone; what it carried goes again over the others."""
        self.unwatch(lane.sock)
        lane.sock.close()
        if lane in self.strangers:
            self.strangers.remove(lane)
        if lane.number is not None and self.lanes.get(lane.number) is lane:
            del self.lanes[lane.number]
            self.bridge.lane_down(lane.number)
            self.lonely_since = time.monotonic()
        lane.number = None

    def lane_says(self, lane: "Lane", data: bytes) -> None:
        """Frames of the daemon."""
        try:
            self.bridge.received(lane.number or 0, data, time.monotonic())
        except BridgeError:
            self.lane_lost(lane)
        self.look()

    def pump(self) -> None:
        """Put on the lanes what the bridge wants to say."""
        now = time.monotonic()
        for number in self.bridge.order():
            lane = self.lanes.get(number)
            while lane is not None and lane.number is not None and lane.room:
                data = self.bridge.outgoing(number, now, lane.room)
                if not data:
                    break
                lane.out += data
                lane.flush()

    # Streams ------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Hand on what the bridge brought."""
        for event in self.bridge.events():
            if isinstance(event, Opened):
                self.opened(event.stream, event.purpose)
                continue
            handler = self.handlers.get(getattr(event, "stream", -1))
            if handler is None:
                if isinstance(event, Data):
                    self.bridge.consumed(event.stream, len(event.data), time.monotonic())
            elif isinstance(event, Data):
                handler.data(event.data)
            elif isinstance(event, Ended):
                handler.ended()
            elif isinstance(event, Room):
                handler.room()
            elif isinstance(event, WasReset):
                self.drop(event.stream, True)

    def opened(self, number: int, purpose: bytes) -> None:
        """Begin what a stream is for."""
        try:
            want = json.loads(purpose.decode())
            handler = self.handler(number, want)
        except OSError as error:
            self.give_up(number, reason(error.errno, error.filename))
        except Exception as error:  # noqa: BLE001 - whatever a purpose holds, the others go on
            self.give_up(number, f"{type(error).__name__}: {error}")
        else:
            self.handlers[number] = handler

    def handler(self, number: int, want: "Want") -> "Handler":
        """Who serves this purpose."""
        kind = want["kind"]
        if kind == "tcp":
            return Pipe(self, number, *connecting(addresses(want["host"], int(want["port"]))))
        if kind == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            sock.connect(os.path.expanduser(want["path"]))
            return Pipe(self, number, sock)
        if kind == "exec":
            return Program(self, number, want)
        if kind == "control":
            return Control(self, number, want)
        if kind == "listen":
            return Listener(self, number, want)
        if kind == "watch":
            return Watch(self, number, want)
        raise ValueError(f"this bridgehead knows no stream of kind {kind}")

    def give_up(self, number: int, reason: str) -> None:
        """End a stream with a reason."""
        self.bridge.reset(number, reason)
        self.drop(number, True)

    def drop(self, number: int, reset: bool = False) -> None:
        """The handler of a stream has done its work."""
        handler = self.handlers.pop(number, None)
        if handler is not None:
            self.timers.pop(handler, None)
            handler.close(reset)

    def finished(self) -> None:
        """Let go of handlers whose stream is over in both directions."""
        alive = set(self.bridge.streams)
        for number in [one for one in self.handlers if one not in alive]:
            self.drop(number)

    # Life ---------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect children that have ended."""
        for pid, program in list(self.programs.items()):
            status = program.child.poll()
            if status is not None:
                del self.programs[pid]
                if program.number in self.handlers:
                    program.exited(status if status >= 0 else 128 - status)

    def on_time(self, now: float) -> None:
        """What is due."""
        for owner, due in list(self.timers.items()):
            if due <= now and self.timers.pop(owner, None) is not None:
                owner.on_time()
        for lane in [one for one in self.strangers if now - one.since > STRANGER_TIME]:
            self.lane_lost(lane)
        self.bridge.tick(now)

    def patience(self, now: float) -> float:
        """Seconds until something is due."""
        times = [now + 60.0]
        times += self.timers.values()
        times += [lane.since + STRANGER_TIME for lane in self.strangers]
        deadline = self.bridge.next_deadline()
        if deadline is not None:
            times.append(deadline)
        return max(0.0, min(times) - now)

    def run(self, listeners: "list[socket.socket]", wake: int) -> None:
        """Serve until nobody is expected any more."""
        for one in listeners:
            self.watch(one, selectors.EVENT_READ, one)
        self.watch(wake, selectors.EVENT_READ, None)
        while True:
            now = time.monotonic()
            if not self.lanes and not self.strangers and now - self.lonely_since > self.linger:
                return
            for key, mask in self.selector.select(self.patience(now)):
                if key.fileobj == wake:
                    os.read(wake, 4096)
                elif isinstance(key.data, socket.socket):
                    self.accept(key.data)
                elif self.masks.get(key.fd, (0, self))[1] is key.data:
                    key.data.ready(mask)  # not who had this number a moment ago
            self.reap()
            self.on_time(time.monotonic())
            self.look()
            self.finished()
            self.pump()


def reason(number: "int | None", name: object = None) -> str:
    """A failure in a word that is the same in every language, and a sentence that is not."""
    if not number or number not in errno.errorcode:
        return "EIO the box could not do it"
    what = ": " + str(name)[:200] if name else ""
    return errno.errorcode[number] + " " + os.strerror(number) + what


def addresses(host: str, port: int) -> "list[Address]":
    """Where a name may be reached; looked up here, on the box."""
    names = ["127.0.0.1", "::1"] if host == "localhost" else [host]
    found: list[Address] = []
    for name in names:
        try:
            for family, _, _, _, address in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM):
                found.append((family, address))
        except OSError:
            if name == names[-1] and not found:
                raise
    return found


def connecting(
    rest: "list[Address]", problem: int = errno.EHOSTUNREACH
) -> "tuple[socket.socket, list[Address]]":
    """A socket that connects to the first address that can be tried, and the addresses that are left."""
    for at, (family, address) in enumerate(rest):
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            problem = error.errno or problem
            continue
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        result = sock.connect_ex(address)
        if result in (0, errno.EINPROGRESS):
            return sock, rest[at + 1 :]
        sock.close()
        problem = result
    raise OSError(problem, os.strerror(problem))


def may_connect(peer: "tuple[str, int]") -> bool:
    """Whether the owner of a loopback connection is root (the agent) or this user; unknown: let the secret decide."""
    number = struct.unpack("=I", socket.inet_aton(peer[0]))[0]
    want = f"{number:08X}:{peer[1]:04X}"
    try:
        with open("/proc/net/tcp") as table:
            for line in table:
                fields = line.split()
                if fields[1] == want:
                    return int(fields[7]) in (0, os.getuid())
    except (OSError, ValueError, IndexError):
        pass  # not Linux
    return True


def listening(user: int) -> "list[int]":
    """Ports that programs of a user listen on, sorted (/proc/net: state 0A is LISTEN, field 8 the user)."""
    found = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(name) as table:
                next(table, None)
                for line in table:
                    fields = line.split()
                    if fields[3] == "0A" and int(fields[7]) == user:
                        found.add(int(fields[1].rpartition(":")[2], 16))
        except (OSError, ValueError, IndexError):
            continue  # not Linux, or no IPv6
    return sorted(found)


def set_size(fd: int, size: "list[int]") -> None:
    """Tell a terminal its rows and columns."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", int(size[0]), int(size[1]), 0, 0))


def take_session() -> None:
    """In the child: a process group of its own, and what the bridgehead changed put back."""
    os.setsid()
    os.umask(0o022)
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def take_terminal() -> None:
    """In the child: a session whose terminal is standard input."""
    take_session()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


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
    """The note of a bridgehead that lives."""
    path, note = paths(folder, name)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.settimeout(2.0)
        sock.connect(path)
        with open(note) as file:
            found: Want = json.load(file)
            return found
    except (OSError, ValueError):
        return None
    finally:
        sock.close()


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
        "version": want.get("version", ""),
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
        serve(bytes.fromhex(want["secret"]), float(want.get("linger") or LINGER), listeners)
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


def serve(secret: bytes, linger: float, listeners: "list[socket.socket]") -> None:
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
    Head(secret, linger).run(listeners, reading)


def lane(folder: str, name: str) -> int:
    """Carry standard input and output to the bridgehead."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(paths(own_folder(folder), name)[0])
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(sock, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fd == 0:
                data = os.read(0, READ_SIZE)
                if not data:
                    return 0
                sock.sendall(data)
            else:
                data = sock.recv(READ_SIZE)
                if not data:
                    return 0
                view = memoryview(data)
                while view:
                    view = view[os.write(1, view) :]


if __name__ == "__main__":
    sys.exit(start(sys.argv[2]) if sys.argv[1] == "start" else lane(sys.argv[2], sys.argv[3]))

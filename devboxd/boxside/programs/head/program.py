"""Streams that are commands."""

import errno
import fcntl
import json
import os
import resource
import selectors
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

from devboxd.boxside.programs.head.pipe import Handler
from devboxd.boxside.programs.head.reach import READ_SIZE

if TYPE_CHECKING:
    from typing import Any

    from devboxd.boxside.programs.head.loop import Head

    Want = dict[str, Any]

DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # before the bridgehead raises its own limit
LEFT_OPEN = 1.0  # seconds that a child's descendants may hold its output, and say nothing, after it has ended
RECORD = struct.Struct(">BI")
STDIN, STDIN_END = 0, 1
STDOUT, STDERR, EXIT = 1, 2, 3
SIGNAL, SIZE = 1, 2
RECORD_MOST = 1 << 20  # bytes


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
            self.program.said_at = time.monotonic()
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
        self.said_at = 0.0  # when it could have said something, and did or did not
        self.reading = False
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
        if wanted and not self.reading:
            self.said_at = time.monotonic()
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
        if kind == SIGNAL and (
            self.status is None or self.outputs
        ):  # those who hold its output are of its group
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
        self.said_at = time.monotonic()
        self.close_stdin()
        self.finish_if_over()

    def finish_if_over(self) -> None:
        """Tell the exit status once the output is complete, or others hold it who say nothing for a while."""
        if self.status is None:
            return
        silent = time.monotonic() - self.said_at if self.reading else 0.0
        if self.outputs and silent < LEFT_OPEN:
            self.head.later(self, LEFT_OPEN - silent)
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


def set_size(fd: int, size: "list[int]") -> None:
    """Tell a terminal its rows and columns."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", int(size[0]), int(size[1]), 0, 0))


def take_session() -> None:
    """In the child: a process group of its own, and what the bridgehead changed put back."""
    os.setsid()
    os.umask(0o022)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    for number in (signal.SIGHUP, signal.SIGPIPE, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def take_terminal() -> None:
    """In the child: a session whose terminal is standard input."""
    take_session()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

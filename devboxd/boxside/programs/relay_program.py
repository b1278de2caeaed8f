"""The relay on the box: carry the streams of one command through a terminal.

Runs from ``-c`` on whatever Python 3 a box has (3.6 and later), with the standard library alone. ``relay.sh``
starts it with one argument, the nonce. The lines that it speaks are listed in ``devboxd/boxside/relay.py``.
What travels is made of this text by ``make programs``; annotations, docstrings and comments stay here.
"""

import base64
import collections
import errno
import json
import os
import select
import signal
import subprocess
import sys
import zlib

READ = 16384  # bytes of output at once: one line of ours
SILENCE = 1.0  # seconds without output that end a command whose children still hold its pipes

# "=" comes first: it stands in front of each of the others.
ESCAPES = ((b"=", b"=}"), (b"\n", b"=J"), (b"\r", b"=M"), (b"\xef", b"=o"))


def write(data: bytes) -> None:
    """Write all of it to the terminal."""
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


class Lines:
    """Lines to the other end: numbered, with a checksum, and kept until they are taken."""

    def __init__(self) -> None:
        self.kept = collections.deque()  # type: collections.deque[tuple[int, bytes, bytes, int]]
        self.size = 0  # of what is kept
        self.last = 0
        self.plain = False  # base64 instead of escapes: something on the way changes bytes

    def put(self, kind: bytes, payload: bytes, unpacked: int = 0) -> None:
        """Send a line."""
        # What packs well is counted, too: the reader must not be buried under what it unpacks to.
        cost = max(len(payload), unpacked // 8)
        self.last += 1
        self.size += cost
        self.kept.append((self.last, kind, payload, cost))
        write(self.text(self.last, kind, payload))

    def text(self, number: int, kind: bytes, payload: bytes) -> bytes:
        """Build a line."""
        if kind in b"oe":
            if self.plain:
                payload = base64.b64encode(payload)
            else:
                kind = kind.upper()
                for byte, escape in ESCAPES:
                    payload = payload.replace(byte, escape)
        head = b"%s%d" % (kind, number)
        # The blanks: the agent holds back up to three bytes that could begin a character.
        return b"%s,%08x,%s   \n" % (head, zlib.crc32(head + payload), payload)

    def taken(self, number: int) -> None:
        """Forget what the other end has."""
        while self.kept and self.kept[0][0] <= number:
            self.size -= self.kept.popleft()[3]

    def again(self, number: int) -> None:
        """Send a line once more, if it is still kept."""
        for kept, kind, payload, _ in list(self.kept):
            if kept == number:
                write(self.text(kept, kind, payload))


class Relay:
    """One command, and the terminal that it is run through."""

    def __init__(self, request: "dict[str, object]", early: bytes) -> None:
        self.lines = Lines()
        self.window = int(str(request["window"]))  # bytes of lines that may be kept
        self.received = early
        self.waiting = []  # type: list[bytes]  # input for the command
        self.input_ends = False  # nothing comes after what is waiting
        self.streams = {}  # type: dict[int, tuple[bytes, zlib._Compress]]
        self.process = None  # type: subprocess.Popen[bytes] | None
        self.status = None  # type: int | None
        self.told = False  # how it ended
        signal.signal(signal.SIGHUP, self.give_up)
        self.wakes, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(self.wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        reading, self.stdin = os.pipe()
        os.set_blocking(self.stdin, False)
        self.start(request, reading)
        os.close(reading)
        if not request["stdin"] or self.told:
            self.close_input()

    def start(self, request: "dict[str, object]", stdin: int) -> None:
        """Start the command, or tell why that is impossible."""
        environment = dict(os.environ)
        environment.update(request["env"])  # type: ignore[call-overload]  # JSON
        try:
            self.process = process = subprocess.Popen(
                request["argv"],  # type: ignore[call-overload]  # JSON
                stdin=stdin if request["stdin"] else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            status = 127 if error.errno == errno.ENOENT else 126
            reason = base64.b64encode(os.strerror(error.errno or 0).encode())
            self.lines.put(b"f", b"%d %s" % (status, reason))
            self.told = True
            return
        for kind, pipe in ((b"o", process.stdout), (b"e", process.stderr)):
            self.streams[pipe.fileno()] = (kind, zlib.compressobj(6))

    def give_up(self, *_: object) -> None:
        """End the command with us: nobody is there any more."""
        try:
            os.killpg(self.process.pid, signal.SIGHUP)  # type: ignore[union-attr]
        except (OSError, AttributeError):
            pass
        os._exit(1)

    def run(self) -> None:
        """Relay until the command has ended and the other end has taken everything."""
        while True:
            self.take_lines()
            if self.told and not self.lines.kept:
                return
            if self.input_ends and not self.waiting:
                self.close_input()
            has_room = self.lines.size < self.window
            ready, can_feed = self.wait(has_room)
            if 0 in ready:
                self.receive()
            for stream in list(self.streams):
                if stream in ready:
                    self.relay(stream)
            if can_feed:
                self.feed()
            elif self.stdin < 0 and self.waiting:
                self.drop_input()
            if self.status is not None and not self.told and (not self.streams or (has_room and not ready)):
                self.tell_end(self.status)

    def wait(self, has_room: bool) -> "tuple[list[int], bool]":
        """Wait for something to do: what can be read, and whether the command takes input."""
        lingers = self.status is not None and self.streams and not self.told
        ready, writable, _ = select.select(
            [self.wakes, 0, *(self.streams if has_room else ())],
            [self.stdin] if self.stdin >= 0 and self.waiting else [],
            [],
            SILENCE if lingers else None,
        )
        if self.wakes in ready:
            os.read(self.wakes, 4096)
        if self.status is None and self.process:
            self.status = self.process.poll()
        return ready, bool(writable)

    def tell_end(self, status: int) -> None:
        """Say how the command ended, as a shell would."""
        self.lines.put(b"x", b"%d" % (status if status >= 0 else 128 - status))
        self.told = True

    def receive(self) -> None:
        """Read from the terminal."""
        try:
            data = os.read(0, 65536)
        except OSError:
            data = b""
        if not data:
            self.give_up()
        self.received += data

    def relay(self, stream: int) -> None:
        """Pass on output of the command."""
        data = os.read(stream, READ)
        kind, packer = self.streams[stream]
        if data:
            self.lines.put(kind, packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH), len(data))
        else:
            del self.streams[stream]

    def feed(self) -> None:
        """Pass on input to the command; what it has taken is told."""
        try:
            size = os.write(self.stdin, self.waiting[0])
        except BlockingIOError:
            return
        except OSError:  # it reads no more
            self.close_input()
            self.drop_input()
            return
        if size < len(self.waiting[0]):
            self.waiting[0] = self.waiting[0][size:]
        else:
            self.waiting.pop(0)
        self.lines.put(b"c", b"%d" % size)

    def drop_input(self) -> None:
        """Tell that the input is taken, although nobody reads it: the other end must not wait."""
        self.lines.put(b"c", b"%d" % sum(map(len, self.waiting)))
        self.waiting = []

    def close_input(self) -> None:
        """Let the command see the end of its input."""
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1

    def take_lines(self) -> None:
        """Act on the lines that have come."""
        while b"\n" in self.received:
            line, self.received = self.received.split(b"\n", 1)
            try:
                self.take(line[:1], line[1:])
            except ValueError:
                pass  # damaged on its way

    def take(self, kind: bytes, rest: bytes) -> None:
        """Act on one line."""
        if kind == b"i":
            data = base64.b64decode(rest)
            if self.stdin >= 0:
                self.waiting.append(data)
            else:
                self.lines.put(b"c", b"%d" % len(data))
        elif kind == b"z":
            self.input_ends = True
        elif kind == b"k":
            self.lines.taken(int(rest))
        elif kind == b"g":
            self.lines.again(int(rest))
        elif kind == b"b":
            self.lines.plain = True
        elif kind == b"s" and self.process:
            try:
                os.killpg(self.process.pid, int(rest))
            except OSError:
                pass


def read_request() -> "tuple[dict[str, object], bytes]":
    """Wait for the line that says what to run; returns it and what came behind it."""
    received = b""
    while True:
        data = os.read(0, 65536)
        if not data:
            sys.exit(1)
        received += data
        while b"\n" in received:
            line, received = received.split(b"\n", 1)
            if line[:1] == b"R":
                return json.loads(base64.b64decode(line[1:].split(b" ")[0]).decode()), received


def main() -> None:
    """Greet, read what to run, and run it."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    write(b"\n" + sys.argv[1].encode() + b':r{"relay":"python"}\n')
    Relay(*read_request()).run()


if __name__ == "__main__":
    main()

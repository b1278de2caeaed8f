"""What moves bytes between a terminal (or pipes) and a framed connection, and blocks on nothing.

* Input is read while there is credit for it, so a daemon that stops taking it is never flooded. The last
  bytes of the window are kept for Ctrl-C: it overtakes what has been typed or pasted but not yet sent.
* The connection is read only while what it brings can be written out, so a terminal that stops reading holds
  up the far end and not the memory of this process.
* Subclasses say what a frame, a signal, a deadline and the loss of the daemon mean.
"""

from __future__ import annotations

import os
import time

from devboxctl.fast import framed, reply
from devboxctl.fast.doubt import Doubt
from devboxctl.fast.framed import Framed
from devboxctl.fast.loop import IN, OUT, Loop
from devboxctl.fast.pipe import Output
from devboxd.api import client
from devboxd.text import printable
from devboxd.typed import Typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from devboxctl.fast.terminal import Signals

    Json = dict[str, object]

PENDING_MAX = 262144  # bytes waiting to be written out before the connection is no longer read
TYPED_MAX = 1 << 20  # bytes typed or pasted ahead of the credit, on a terminal
RESERVE = 64  # bytes of the input window kept for Ctrl-C
DRAIN = 2.0  # seconds for a terminal to take the last output


class Left(Exception):
    """We leave before the far end has said EXIT, with this exit status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Pump(Loop):
    """Moves bytes until the daemon says EXIT and everything has been written out."""

    def __init__(self, *, interactive: bool, stdin: bool = True, credit_output: bool = False) -> None:
        super().__init__()
        self.interactive = interactive
        self.connection: Framed | None = None
        self.output = Output(1)
        self.error_output: Output | None = None
        self.exit: Json | None = None
        self.credit = framed.INPUT_WINDOW
        self.unsent = Typed()
        self._reading = stdin
        self._end_to_send = not stdin
        self._credit_output = credit_output
        self._owed = 0  # output bytes received and not yet credited
        self._opened = False
        self._drain_until: float | None = None
        self._signals: Signals | None = None
        self._doubt = Doubt()
        self._is_hung = False
        self._tries = client.TRIES

    # What subclasses say.

    def ask(self) -> Framed:
        """Connect to the daemon, and ask it for what is wanted. Raises ClientError."""
        raise NotImplementedError

    def on_open(self) -> None:
        """Act on the daemon's 101."""

    def on_status(self, news: Json) -> None:
        """Act on news of the session."""

    def on_output(self, data: bytes) -> None:
        """Pass standard output on."""
        self.output.put(data)

    def on_input(self, data: bytes) -> None:
        """Act on what was read from standard input."""
        self.queue(data)

    def on_end_of_input(self) -> None:
        """Act on the end of standard input."""
        self._end_to_send = True

    def on_signal(self, number: int) -> None:
        """Act on a signal."""

    def on_lost(self, error: client.ClientError) -> None:
        """Act on the end of the connection without EXIT. Raise to give up."""
        raise error

    def on_broken_output(self) -> None:
        """Act on standard output having no reader, or failing."""
        raise Left(128 + 13)

    def on_hung(self, error: client.NotAnswering) -> None:
        """Act on a daemon that does not answer. Raise to give up."""
        if not self._opened and error.is_sure:
            raise error
        notice(f"{error.message}; waiting")

    def on_answering(self) -> None:
        """Act on a daemon that answers again."""

    def _check_outputs(self) -> None:
        for output, name in ((self.output, "output"), (self.error_output, "error")):
            if output is not None and (failure := output.failure) is not None:
                output.failure = None  # said once
                raise reply.cannot_write(f"standard {name}", failure)
        if self.output.broken and self.exit is None:
            self.on_broken_output()

    # The loop.

    def pump(self, signals: Signals) -> None:
        """Run to the end of the connection. Raises Left, ClientError."""
        self._signals = signals
        self._flush()
        import json  # noqa: F401  needed for the first status: loaded while the daemon works on its answer

        self.run()

    def is_over(self) -> bool:
        self._flush()
        return self.exit is not None and self._drained()

    def wants(self, now: float) -> dict[int, int]:
        interest = {} if self._signals is None else {self._signals.descriptor: IN}
        if self._reading and self._room() > 0 and self.exit is None:
            interest[0] = IN
        for output in (self.output, self.error_output):
            if output is not None and output.waiting:
                interest[output.descriptor] = OUT
        if self.connection is not None and self.exit is None:
            events = IN if self._pending() < PENDING_MAX else 0
            events |= OUT if self.connection.sending else 0
            if events:
                interest[self.connection.descriptor] = events
        if self._doubt.descriptor is not None:
            interest[self._doubt.descriptor] = IN
        return interest

    def next_deadline(self) -> float | None:
        return min((t for t in (self._drain_until, self._doubt.due) if t is not None), default=None)

    def on_time(self, now: float) -> None:
        if self._doubt.due is None or now < self._doubt.due or self.exit is not None:
            return
        self._forget_doubt()
        error = self._doubt.on_time(now)
        if error is not None:
            self._is_hung = True
            self.on_hung(error)

    def _forget_doubt(self) -> None:
        if self._doubt.descriptor is not None:
            self.forget(self._doubt.descriptor)

    def act(self, ready: Mapping[int, int]) -> None:
        if self._signals is not None and self._signals.descriptor in ready:
            for number in self._signals.take():
                self.on_signal(number)
        if self.connection is not None and ready.get(self.connection.descriptor, 0) & ~OUT:
            self._receive(self.connection)
        if self._doubt.descriptor is not None and self._doubt.descriptor in ready:
            self._forget_doubt()
            self._doubt.on_answer(time.monotonic())
        if 0 in ready:
            self._read()

    def connected(self, connection: Framed) -> None:
        """Use this connection from now on."""
        self.connection = connection
        self.credit = framed.INPUT_WINDOW
        self._heard()
        self._doubt.expect(time.monotonic())

    def _heard(self) -> None:
        self._forget_doubt()
        self._doubt.heard()
        if self._is_hung:
            self._is_hung = False
            self.on_answering()

    def disconnected(self) -> None:
        """Drop the connection and what has not been sent on it."""
        self._forget_doubt()
        self._doubt.heard()
        if self.connection is not None:
            self.forget(self.connection.descriptor)
            self.connection.close()
            self.connection = None
        self.unsent.clear()

    def _receive(self, connection: Framed) -> None:
        was_open = connection.open
        try:
            frames = connection.receive()
        except client.Refused:
            raise
        except client.ClientError as error:
            self._lost(error)
            return
        self._heard()
        if connection.open and not was_open:
            self._opened = True
            self.on_open()
        for kind, payload in frames:
            self._on_frame(kind, payload)

    def _on_frame(self, kind: int, payload: bytes) -> None:
        if kind == framed.OUTPUT:
            self._owed += len(payload)
            self.on_output(payload)
        elif kind == framed.ERROR_OUTPUT:
            self._owed += len(payload)
            (self.error_output or self.output).put(payload)
        elif kind == framed.CREDIT:
            self.credit += int.from_bytes(payload[:4], "big")
        elif kind in (framed.STATUS, framed.EXIT):
            import json

            try:
                news = json.loads(payload)
            except ValueError:
                news = {}
            if kind == framed.STATUS:
                self.on_status(news)
            else:
                self.exit = news
        # Other kinds come from a newer daemon and are none of our business.

    def _flush(self) -> None:
        self.output.flush()
        if self.error_output is not None:
            self.error_output.flush()
        self._check_outputs()
        if self.connection is None:
            return
        if self.connection.open:
            if self._credit_output and (done := self._owed - self._pending()) > 0:
                self._owed -= done
                self.connection.send(framed.CREDIT_OUTPUT, done.to_bytes(4, "big"))
            self._send_input(self.connection)
        try:
            self.connection.flush()
        except client.ClientError as error:
            if self.exit is None:
                self._last_words(error)

    def _last_words(self, error: client.ClientError) -> None:
        """Sending failed; what the daemon said before it closed may still be there to read."""
        try:
            while self.exit is None and self.connection is not None:
                self.connection.socket.settimeout(0.5)
                for kind, payload in self.connection.receive():
                    self._on_frame(kind, payload)
        except client.Refused:
            raise
        except client.ClientError:
            self._lost(error)

    def _lost(self, error: client.ClientError) -> None:
        """Ask the next daemon where the first one ended before it had read what is wanted."""
        if not self._opened and isinstance(error, client.DaemonLost) and error.is_unread and self._tries > 1:
            self._tries -= 1
            self.disconnected()
            self.connected(self.ask())
        else:
            self.on_lost(error)

    # Input.

    def queue(self, data: bytes) -> None:
        """Queue input. On a terminal, Ctrl-C overtakes what is queued but not sent."""
        self.unsent.put(data, by_hand=self.interactive)

    def _room(self) -> int:
        if not self._opened:
            return 0  # until we are let in, keys belong to the shell
        if self.interactive:
            return TYPED_MAX - len(self.unsent)
        if self.connection is None or not self.connection.open:
            return 0
        return self.credit - RESERVE - len(self.unsent)

    def _read(self) -> None:
        try:
            data = os.read(0, min(65536, max(1, self._room())))
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal is gone
            data = b""
        if data:
            self.on_input(data)
        else:
            self._reading = False
            self.on_end_of_input()

    def _send_input(self, connection: Framed) -> None:
        while self.unsent and len(connection.sending) < PENDING_MAX:
            room = max(self.credit - RESERVE, 0)
            if self.interactive and (urgent := self.unsent.starts_with_interrupt()) <= self.credit:
                room = max(room, urgent)
            if not room:
                break
            piece = self.unsent.take(min(framed.INPUT_FRAME, room))
            self.credit -= len(piece)
            connection.send(framed.INPUT, piece)
            self._doubt.expect(time.monotonic())
        if self._end_to_send and not self.unsent:
            self._end_to_send = False
            connection.send(framed.END_OF_INPUT)

    # The end.

    def _pending(self) -> int:
        return len(self.output.waiting) + (len(self.error_output.waiting) if self.error_output else 0)

    def _drained(self) -> bool:
        if not self._pending():
            return True
        now = time.monotonic()
        if self.interactive and self._drain_until is None:
            self._drain_until = now + DRAIN  # a pipe is waited for: its reader decides; a stuck window is not
        return self._drain_until is not None and now >= self._drain_until


def notice(text: str) -> None:
    """Say something to the person, on standard error and beside the remote program's output."""
    reply.say(f"[devbox: {printable(text)}]\n")

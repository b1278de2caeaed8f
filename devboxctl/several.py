"""``exec`` on several boxes at once: a prefix on every line says whose it is.

Standard input is not passed on: there is one of it. The exit status is 0 if it is so everywhere, 255 if the
command could not be run somewhere, and else the highest.
"""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from devboxctl import ask, show
from devboxctl.fast import framed, reply
from devboxctl.fast.boxes import Wanted, like
from devboxctl.fast.execute import LOST
from devboxctl.fast.framed import Framed
from devboxctl.fast.loop import IN, OUT, Loop
from devboxctl.fast.pipe import Output
from devboxctl.fast.pump import PENDING_MAX
from devboxctl.fast.reply import UsageError
from devboxctl.fast.terminal import Signals
from devboxctl.options import settings
from devboxd.api import client, wire
from devboxd.text import printable

AT_ONCE = 16  # boxes; the others wait their turn
LINE_MAX = 65536  # bytes; of a longer line the pieces are shown as lines


def is_several(box: str | None, tags: Sequence[str]) -> bool:
    """Tell whether more than one box may be meant."""
    return bool(tags) or (box is not None and any(c in ",*?[" for c in box))


def chosen(box: str | None, tags: Sequence[str]) -> list[str]:
    """Say which boxes are meant by ``a,b``, patterns and tags. Boxes that do not run are named and left out.

    Raises:
        UsageError: there is none.
        NoSuchBox: a pattern matches nothing.
    """
    words = [word for word in (box or "").split(",") if word]
    patterns = [word for word in words if any(c in "*?[" for c in word)]
    try:
        known = ask.boxes().boxes
    except client.ClientError:
        if patterns or tags:
            raise
        known = []  # instance ids and configured names work without EC2
    if box is not None and any(one.name == box for one in known):
        return [box]  # there may be a comma in a name
    found = {word: None for word in words if word not in patterns}
    if patterns or tags:
        found |= _matching(known, Wanted(patterns, list(tags), []), found)
    if not found:
        raise UsageError("no box that runs is meant", "devboxctl ls shows them all")
    return list(found)


def _matching(known: Iterable[wire.Box], wanted: Wanted, named: Iterable[str]) -> dict[str, None]:
    """The boxes that run among those wanted, but for those that were named already."""
    found: dict[str, None] = {}
    for one in known:
        if not wanted.has(show.plain(one)) or any(like(one.name, word) for word in named):
            continue
        if (why := left_out(one)) is None:
            found[one.ref or one.name] = None
        else:
            show.say(f"left out: {why}")
    wanted.check()
    return found


def left_out(one: wire.Box) -> str | None:
    """Say why no command is run on a box that only a pattern or a tag means; None: it is."""
    if one.project is not None and one.phase != "running":
        name = printable(one.project)
        return f"{name} has no box that runs ({one.phase}); devboxctl up {name} brings it up"
    return None if one.state in ("running", "unknown") else f"{one.name} is {one.state}"


class Member:
    """One box: its connection, and what has come of a line."""

    def __init__(self, box: str, request: bytes) -> None:
        self.box = box
        self.request = request
        self.connection: Framed | None = None
        self.tries = client.TRIES
        self.is_unread = False  # the daemon was gone before it had all that was sent
        self.lines = {framed.OUTPUT: bytearray(), framed.ERROR_OUTPUT: bytearray()}
        self.failure: Mapping[str, object] | None = None
        self.status: int | None = None

    @property
    def is_over(self) -> bool:
        """Tell whether there is nothing more to come."""
        return self.failure is not None or self.status is not None

    def take(self, kind: int, data: bytes) -> list[bytes]:
        """Add output; returns the lines that are whole."""
        line = self.lines[kind]
        line += data
        *whole, rest = bytes(line).split(b"\n")
        if len(rest) > LINE_MAX:
            whole, rest = [*whole, rest], b""
        self.lines[kind] = bytearray(rest)
        return whole


class Several(Loop):
    """Runs one command on many boxes."""

    def __init__(self, members: Sequence[Member], signals: Signals) -> None:
        super().__init__()
        self.members = members
        self._waiting = deque(members)
        self._running: dict[int, Member] = {}
        self._signals = signals
        self._interrupts = 0
        self._outputs = {framed.OUTPUT: Output(1), framed.ERROR_OUTPUT: Output(2)}
        self._width = max(len(printable(member.box)) for member in members)

    def is_over(self) -> bool:
        for name, output in (
            ("output", self._outputs[framed.OUTPUT]),
            ("error", self._outputs[framed.ERROR_OUTPUT]),
        ):
            output.flush()
            if output.failure is not None:
                raise reply.cannot_write(f"standard {name}", output.failure)
        if self._outputs[framed.OUTPUT].broken:
            raise reply.ReaderGone
        while self._waiting and len(self._running) < AT_ONCE and not self._interrupts:
            self._start(self._waiting.popleft())
        for member in list(self._running.values()):
            self._flush(member)
        return not self._running and not any(output.waiting for output in self._outputs.values())

    def wants(self, now: float) -> dict[int, int]:
        interest = {self._signals.descriptor: IN}
        is_full = any(len(output.waiting) > PENDING_MAX for output in self._outputs.values())
        for output in self._outputs.values():
            if output.waiting:
                interest[output.descriptor] = OUT
        for descriptor, member in self._running.items():
            assert member.connection is not None
            events = (0 if is_full else IN) | (OUT if member.connection.sending else 0)
            if events:
                interest[descriptor] = events
        return interest

    def act(self, ready: Mapping[int, int]) -> None:
        if self._signals.descriptor in ready:
            for number in self._signals.take():
                self._interrupt(number)
        for descriptor in ready.keys() & self._running.keys():
            if ready[descriptor] & ~OUT:
                self._receive(self._running[descriptor])

    def _start(self, member: Member) -> None:
        try:
            member.connection = Framed(client.connect_or_start(), "exec", member.request)
        except client.ClientError as error:
            self._failed(member, reply.failure_of(error))
            return
        self._running[member.connection.descriptor] = member

    def _flush(self, member: Member) -> None:
        assert member.connection is not None
        try:
            member.connection.flush()
        except client.DaemonLost as error:
            member.is_unread = error.is_unread
            member.connection.sending.clear()  # it takes nothing more; what it has said may still be read

    def _receive(self, member: Member) -> None:
        connection = member.connection
        assert connection is not None
        try:
            frames = connection.receive()
        except client.ClientError as error:
            is_unread = isinstance(error, client.DaemonLost) and (error.is_unread or member.is_unread)
            if is_unread and member.tries > 1:
                member.tries, member.is_unread = member.tries - 1, False
                self._close(member)
                self._start(member)
            else:
                self._failed(member, reply.failure_of(error))
            return
        for kind, payload in frames:
            if kind in self._outputs:
                for line in member.take(kind, payload):
                    self._show(member, kind, line)
                connection.send(framed.CREDIT_OUTPUT, len(payload).to_bytes(4, "big"))
            elif kind == framed.EXIT:
                self._ended(member, json.loads(payload))
                return

    def _ended(self, member: Member, end: dict[str, Any]) -> None:
        for kind, rest in member.lines.items():
            if rest:
                self._show(member, kind, bytes(rest))
        failure, status = end.get("failure"), end.get("status")
        if isinstance(failure, dict) or not isinstance(status, int):
            text = end.get("reason") or "the command ended without an exit status"
            self._failed(member, failure or {"code": "exec-lost", "message": text})
            return
        member.status = status
        self._close(member)
        if settings.json:
            self._put(framed.OUTPUT, {"box": member.box, "status": status})
        elif status:
            self._note(member, f"exit status {status}")

    def _failed(self, member: Member, failure: Mapping[str, object]) -> None:
        member.failure = failure
        self._close(member)
        if settings.json:
            shown = {name: failure.get(name) for name in ("code", "message", "hint", "retryable")}
            self._put(framed.OUTPUT, {"box": member.box, "error": shown})
            return
        hint = f" ({failure['hint']})" if failure.get("hint") else ""
        self._note(member, f"error: {failure.get('message')}{hint}")

    def _close(self, member: Member) -> None:
        if member.connection is not None:
            self.forget(member.connection.descriptor)
            self._running.pop(member.connection.descriptor, None)
            member.connection.close()

    def _show(self, member: Member, kind: int, line: bytes) -> None:
        if settings.json:
            stream = "output" if kind == framed.OUTPUT else "error"
            self._put(kind, {"box": member.box, "stream": stream, "text": line.decode("utf-8", "replace")})
        else:
            self._outputs[kind].put(self._prefix(member) + line + b"\n")

    def _note(self, member: Member, text: str) -> None:
        self._outputs[framed.ERROR_OUTPUT].put(
            self._prefix(member) + f"[devbox: {printable(text)}]\n".encode()
        )

    def _put(self, kind: int, value: dict[str, object]) -> None:
        text = json.dumps({**value, "version": reply.VERSION})
        self._outputs[framed.OUTPUT].put(text.encode() + b"\n")

    def _prefix(self, member: Member) -> bytes:
        return f"{printable(member.box) + ':':<{self._width + 1}} ".encode()

    def _interrupt(self, number: int) -> None:
        """Pass it on to every command and start no more; the second one ends us."""
        self._interrupts += 1
        if self._interrupts > 1:
            raise SystemExit(128 + number)
        for member in self._waiting:
            self._failed(member, {"code": "interrupted", "message": "interrupted before it was started"})
        self._waiting.clear()
        for member in self._running.values():
            if member.connection is not None and member.connection.open:
                member.connection.send(framed.SIGNAL, bytes((number,)))


def execute(boxes: Sequence[str], request: Mapping[str, Any]) -> int:
    """Run a command on all these boxes and return the exit status of it all."""
    members = [Member(box, reply.encode({**request, "box": box, "stdin": False})) for box in boxes]
    with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT) as signals:
        Several(members, signals).run()
    if any(member.failure is not None for member in members):
        return LOST
    return max(member.status or 0 for member in members)

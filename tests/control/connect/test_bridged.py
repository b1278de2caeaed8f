"""What a client is told of a command that could not be started over a bridge; what is left of its input to another daemon."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from devboxd.boxside import bridgehead
from devboxd.control.connect.audience import Audience
from devboxd.control.connect.bridged import BridgedExecution, not_started
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.parcel import Client, Command, OverBridge, Packing
from devboxd.model.box import Account, BoxRef
from devboxd.model.terminal import ClientMessage, EndOfInput, Input
from tests.kit.tasks import beside

CLIENT = Client(0, b"", b"")


@pytest.mark.parametrize(
    ("argv", "symbol", "told"),
    [
        (["nosuch"], "ENOENT", "nosuch: No such file or directory (my box)\n"),
        (["nosuch", "a b"], "ENOENT", "nosuch: No such file or directory (my box)\n"),
        (["./data"], "EACCES", "./data: Permission denied (my box)\n"),
        (["./text"], "ENOEXEC", "./text: Exec format error (my box)\n"),
        (["true", "x" * 9], "E2BIG", "true: Argument list too long (my box)\n"),
        (["a\x1b[1mb"], "ENOENT", "a[1mb: No such file or directory (my box)\n"),
        (["\udcff"], "ENOENT", None),
    ],
)
def test_it_is_said_as_a_shell_would(argv: list[str], symbol: str, told: str | None) -> None:
    """The same as without a bridge."""
    text = not_started(argv, symbol, "my box")
    text.encode("utf-8", "replace")
    assert told is None or text.replace(" [1m", "[1m") == told


@pytest.mark.parametrize("line", ["echo hi; id -un", "uname -a", "cd /tmp && ls"])
def test_a_line_in_one_word_as_ssh_takes_it_is_told_what_does_it(line: str) -> None:
    """The habit of whoever comes from ssh."""
    text = not_started([line], "ENOENT", "my box")
    assert text.endswith("\na line for a shell is run by: devboxctl exec 'my box' sh -c 'LINE'\n")


class Fed(Audience):
    """A client with input."""

    def __init__(self, *messages: ClientMessage) -> None:
        super().__init__()
        self.credited = 0
        self._messages.clear()
        self._messages.extend(messages)

    def credit(self, size: int) -> None:
        self.credited += size


class Narrow:
    """A stream that takes ``room`` bytes, and then no more."""

    number = 2
    is_online = is_whole = has_begun = answers = True

    def __init__(self, room: int) -> None:
        self.streams = object()
        self.unwritten = b""
        self.took = b""
        self._room = room

    async def write(self, data: bytes) -> None:
        size = min(len(data), self._room)
        self.took, self.unwritten, self._room = self.took + data[:size], data[size:], self._room - size
        if self.unwritten:
            await asyncio.Event().wait()

    async def read(self) -> bytes:
        await asyncio.Event().wait()
        return b""

    def close(self) -> None:
        pass


async def went_on(command: Command, stream: Any, client: Fed) -> Command:
    """Go on with it until nothing more happens; what is left of it then."""
    no_bridges: Any = None
    execution = BridgedExecution.resumed(no_bridges, command, client, stream, None)
    running = beside(execution.go_on())
    for _ in range(100):
        await asyncio.sleep(0)
    assert execution.is_portable
    left = execution.packed(Packing(), CLIENT)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return left


@pytest.mark.parametrize("room", [0, 3, 20_000, 40_000, 51_215, 51_219, 51_222, 60_000])
@pytest.mark.parametrize("ends", [True, False])
async def test_input_that_waits_is_left_to_another_daemon_with_its_end(room: int, ends: bool) -> None:
    """All of it, once, in order; and all of it is credited."""
    said = bytes(range(256)) * 200
    client = Fed(Input(said[:30_000]), Input(said[30_000:]), *([EndOfInput()] if ends else []))
    spec = ExecSpec(box=BoxRef("api", "i-0123456789abcdef0", Account()), argv=["cat"])
    begun = Command(CLIENT, OverBridge(0, 2, b""), None, spec, None, 0, None, b"", (b"", 0, 0), b"", 0)
    before, after = Narrow(room), Narrow(1 << 20)
    left = await went_on(begun, before, client)
    rest = await went_on(left, after, client)
    assert (rest.stream.unwritten, rest.rest, rest.owed) == (b"", b"", 0)
    found = bridgehead.Records().feed(before.took + after.took)
    assert b"".join(part for kind, part, _ in found if kind == bridgehead.STDIN) == said
    assert [kind for kind, _, _ in found].count(bridgehead.STDIN_END) == ends
    assert not ends or found[-1] == (bridgehead.STDIN_END, b"", True)
    assert client.credited == len(said)

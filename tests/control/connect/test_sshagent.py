"""The lent ssh agent: what a hostile or hasty box may do with it, and whose agent is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from devboxd.control.base.shared import Shared
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.sshagent import (
    FRAME,
    LONGEST,
    MOST_COMPLAINTS,
    MOST_CONNECTIONS,
    MOST_WAITING,
    SshAgents,
)
from devboxd.control.connect.terminal import Terminal
from devboxd.model.box import Account, BoxRef
from devboxd.model.terminal import Input, Leaving, Taken
from tests.control.fakes import LoopClock

BOX = BoxRef("api", "i-0123456789abcdef0", Account())


class Agent:
    """An ssh agent that answers with its name and what it was asked, or does not even read."""

    def __init__(self, name: str, *, reads: bool = True) -> None:
        self.name = name
        self.opened = 0
        self._reads = reads
        self._done = asyncio.Event()

    async def serve(self, path: Path) -> asyncio.Server:
        return await asyncio.start_unix_server(self._answer, path)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        if not self._reads:
            await self._done.wait()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                writer.write(self.name.encode() + b":" + data)
                if data == b"bye":
                    break
        writer.close()

    def leave(self) -> None:
        self._done.set()


class Program:
    """The program on the box, played by a test."""

    def __init__(self) -> None:
        self.terminals: list[Terminal] = []
        self.started = asyncio.Event()
        self._leave = asyncio.Event()

    async def run(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        self.terminals.append(terminal)
        self.started.set()
        await self._leave.wait()
        return Leaving(status=0)

    async def ready(self) -> Terminal:
        await self.started.wait()
        self.terminals[-1].output(b"rea")
        self.terminals[-1].output(b"dy")
        return self.terminals[-1]


async def next_frame(terminal: Terminal) -> tuple[int, bytes] | None:
    """The next that is sent to the box; None when the program is to end."""
    async with asyncio.timeout(5):
        while isinstance(message := await terminal.receive(), Taken):
            pass
    if message is None:
        return None
    assert isinstance(message, Input)
    return FRAME.unpack(message.data[:8])[0], message.data[8:]


def frame(number: int, payload: bytes) -> bytes:
    return FRAME.pack(number, len(payload)) + payload


@pytest_asyncio.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent("a")
    server = await agent.serve(tmp_path / "a")
    yield agent
    server.close()


async def test_a_connection_is_carried_both_ways_and_ended(agent: Agent, tmp_path: Path) -> None:
    program = Program()
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "a")):
        terminal = await program.ready()
        whole = frame(1, b"list")
        for byte in whole:
            terminal.output(bytes([byte]))
        assert await next_frame(terminal) == (1, b"a:list")
        terminal.output(frame(1, b"bye") + frame(2, b"x"))
        answers = [await next_frame(terminal) for _ in range(3)]
        assert (1, b"a:bye") in answers
        assert (1, b"") in answers
        assert (2, b"a:x") in answers


async def test_late_data_for_a_closed_connection_opens_no_other(agent: Agent, tmp_path: Path) -> None:
    program = Program()
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "a")):
        terminal = await program.ready()
        terminal.output(frame(7, b"bye"))
        assert await next_frame(terminal) == (7, b"a:bye")
        assert await next_frame(terminal) == (7, b"")
        terminal.output(frame(7, b"late") + frame(3, b"older") + frame(8, b"new"))
        assert await next_frame(terminal) == (8, b"a:new")
        assert agent.opened == 2


@pytest.mark.parametrize("nonsense", [b"Traceback", b"readx" * 9, b"ready" + FRAME.pack(1, LONGEST + 1)])
async def test_a_program_that_talks_nonsense_is_ended_and_no_longer_heard(
    agent: Agent, tmp_path: Path, nonsense: bytes
) -> None:
    program = Program()
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "a")):
        await program.started.wait()
        terminal = program.terminals[0]
        terminal.output(nonsense)
        terminal.output(b"ready" + frame(1, b"x"))
        assert await next_frame(terminal) is None
        await asyncio.sleep(0.02)
        assert agent.opened == 0


async def test_a_box_that_floods_an_agent_that_does_not_read_loses_the_connection(tmp_path: Path) -> None:
    """What waits here is bounded."""
    program, slow = Program(), Agent("s", reads=False)
    server = await slow.serve(tmp_path / "s")
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "s")):
        terminal = await program.ready()
        for _ in range(40):  # beyond what the system's own buffers take
            terminal.output(frame(1, bytes(MOST_WAITING // 4)))
            await asyncio.sleep(0)
        assert await next_frame(terminal) == (1, b"")
    slow.leave()
    server.close()


async def test_a_box_that_takes_no_answers_holds_the_agent_up(agent: Agent, tmp_path: Path) -> None:
    """Instead of filling memory."""
    program = Program()
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "a")):
        terminal = await program.ready()
        for _ in range(60):
            terminal.output(frame(1, bytes(20_000)))
            await asyncio.sleep(0.001)
        assert MOST_WAITING <= terminal._outgoing < 2 * MOST_WAITING  # type: ignore[attr-defined]


async def test_when_the_newest_terminal_leaves_the_one_before_is_asked_again(tmp_path: Path) -> None:
    program = Program()
    agents = SshAgents(Shared.of(LoopClock()), program.run)
    servers = [await Agent(name).serve(tmp_path / name) for name in ("a", "b", "c")]
    number = 0

    async def asked() -> str:
        nonlocal number
        number += 1
        terminal = program.terminals[0]
        terminal.output(frame(number, b"?"))
        found = await next_frame(terminal)
        assert found is not None
        return found[1].decode()

    first = agents.lending(BOX, None, str(tmp_path / "a"))
    second = agents.lending(BOX, None, str(tmp_path / "b"))
    third = agents.lending(BOX, None, str(tmp_path / "c"))
    await first.__aenter__()
    await program.ready()
    assert await asked() == "a:?"
    await second.__aenter__()
    await third.__aenter__()
    assert await asked() == "c:?"
    await second.__aexit__(None, None, None)
    assert await asked() == "c:?"
    await third.__aexit__(None, None, None)
    assert await asked() == "a:?"
    await first.__aexit__(None, None, None)
    assert len(program.terminals) == 1, "one program served them all"
    for server in servers:
        server.close()


async def test_a_box_that_opens_without_end_is_ended_and_fills_nothing(tmp_path: Path) -> None:
    """Each connection beyond the bound is answered, and nobody took the answers."""
    program, slow = Program(), Agent("s", reads=False)
    server = await slow.serve(tmp_path / "s")
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "s")):
        terminal = await program.ready()
        for first in range(1, 200_000, 1000):
            terminal.output(b"".join(frame(number, b"x") for number in range(first, first + 1000)))
            if first % 10_000 == 1:
                await asyncio.sleep(0)
        assert terminal._outgoing <= MOST_WAITING + 8  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            while await terminal.receive() is not None:
                pass
        assert slow.opened <= MOST_CONNECTIONS
    slow.leave()
    server.close()


async def test_ends_and_single_bytes_without_end_fill_nothing(tmp_path: Path) -> None:
    """They count as little, and each took a place in a queue."""
    program, slow = Program(), Agent("s", reads=False)
    server = await slow.serve(tmp_path / "s")
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "s")):
        terminal = await program.ready()
        terminal.output(frame(1, b"x") * 10_000)
        await asyncio.sleep(0)
        terminal.output(frame(1, b"") * 100_000)
        queue = terminal._connections[1]  # type: ignore[attr-defined]
        assert len(queue._waiting) <= 10_000
    slow.leave()
    server.close()


async def test_what_the_program_complains_of_is_logged_for_a_while_only(
    agent: Agent, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A flood of it would push everything else out of the log."""
    program = Program()
    caplog.set_level("INFO")
    async with SshAgents(Shared.of(LoopClock()), program.run).lending(BOX, None, str(tmp_path / "a")):
        terminal = await program.ready()
        for _ in range(1000):
            terminal.output(b"Traceback \x1b[2J\n", error=True)
    logged = [record.getMessage() for record in caplog.records if "on the box" in record.getMessage()]
    assert len(logged) == MOST_COMPLAINTS
    assert logged[0].isprintable()

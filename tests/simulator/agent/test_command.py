"""Non-interactive commands: two modes, exit codes, start failures, signals, and the pause that destroys."""

from __future__ import annotations

from pathlib import Path

import pytest

from devboxd.ssm import frame
from devboxd.ssm.payload import PayloadType
from tests.kit.sim import MakeSimulator
from tests.simulator.client import connected

DOCUMENT = "AWS-StartNonInteractiveCommand"
HANDSHAKE = ["HANDSHAKE_REQUEST 0", "HANDSHAKE_COMPLETE 1"]


def kinds(story: list[str]) -> list[str]:
    return [line for line in story if "publication" not in line]


async def test_separate_streams_and_the_exit_code(simulator: MakeSimulator) -> None:
    """As recorded: handshake, both streams in any order, EXIT_CODE, channel_closed."""
    sim = await simulator()
    text = "sh -c 'echo to-stdout; echo to-stderr >&2; exit 7'"
    async with connected(sim, "api", DOCUMENT, command=text, separateOutputStream="true") as client:
        assert await client.closed() == ""
        story = kinds(client.story())
        assert story[:2] == HANDSHAKE
        assert sorted(line.split()[0] for line in story[2:4]) == ["OUTPUT", "STDERR"]
        assert story[4:] == ["EXIT_CODE 4", "channel_closed"]
        assert (bytes(client.output), bytes(client.errors)) == (b"to-stdout\n", b"to-stderr\n")
        assert b"EXIT_CODE: 7" in [one.payload for one in client.frames]


async def test_merged_output_comes_at_the_end_without_an_exit_code(simulator: MakeSimulator) -> None:
    sim = await simulator()
    text = "sh -c 'echo to-stdout; echo to-stderr >&2; exit 7'"
    async with connected(sim, "api", DOCUMENT, command=text) as client:
        await client.closed()
        assert kinds(client.story()) == [*HANDSHAKE, "OUTPUT 2", "channel_closed"]
        assert client.output == b"to-stdout\nto-stderr\n"


async def test_large_output_arrives_whole(simulator: MakeSimulator) -> None:
    sim = await simulator()
    text = "sh -c 'head -c 300000 /dev/zero | tr \"\\0\" x'"
    async with connected(sim, "api", DOCUMENT, command=text, separateOutputStream="true") as client:
        await client.closed()
        assert client.output == b"x" * 300_000
        assert max(len(one.payload) for one in client.frames) == 1024


@pytest.mark.parametrize("separate", ["true", "false"])
async def test_a_missing_command_says_so_after_its_exit_code(simulator: MakeSimulator, separate: str) -> None:
    """The reason comes after the exit code: who stops reading at the code never learns it."""
    sim = await simulator()
    async with connected(
        sim, "api", DOCUMENT, command="no-such-thing", separateOutputStream=separate
    ) as client:
        await client.closed()
        code = ["EXIT_CODE 2", "STDERR 3"] if separate == "true" else ["STDERR 2"]
        assert kinds(client.story()) == [*HANDSHAKE, *code, "channel_closed"]
        assert b'exec: "no-such-thing": executable file not found in $PATH' in client.errors


async def test_an_unparsable_command_fails_with_only_the_text(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", DOCUMENT, command="echo 'open", separateOutputStream="true") as client:
        assert "Failed to parse commands input" in await client.closed()
        assert kinds(client.story()) == [*HANDSHAKE, "STDERR 2", "channel_closed"]


async def test_ctrl_c_is_a_signal_and_a_signal_is_minus_one(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", DOCUMENT, command="sleep 30", separateOutputStream="true") as client:
        await client.until(lambda c: "HANDSHAKE_COMPLETE 1" in c.log)
        await client.send_until_taken(PayloadType.PARAMETER, b"{}")
        await client.type(b"\x03")
        await client.closed()
        assert b"EXIT_CODE: -1" in [one.payload for one in client.frames]


async def test_the_command_reads_end_of_file(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", DOCUMENT, command="cat", separateOutputStream="true") as client:
        await client.closed()
        assert b"EXIT_CODE: 0" in [one.payload for one in client.frames]


async def test_a_pause_destroys_the_remaining_output(simulator: MakeSimulator, tmp_path: Path) -> None:
    """What makes long commands unsafe without care: a lost link costs output, not only time."""
    sim = await simulator()
    go = tmp_path / "go"
    rest = "head -c 3000 /dev/zero; echo 8"  # more than one read takes: the one in hand still comes
    text = f"sh -c 'echo 1; until test -e {go}; do sleep 0.02; done; {rest}'"
    async with connected(sim, "api", DOCUMENT, command=text, separateOutputStream="true") as client:
        await client.until(lambda c: b"1\n" in c.output)
        session = sim.gateway.sessions[client.session]
        pause = next(one for one in client.frames if one.type == frame.START_PUBLICATION)
        await client.resize(80, 24)  # behind our acknowledgement, which would end the pause
        assert session.agent is not None
        await session.agent.deliver(
            frame.encode(frame.PAUSE_PUBLICATION, 0, pause.payload, 0, 3, b"\0" * 16, 1)
        )
        go.touch()
        await client.until(lambda c: c.closed_text is not None)
        assert b"8\n" not in client.output


async def test_prefixes_mark_the_lines_of_each_stream(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(
        sim, "api", DOCUMENT, command="sh -c 'echo a; echo b >&2'",
        separateOutputStream="true", stdOutSeparatorPrefix="out:", stdErrSeparatorPrefix="err:",
    ) as client:  # fmt: skip
        await client.closed()
        assert (bytes(client.output), bytes(client.errors)) == (b"out:a\n", b"err:b\n")


async def test_an_old_client_is_told_to_update(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(
        sim, "api", DOCUMENT, version="1.2.295", command="true", separateOutputStream="true"
    ) as client:
        await client.closed()
        complete = next(f for f in client.frames if f.payload_type == PayloadType.HANDSHAKE_COMPLETE)
        assert b"Please update session manager plugin" in complete.payload

"""Shells and interactive commands behave like the real agent's, down to its oddities."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.simulator.agent.shell import Utf8Filter
from devboxd.ssm import frame
from devboxd.ssm.payload import PayloadType
from tests.kit.sim import MakeSimulator
from tests.simulator.client import call, connected, shell


async def test_a_shell_tells_the_story_of_the_recording(simulator: MakeSimulator) -> None:
    """No handshake, first output with SYN, no exit status, channel_closed at the end: as recorded."""
    sim = await simulator()
    async with shell(sim, "api") as client:
        first = next(one for one in client.frames if one.type == frame.OUTPUT)
        assert (first.sequence, first.flags, first.payload_type) == (0, frame.SYN, PayloadType.OUTPUT)
        await client.resize(80, 24)
        await client.type("stty size; echo sum-$((40+2)); pwd\n")
        await client.until(
            lambda c: b"sum-42\r\n" in c.output and str(sim.box("api").disk).encode() in c.output
        )
        assert b"24 80\r\n" in client.output
        await client.resize(132, 50)
        await client.type("stty size\n")
        await client.until(lambda c: b"50 132\r\n" in c.output)
        await client.type("exit 3\n")
        assert await client.closed() == ""
        story = [line.split()[0] for line in client.story()]
        assert story[:2] in (["pause_publication", "start_publication"], ["start_publication", "OUTPUT"])
        assert story[-1] == "channel_closed"
        assert set(story[2:-1]) == {"OUTPUT"}
        closed = client.frames[-1]
        assert (closed.type, closed.flags, closed.sequence) == ("channel_closed", 3, 0)


async def test_the_environment_is_the_real_one(simulator: MakeSimulator) -> None:
    sim = await simulator()
    text = 'echo "[$TERM|$USER|$LOGNAME|$XDG_RUNTIME_DIR]"; echo "home=$HOME"; pwd; stty size'
    async with connected(sim, "api", "AWS-StartInteractiveCommand", command=text) as client:
        assert await client.closed() == ""
        disk = sim.box("api").disk
        assert client.output.decode() == f"[xterm-256color|||]\r\nhome={disk}\r\n{disk}\r\n0 0\r\n"


async def test_ctrl_c_reaches_the_foreground_program(simulator: MakeSimulator) -> None:
    """The shell owns its terminal: job control and signals work."""
    sim = await simulator()
    async with shell(sim, "api") as client:
        await client.type("sh -c 'echo s\\tarted; exec sleep 30'\n")
        await client.until(lambda c: b"started" in c.output)
        await client.type(b"\x03")
        await client.type("echo alive-$?\n")
        await client.until(lambda c: b"alive-130" in c.output)


async def test_early_size_is_applied_before_the_first_output(simulator: MakeSimulator) -> None:
    sim = await simulator(first_read_delay=0.02)
    text = 'while [ "$(stty size)" = "0 0" ]; do sleep 0.01; done; stty size'
    async with connected(sim, "api", "AWS-StartInteractiveCommand", command=text) as client:
        await client.resize(100, 30)
        assert not client.output
        await client.closed()
        assert client.output == b"30 100\r\n"


async def test_a_program_that_does_not_read_blocks_everything(simulator: MakeSimulator) -> None:
    """Acknowledgements stop after some 20 KiB, and nothing else is processed: the only back-pressure there is."""
    sim = await simulator()
    text = "stty raw -echo; echo go; sleep 0.4; head -c 65536 | wc -c"
    async with connected(sim, "api", "AWS-StartInteractiveCommand", command=text) as client:
        await client.until(lambda c: b"go" in c.output)
        numbers = [await client.send(PayloadType.OUTPUT, b"x" * 1024) for _ in range(64)]
        await asyncio.sleep(0.1)
        taken = len(client.acknowledged & set(numbers))
        assert 2 <= taken < 40
        await client.until(lambda c: c.acknowledged >= set(numbers))
        await client.until(lambda c: b"65536" in c.output)


async def test_terminating_kills_the_direct_child_only(simulator: MakeSimulator) -> None:
    """A daemonized multiplexer survives its session; the box's end takes it along (checked by the fixture)."""
    sim = await simulator()
    async with shell(sim, "api") as client:
        await client.type(
            "(setsid sh -c 'sleep 0.1; echo yes >survived; sleep 60' >/dev/null 2>&1 &) ; echo ok\n"
        )
        await client.until(lambda c: b"\nok" in c.output)
        assert await call(sim, "TerminateSession", SessionId=client.session) == {"SessionId": client.session}
        assert await client.closed() == ""
    survivor = sim.box("api").disk / "survived"
    async with asyncio.timeout(5):
        while not survivor.exists():
            await asyncio.sleep(0.01)


async def test_two_terminals_do_not_share_anything(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with shell(sim, "api") as one, shell(sim, "web") as two:
        await one.type("X=1; echo one-$X\n")
        await two.type("echo two-$X-\n")
        await one.until(lambda c: b"one-1\r\n" in c.output)
        await two.until(lambda c: b"two--\r\n" in c.output)


@pytest.mark.parametrize(
    ("chunks", "passed"),
    [
        ([b"plain"], b"plain"),
        (["grün-€".encode()], "grün-€".encode()),
        (["€".encode()[:2], "€".encode()[2:]], "€".encode()),
        ([b"\xff\xfe\xfd\xfcabcd"], b"\xff\xfe\xfd\xfcabcd"),
        (["\ufffd rest".encode()], b"\xef rest"),
        ([b"abc\xff"], b"abc"),  # an invalid tail is never delivered
        ([b"\xff", b"abcd"], b"\xffabcd"),
    ],
)
def test_terminal_output_is_filtered_like_the_agent_does(chunks: list[bytes], passed: bytes) -> None:
    text = Utf8Filter()
    assert b"".join(text.feed(chunk) for chunk in chunks) == passed


@given(text=st.text(st.characters(exclude_characters="\ufffd", codec="utf-8")), cut=st.integers(0, 50))
def test_valid_text_passes_however_it_is_cut(text: str, cut: int) -> None:
    data = text.encode()
    text_filter = Utf8Filter()
    assert text_filter.feed(data[:cut]) + text_filter.feed(data[cut:]) == data

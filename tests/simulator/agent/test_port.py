"""Port sessions: smux, refused targets, no half-close, the basic mode, remote hosts, old clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from devboxd.ssm.payload import Flag, PayloadType, flag
from tests.kit.sim import MakeSimulator
from tests.simulator.client import Client, connected, smux

FORWARD = "AWS-StartPortForwardingSession"
REMOTE = "AWS-StartPortForwardingSessionToRemoteHost"
SSH = "AWS-StartSSHSession"
SYN, FIN, PSH, NOP = range(4)
HANDSHAKE = ["HANDSHAKE_REQUEST 0", "HANDSHAKE_COMPLETE 1"]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def target(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """A TCP server on loopback."""
    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handler(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            if task is not None:
                task.cancel()


async def ready(client: Client) -> None:
    await client.until(lambda c: "HANDSHAKE_COMPLETE 1" in c.log)


async def test_a_stream_echoes_and_the_flag_ends_the_session(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", FORWARD, portNumber="7", localPortNumber="0") as client:
        await ready(client)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"hello\n"))
        await client.until(lambda c: c.output == smux(PSH, 3, b"hello\n"))
        await client.type(smux(FIN, 3))
        await client.until(lambda c: c.output.endswith(smux(FIN, 3)))
        number = client.sequence
        await client.send_until_taken(PayloadType.FLAG, flag(Flag.TERMINATE_SESSION))
        assert number in client.acknowledged
        assert await client.closed() == ""
        story = [line for line in client.story() if "publication" not in line]
        assert story[:2] == HANDSHAKE


async def test_many_streams_at_once_frames_cut_anywhere(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", FORWARD, portNumber="7") as client:
        await ready(client)
        data = b"".join(smux(SYN, n) + smux(PSH, n, b"%d" % n * 50) for n in range(3, 23, 2))
        for start in range(0, len(data), 7):
            await client.send(PayloadType.OUTPUT, data[start : start + 7])
        await client.until(lambda c: all(smux(PSH, n, b"%d" % n * 50) in c.output for n in range(3, 23, 2)))


async def test_a_refused_target_is_a_flag_and_a_fin(simulator: MakeSimulator) -> None:
    """As recorded; and the session goes on."""
    sim = await simulator()
    async with connected(sim, "api", FORWARD, portNumber=str(free_port())) as client:
        await ready(client)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"hello\n"))
        await client.until(lambda c: c.output == smux(FIN, 3))
        story = [line for line in client.story() if "publication" not in line]
        assert story == [*HANDSHAKE, "FLAG 2", "OUTPUT 3"]
        assert flag(Flag.CONNECT_TO_PORT_ERROR) in [one.payload for one in client.frames]
        await client.type(smux(SYN, 5))
        await client.until(lambda c: c.output.endswith(smux(FIN, 5)))


async def test_there_is_no_half_close(simulator: MakeSimulator) -> None:
    """A FIN closes the target's socket completely: the answer that is still being made is lost."""

    async def answer_after_eof(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.sleep(0.02)
        writer.write(b"answer")
        await writer.drain()

    sim = await simulator()
    async with (
        target(answer_after_eof) as port,
        connected(sim, "api", FORWARD, portNumber=str(port)) as client,
    ):
        await ready(client)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"question") + smux(FIN, 3))
        await client.until(lambda c: smux(FIN, 3) in c.output)
        await asyncio.sleep(0.05)
        assert client.output == smux(FIN, 3)


@pytest.mark.parametrize("junk", [b"\x02\x00\x00\x00\x03\x00\x00\x00", b"\x01\x09\x00\x00\x03\x00\x00\x00"])
async def test_a_protocol_error_kills_the_session(simulator: MakeSimulator, junk: bytes) -> None:
    sim = await simulator()
    async with connected(sim, "api", FORWARD, portNumber="7") as client:
        await ready(client)
        await client.send(PayloadType.OUTPUT, junk)
        assert await client.closed() == ""


async def test_odd_but_legal_frames_are_ignored(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", FORWARD, portNumber="7") as client:
        await ready(client)
        odd = smux(NOP, 0) + smux(PSH, 99, b"nobody") + smux(FIN, 99) + smux(SYN, 3) + smux(SYN, 3)
        await client.type(odd + smux(PSH, 3, b"") + b"\x01\x04\x08\x00\x03\x00\x00\x00" + b"\0" * 8)
        await client.type(smux(PSH, 3, b"still here"))
        await client.until(lambda c: c.output == smux(PSH, 3, b"still here"))


async def test_an_old_client_gets_nops_and_is_dropped_when_silent(simulator: MakeSimulator) -> None:
    """The 30-second death of clients that report 1.2.331.0 or less, here in milliseconds."""
    sim = await simulator(mux_keepalive=0.02)
    async with connected(sim, "api", FORWARD, version="1.2.0.0", portNumber="7") as client:
        assert await client.closed() == ""
        assert client.output.startswith(smux(NOP, 0) * 2)
    async with connected(sim, "api", FORWARD, version="1.2.331.1", portNumber="7") as client:
        await ready(client)
        await asyncio.sleep(0.1)
        assert not client.output
        assert client.closed_text is None


async def test_one_stalled_target_stalls_all_of_them(simulator: MakeSimulator) -> None:
    """smux 1 has one budget of 4 MiB for all streams: nothing more is acknowledged once it is used up."""
    gate = asyncio.Event()

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        while await reader.read(1 << 16):
            pass

    sim = await simulator()
    async with target(stall) as port, connected(sim, "api", FORWARD, portNumber=str(port)) as client:
        await ready(client)
        await client.type(smux(SYN, 3))
        block = smux(PSH, 3, b"x" * 32760)
        numbers = [await client.send(PayloadType.OUTPUT, block * 8) for _ in range(64)]
        await asyncio.sleep(0.2)
        assert numbers[-1] not in client.acknowledged
        gate.set()
        await client.until(lambda c: numbers[-1] in c.acknowledged)


async def test_ssh_is_plain_bytes_and_ends_with_its_target(simulator: MakeSimulator) -> None:
    async def sshd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-test\r\n")
        writer.write(bytes(await reader.readexactly(256))[::-1])
        await writer.drain()

    sim = await simulator()
    async with target(sshd) as port:
        sim.map_port("api", 22, port)
        async with connected(sim, "api", SSH) as client:
            await ready(client)
            await client.until(lambda c: c.output == b"SSH-2.0-test\r\n")
            data = bytes(range(256))
            await client.type(data)
            assert await client.closed() == ""
            assert client.output == b"SSH-2.0-test\r\n" + data[::-1]
            request = client.frames[[f.payload_type for f in client.frames].index(5)]
            assert b'"Properties":{"portNumber":"22"}' in request.payload


async def test_a_refused_ssh_port_is_silence_and_then_a_crash_notice(simulator: MakeSimulator) -> None:
    """The real worker panics; nothing is acknowledged, and the reason comes up to a minute later."""
    sim = await simulator()
    async with connected(sim, "api", SSH, portNumber=str(free_port())) as client:
        await ready(client)
        await client.send(PayloadType.OUTPUT, b"SSH-2.0-client\r\n")
        assert "document process failed unexpectedly" in await client.closed()
        assert 1 not in client.acknowledged


async def test_an_ancient_client_gets_one_connection_that_is_dialled_again(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", FORWARD, version="0.0.1", portNumber="7") as client:
        await ready(client)
        await client.type("one")
        await client.until(lambda c: c.output == b"one")
        await client.send_until_taken(PayloadType.FLAG, flag(Flag.DISCONNECT_TO_PORT))
        await client.type("two")
        await client.until(lambda c: c.output == b"onetwo")
        await client.send_until_taken(PayloadType.FLAG, flag(Flag.TERMINATE_SESSION))
        assert await client.closed() == ""


async def test_the_metadata_service_is_forbidden(simulator: MakeSimulator) -> None:
    sim = await simulator()
    async with connected(sim, "api", REMOTE, host="169.254.169.254", portNumber="80") as client:
        text = await client.closed()
        assert text == (
            "Your session has been terminated for the following reasons: "
            "Forwarding to IP address 169.254.169.254 is forbidden."
        )
        story = [line for line in client.story() if "publication" not in line]
        assert story == [*HANDSHAKE, "channel_closed"]


async def test_a_remote_host_is_resolved_on_the_box(simulator: MakeSimulator) -> None:
    sim = await simulator()
    port = str(sim.machines.agents[sim.box("api").id].ports[7])
    async with connected(sim, "web", REMOTE, host="127.0.0.1", portNumber=port) as client:
        await ready(client)
        await client.type(smux(SYN, 3) + smux(PSH, 3, b"hi"))
        await client.until(lambda c: c.output == smux(PSH, 3, b"hi"))
    async with connected(sim, "web", REMOTE, host="no-such-host.invalid", portNumber="80") as client:
        await ready(client)
        await client.type(smux(SYN, 3))
        await client.until(lambda c: smux(FIN, 3) in c.output)

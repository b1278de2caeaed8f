"""The websocket link against peers that behave, and peers that do not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from devboxd.errors import LinkLost, LinkRefused
from devboxd.net.dial import DialSettings
from devboxd.net.link import CertificateUntrusted, Dialer, ProxyRefused
from tests.net.authority import Authority, make_authority
from tests.net.loopback import connect_proxy, echo, gateway, reset


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def dialer(authority: Authority) -> AsyncIterator[Dialer]:
    dialer = Dialer(DialSettings(ca_bundle=str(authority.bundle)))
    yield dialer
    await dialer.close()


async def test_messages_travel_both_ways_as_they_are(dialer: Dialer, authority: Authority) -> None:
    async with gateway(echo, tls=authority.server) as there, await dialer.dial(there.url) as link:
        await link.send_text('{"TokenValue":"t"}')
        assert await link.receive() == '{"TokenValue":"t"}'
        for data in (b"", b"\x00\xff", b"x" * 1140, b"y" * 100_000, b"z" * 1_000_000):
            await link.send(data)
            assert await link.receive() == data
        assert link.peer.startswith("127.0.0.1:")


async def test_frames_of_one_tick_keep_their_order_and_all_arrive(dialer: Dialer) -> None:
    """They are written together: none may be lost, whatever the sizes."""
    sizes = [1, 1140, 70_000, 3, 65_536, 0, 125, 126, 65_535, 1140] * 20
    async with gateway(echo) as there, await dialer.dial(there.url) as link:

        async def send_all() -> None:
            for number, size in enumerate(sizes):
                await link.send(number.to_bytes(2) + bytes(size))

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(send_all())
            for number, size in enumerate(sizes):
                received = await link.receive()
                assert received == number.to_bytes(2) + bytes(size)


async def test_a_sender_waits_when_the_peer_does_not_read(dialer: Dialer) -> None:
    """Or a stalled network would fill this machine's memory."""
    release = asyncio.Event()

    async def stall(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        await release.wait()

    async with gateway(stall) as there:
        link = await dialer.dial(there.url)
        sent = 0

        async def flood() -> None:
            nonlocal sent
            while True:
                await link.send(bytes(65536))
                sent += 65536

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 0.2)
        assert sent < 32 << 20
        link.abort()
        release.set()


async def test_the_url_is_sent_as_it_was_given(dialer: Dialer) -> None:
    """cell-number is base64: re-encoded, the gateway would not know it."""
    query = "?role=publish_subscribe&cell-number=AA+b/c%2Bd=="
    async with gateway(echo) as there, await dialer.dial(there.url + query):
        assert there.requests[0].raw_path == "/v1/data-channel/s-1" + query


async def test_headers_reach_the_upgrade_and_nothing_else_is_added(dialer: Dialer) -> None:
    async with gateway(echo) as there:
        async with await dialer.dial(there.url, headers={"Authorization": "AWS4-HMAC-SHA256 x"}):
            pass
        sent = {name.lower() for name in there.requests[0].headers}
        assert there.requests[0].headers["Authorization"] == "AWS4-HMAC-SHA256 x"
        assert not sent & {"origin", "sec-websocket-protocol", "sec-websocket-extensions", "cookie"}


@pytest.mark.parametrize(("code", "said"), [(1000, b"Bye"), (1011, b""), (1008, b"policy")])
async def test_every_close_code_is_a_lost_link(dialer: Dialer, code: int, said: bytes) -> None:
    """1000 "Bye" comes every hour and does not end a session."""

    async def close(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        await upgraded.send_bytes(b"last words")
        await upgraded.close(code=code, message=said)

    async with gateway(close) as there, await dialer.dial(there.url) as link:
        assert await link.receive() == b"last words"
        with pytest.raises(LinkLost) as lost:
            await link.receive()
        assert lost.value.close_code == code
        assert said.decode() in str(lost.value)
        with pytest.raises(LinkLost):
            await link.send(b"too late")
        with pytest.raises(LinkLost):
            await link.receive()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_reset_is_a_lost_link(dialer: Dialer, authority: Authority, tls: bool) -> None:
    async def break_it(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        reset(request)

    async with gateway(break_it, tls=authority.server if tls else None) as there:
        link = await dialer.dial(there.url)
        with pytest.raises(LinkLost) as lost:
            await link.receive()
        assert lost.value.close_code == 1006
        assert lost.value.retryable
        with pytest.raises(LinkLost):
            await link.send(b"x")
        await link.close()


async def test_an_end_without_a_close_frame_is_a_lost_link(dialer: Dialer) -> None:
    async def hang_up(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        assert request.transport is not None
        request.transport.close()

    async with gateway(hang_up) as there, await dialer.dial(there.url) as link:
        with pytest.raises(LinkLost):
            await link.receive()


async def test_a_message_beyond_the_limit_ends_the_link_not_the_memory(dialer: Dialer) -> None:
    async def flood(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        await upgraded.send_bytes(bytes(5 << 20))
        await upgraded.receive()

    async with gateway(flood) as there, await dialer.dial(there.url) as link:
        with pytest.raises(LinkLost, match="protocol"):
            await link.receive()


@contextlib.asynccontextmanager
async def frozen_gateway() -> AsyncIterator[str]:
    """A peer that answers the upgrade and then never reads or writes again."""
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(line.split(": ")[1] for line in head.split("\r\n") if line.startswith("Sec-WebSocket-Key"))
        accept = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
        )
        await stop.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        stop.set()
        server.close()
        await asyncio.sleep(0)


async def test_a_silent_peer_is_found_by_the_heartbeat(dialer: Dialer) -> None:
    """A NAT that forgot us, a cable that was pulled: nothing arrives, no error either."""
    loop = asyncio.get_running_loop()
    async with frozen_gateway() as url:
        link = await dialer.dial(url, heartbeat=0.1)
        since = loop.time()
        with pytest.raises(LinkLost, match="does not answer") as lost:
            async with asyncio.timeout(5):
                await link.receive()
        assert loop.time() - since < 1.0
        assert lost.value.close_code == 1006
        await link.close()


async def test_a_silent_peer_is_found_while_nobody_receives(dialer: Dialer) -> None:
    """The reader may just be busy when the deadline passes: its next call must tell."""
    async with frozen_gateway() as url:
        link = await dialer.dial(url, heartbeat=0.02)
        await asyncio.sleep(0.05)
        with pytest.raises(LinkLost, match="does not answer"):
            async with asyncio.timeout(5):
                await link.receive()
        await link.close()


async def test_a_quiet_peer_that_answers_pings_stays(dialer: Dialer) -> None:
    async with gateway(echo) as there, await dialer.dial(there.url, heartbeat=0.3) as link:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.8):
                await link.receive()
        assert not link.closed


async def test_pings_of_the_gateway_are_answered(dialer: Dialer) -> None:
    """The service drops a client that does not."""
    answered = asyncio.Event()

    async def ping(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        await upgraded.ping(b"keepalive")
        message = await upgraded.receive()
        assert message.data == b"keepalive"
        answered.set()

    async def serve(request: web.Request, upgraded: web.WebSocketResponse) -> None:
        upgraded._autoping = False  # so that the pong is seen
        await ping(request, upgraded)

    async with gateway(serve) as there, await dialer.dial(there.url) as link:
        with pytest.raises(LinkLost):
            await link.receive()
        assert answered.is_set()


async def test_closing_takes_no_longer_than_the_peer_deserves(dialer: Dialer) -> None:
    loop = asyncio.get_running_loop()
    async with frozen_gateway() as url:
        link = await dialer.dial(url)
        since = loop.time()
        await link.close()
        assert loop.time() - since < 2.0
        with pytest.raises(LinkLost):
            await link.send(b"x")


async def test_close_ends_a_receive_that_waits(dialer: Dialer) -> None:
    async with gateway(echo) as there:
        link = await dialer.dial(there.url)

        async def wait() -> None:
            with pytest.raises(LinkLost):
                await link.receive()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait())
            await asyncio.sleep(0)
            await link.close()


async def test_abort_ends_a_receive_that_waits(dialer: Dialer, authority: Authority) -> None:
    async with gateway(echo, tls=authority.server) as there:
        link = await dialer.dial(there.url)

        async def wait() -> None:
            with pytest.raises(LinkLost):
                await link.receive()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait())
            await asyncio.sleep(0)
            link.abort()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 503])
async def test_a_refused_upgrade_tells_its_status(dialer: Dialer, status: int) -> None:
    async with gateway(echo, refuse=status) as there:
        with pytest.raises(LinkRefused) as refused:
            await dialer.dial(there.url)
        assert refused.value.status == status


async def test_a_redirect_is_refused_and_not_followed(dialer: Dialer) -> None:
    """It would carry the signature, and then the token, to somebody else."""
    async with gateway(echo) as elsewhere:
        location = elsewhere.url.replace("ws:", "http:")
        async with gateway(echo, refuse=302, Location=location) as there:
            with pytest.raises(LinkRefused) as refused:
                await dialer.dial(there.url)
        assert refused.value.status == 302
        assert not elsewhere.requests


async def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    dialer: Dialer, authority: Authority, tmp_path: Path
) -> None:
    stranger = make_authority(tmp_path, "stranger")
    async with gateway(echo, tls=stranger.server) as there:
        with pytest.raises(CertificateUntrusted) as untrusted:
            await dialer.dial(there.url)
        assert "AWS_CA_BUNDLE" in (untrusted.value.hint or "")
        async with await dialer.dial(there.url, ca_bundle=str(stranger.bundle)) as link:
            await link.send(b"x")
            assert await link.receive() == b"x"
    assert not there.requests[1:]


async def test_the_system_does_not_trust_our_test_authority(authority: Authority) -> None:
    """So the tests above show that the bundle is what decides."""
    dialer = Dialer()
    async with gateway(echo, tls=authority.server) as there:
        with pytest.raises(CertificateUntrusted):
            await dialer.dial(there.url)
    await dialer.close()


async def test_an_unreadable_bundle_is_named(dialer: Dialer, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    with pytest.raises(CertificateUntrusted, match=r"none\.pem can not be read"):
        await dialer.dial("wss://127.0.0.1:9/", ca_bundle=missing)


async def test_all_links_share_one_tls_context(dialer: Dialer, authority: Authority) -> None:
    """Each context holds all certificates: a hundred links would hold a hundred copies."""
    async with gateway(echo, tls=authority.server) as there:
        links = [await dialer.dial(there.url) for _ in range(3)]
        assert len({id(link._socket.get_extra_info("sslcontext")) for link in links}) == 1
        assert isinstance(links[0]._socket.get_extra_info("sslcontext"), ssl.SSLContext)
        for link in links:
            link.abort()


async def test_more_links_than_the_usual_limit_can_be_open(dialer: Dialer) -> None:
    """A link holds its connection for hours: the library's default of 100 would block the 101st."""
    async with gateway(echo) as there:
        async with asyncio.timeout(20):
            links = [await dialer.dial(there.url) for _ in range(105)]
        assert len(there.requests) == 105
        for link in links:
            link.abort()


async def test_small_frames_are_not_held_back_by_the_system(dialer: Dialer) -> None:
    async with gateway(echo) as there, await dialer.dial(there.url) as link:
        raw = link._socket.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("credentials", [None, "user:p%40ss"])
async def test_a_proxy_is_used_for_wss(authority: Authority, credentials: str | None) -> None:
    async with connect_proxy("user:p@ss" if credentials else None) as proxy:
        at = f"{credentials}@" if credentials else ""
        settings = DialSettings(proxy=f"http://{at}127.0.0.1:{proxy.port}", ca_bundle=str(authority.bundle))
        dialer = Dialer(settings)
        async with gateway(echo, tls=authority.server) as there, await dialer.dial(there.url) as link:
            await link.send(b"through")
            assert await link.receive() == b"through"
            assert proxy.asked == [there.url.split("/")[2]]
        await dialer.close()


async def test_a_proxy_that_wants_a_password_says_so(authority: Authority) -> None:
    async with connect_proxy("user:secret") as proxy:
        dialer = Dialer(
            DialSettings(proxy=f"http://user:wrong@127.0.0.1:{proxy.port}", ca_bundle=str(authority.bundle))
        )
        async with gateway(echo, tls=authority.server) as there:
            with pytest.raises(ProxyRefused) as refused:
                await dialer.dial(there.url)
            assert refused.value.status == 407
            assert "wrong" not in f"{refused.value!r} {refused.value.hint} {dialer.settings!r}"
            assert len(proxy.asked) == 1
            for _ in range(5):
                with pytest.raises(ProxyRefused, match="407"):
                    await dialer.dial(there.url)
            assert len(proxy.asked) == 1, "a wrong password that is shown again and again locks an account"
            dialer.network_changed()
            results = await asyncio.gather(
                *(dialer.dial(there.url) for _ in range(20)), return_exceptions=True
            )
            assert all(isinstance(one, ProxyRefused) for one in results)
            assert len(proxy.asked) == 2, "twenty links at once ask once"
        await dialer.close()


async def test_a_proxy_that_is_gone_is_named(authority: Authority) -> None:
    dialer = Dialer(DialSettings(proxy="http://127.0.0.1:1", ca_bundle=str(authority.bundle)))
    with pytest.raises(LinkLost, match="proxy"):
        await dialer.dial("wss://127.0.0.1:2/")
    await dialer.close()


async def test_hosts_of_no_proxy_are_reached_directly(authority: Authority) -> None:
    settings = DialSettings(
        proxy="http://127.0.0.1:1", no_proxy="10.0.0.0/8,127.0.0.1", ca_bundle=str(authority.bundle)
    )
    dialer = Dialer(settings)
    async with gateway(echo, tls=authority.server) as there, await dialer.dial(there.url) as link:
        await link.send(b"x")
        assert await link.receive() == b"x"
    await dialer.close()


async def test_an_open_that_takes_too_long_is_given_up(dialer: Dialer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(LinkLost, match="did not answer"):
        await dialer.dial(f"ws://127.0.0.1:{deaf.getsockname()[1]}/", timeout=0.05)


async def test_a_refused_connection_and_a_bad_address_are_lost_links(dialer: Dialer) -> None:
    with pytest.raises(LinkLost, match="refused"):
        await dialer.dial("ws://127.0.0.1:1/")
    for bad in ("", "not a url", "ftp://127.0.0.1/", "ws://"):
        with pytest.raises(LinkLost):
            await dialer.dial(bad)
    with pytest.raises(LinkLost, match="resolved"):
        await dialer.dial("ws://name.invalid/")

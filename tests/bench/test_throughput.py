"""How fast bytes pass: a forward against a bare relay, and the session against the websocket library."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from threading import Thread
from typing import Any, Final, NamedTuple

import aiohttp
import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.connect.plan import Plan, Quiet
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.errors import SessionOver
from devboxd.host.clock import Clock
from devboxd.model.config import LinkSettings
from devboxd.model.states import SessionKind
from devboxd.net.link import Dialer
from devboxd.ssm import frame
from devboxd.ssm.limits import Limits
from devboxd.ssm.payload import PayloadType
from tests.bench.kit import (
    UNLIMITED,
    Peer,
    Settled,
    connect,
    download,
    in_turns,
    processor,
    show,
    upload,
)
from tests.control.fakes import Kept
from tests.kit.tasks import beside

pytestmark = pytest.mark.bench

ROUNDS: Final = 5
SIZE: Final = 24_000_000  # bytes of one transfer
LIMITED: Final = {"upload": 100_000_000, "download": 6_000_000}  # bytes: some thousand frames each
PACED_ROUNDS: Final = 3
FRAMES: Final = 20_000
FRAME: Final = 1024  # bytes, what the real agent sends
WINDOW: Final = Limits(window_bytes=256 << 10)  # 256 frames of 1 KiB on their way, for both


@pytest.fixture(scope="module")
def target() -> Iterator[Peer]:
    """What the forwards lead to."""
    with Peer("target") as peer:
        yield peer


def test_one_stream_through_a_forward_and_through_a_bare_relay(target: Peer) -> None:
    with Peer("relay", str(target.port)) as relay, Settled() as world:
        (forward,) = world.forward(f"0:{target.port}")
        daemon = world.ensure_daemon()
        far = world.simulator_pid
        download(forward, 1_000_000)
        upload(forward, 4_000_000)  # frames grow while it lasts: warm
        used: dict[str, list[float]] = {"upload": [], "download": []}
        used_far: dict[str, list[float]] = {"upload": [], "download": []}

        def measured(name: str, move: Callable[[Any, int], float]) -> float:
            with processor(daemon, used[name]), processor(far, used_far[name]):
                return move(forward, SIZE)

        rates = in_turns(
            ROUNDS,
            {
                "upload": lambda: measured("upload", upload),
                "upload, relay": lambda: upload(relay.port, SIZE),
                "download": lambda: measured("download", download),
                "download, relay": lambda: download(relay.port, SIZE),
            },
        )
    rows = []
    for name in used:
        per_100 = 100e6 / SIZE / ROUNDS
        rows.append(
            [
                name,
                f"{rates[name]:.1f} MB/s",
                f"{rates[name + ', relay']:.0f} MB/s",
                f"{rates[name] / rates[name + ', relay']:.3f}",
                f"{sum(used[name]) * per_100:.2f} s",
                f"{sum(used_far[name]) * per_100:.2f} s",
            ]
        )
    show(
        "one stream through a forward (simulator, no pacing) / bare asyncio relay",
        ["", "forward", "relay", "ratio", "daemon CPU/100 MB", "simulator CPU/100 MB"],
        rows,
    )


def test_one_stream_with_the_default_limit_of_frames(target: Peer) -> None:
    with Settled() as free, Settled("") as careful:
        forwards = {
            name: world.forward(f"0:{target.port}")[0] for name, world in (("0", free), ("900", careful))
        }
        for forward in forwards.values():
            upload(forward, 4_000_000)

        def measured(word: str, limit: str) -> float:
            time.sleep(1.0)  # what is left of the last transfer's acknowledgements, and a fresh allowance
            move = {"upload": upload, "download": download}[word]
            return move(forwards[limit], LIMITED[word])

        rates = in_turns(
            3,
            {
                f"{word} {limit}": lambda word=word, limit=limit: measured(word, limit)  # type: ignore[misc]
                for word in LIMITED
                for limit in forwards
            },
        )
    show(
        "one stream with link.frames_per_second = 900 (the default) / without a limit",
        ["", "900/s", "no limit", "ratio"],
        [
            [
                word,
                f"{rates[word + ' 900']:.1f} MB/s",
                f"{rates[word + ' 0']:.1f} MB/s",
                f"{rates[word + ' 900'] / rates[word + ' 0']:.2f}",
            ]
            for word in LIMITED
        ],
    )


# Frames -------------------------------------------------------------------------------------------------


class Grant(NamedTuple):
    """The right to a link to the gateway peer."""

    session_id: str
    token: str
    stream_url: str


class Api:
    """Grants the one session that the gateway peer knows."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def start(self, *words: object, reason: str) -> Grant:
        return Grant("bench-0123456789abcdef0", "token", self._url)

    async def sign_upgrade(self, url: str) -> Mapping[str, str]:
        return {}

    async def resume(self, session_id: str) -> Grant:
        """The peer closes the link when it has counted, and where that took long we would come back."""
        raise SessionOver("counted")

    async def terminate(self, session_id: str) -> None:
        """Nothing to end."""

    def ca_bundle(self) -> None:
        """The system's."""


@asynccontextmanager
async def held(url: str) -> AsyncIterator[HeldSession]:
    """A session of ours to the gateway peer, ready."""
    dialer = Dialer()
    api: Any = Api(url)
    plan = Plan(target="i-0123456789abcdef0", box="bench", kind=SessionKind.SHELL, limits=WINDOW)
    settings = LinkSettings(frames_per_second=0, heartbeat=60)
    sessions = Sessions(Shared.of(Clock()), lambda account: api, dialer, Kept(), owner="bench")
    session = sessions.open(plan, Quiet(), settings)
    running = beside(sessions.hold(session))
    try:
        await session.wait_ready()
        yield session
    finally:
        await session.stop()
        await running
        await dialer.close()


async def rate(port: int) -> float:
    """What the gateway peer measured last, in frames a second."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/last") as reply:
        return float(await reply.json())


async def session_down(port: int) -> float:
    """The far end sends, we check, deliver and acknowledge."""
    async with held(f"ws://127.0.0.1:{port}/down?count={FRAMES}&size={FRAME}"):
        return await rate(port)


async def session_up(port: int) -> float:
    """We send, the far end acknowledges."""
    async with held(f"ws://127.0.0.1:{port}/up?count={FRAMES}") as session:
        data = bytes(FRAME * 32)
        for _ in range(FRAMES // 32):
            await session.send(data)
        return await rate(port)


async def library_down(port: int) -> float:
    """The library receives and sends back as many bytes as an acknowledgement has; nothing else."""
    answer = frame.encode_acknowledge(1, bytes(16), bytes(16), 1)
    url = f"http://127.0.0.1:{port}/down?count={FRAMES}&size={FRAME}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_str("{}")
        for _ in range(FRAMES + 1):
            await socket.receive()
            await socket.send_bytes(answer)
        return await rate(port)


async def floor_down(port: int) -> float:
    """The same with what the protocol demands of every client: check the digest, build the answer."""
    url = f"http://127.0.0.1:{port}/down?count={FRAMES}&size={FRAME}"
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_str("{}")
        for _ in range(FRAMES + 1):
            _, sequence, _, _, _, identity, _ = frame.unpack((await socket.receive()).data)
            await socket.send_bytes(frame.encode_acknowledge(sequence, identity, bytes(16), 1))
        return await rate(port)


async def library_up(port: int) -> float:
    """The library sends frames that were made before, with as many on their way as our window allows."""
    data = bytes(FRAME)
    frames = [
        frame.encode(frame.INPUT, number, data, PayloadType.OUTPUT, 0, bytes(16), 1)
        for number in range(FRAMES)
    ]
    url = f"http://127.0.0.1:{port}/up?count={FRAMES}"
    window = asyncio.Semaphore(WINDOW.window_frames)
    async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
        await socket.send_str("{}")
        await socket.receive()
        await socket.send_bytes(frames[0])

        async def take() -> None:
            for _ in range(FRAMES):
                await socket.receive()
                window.release()

        taking = beside(take())
        for one in frames:
            await window.acquire()
            await socket.send_bytes(one)
        await taking
        return await rate(port)


def test_frames_of_a_session_and_of_the_websocket_library_alone() -> None:
    with Peer("gateway") as peer:
        rates = in_turns(
            ROUNDS,
            {
                name: lambda work=work: asyncio.run(work(peer.port))  # type: ignore[misc]
                for name, work in (
                    ("received", session_down),
                    ("received, library", library_down),
                    ("received, floor", floor_down),
                    ("sent", session_up),
                    ("sent, library", library_up),
                )
            },
        )
    show(
        "1 KiB frames of a held session / the same frames with aiohttp alone (aim: ratio 0.7)",
        ["", "session", "compared with", "ratio"],
        [
            [title, f"{rates[ours]:,.0f}/s", f"{rates[other]:,.0f}/s", f"{rates[ours] / rates[other]:.2f}"]
            for title, ours, other in (
                ("received / echo of as many bytes", "received", "received, library"),
                ("received / echo with digest checked, answer built", "received", "received, floor"),
                ("sent / frames made before", "sent", "sent, library"),
            )
        ],
    )


# The agent's pacing -------------------------------------------------------------------------------------


def together(addresses: list[tuple[str, int]], seconds: float, apart: float) -> float:
    """Download over all addresses at once, begun some seconds apart; returns MB/s while all are running."""
    received = [0] * len(addresses)
    running = True

    def fetch(number: int, address: tuple[str, int]) -> None:
        with connect(address) as one:
            buffer = bytearray(256 << 10)
            one.sendall(b"down %d\n" % (1 << 40))
            while running and (size := one.recv_into(buffer)):
                received[number] += size

    threads = [Thread(target=fetch, args=pair) for pair in enumerate(addresses)]
    for thread in threads:
        thread.start()
        time.sleep(apart)
    time.sleep(0.5)
    before, began = sum(received), time.perf_counter()
    time.sleep(seconds)
    rate = (sum(received) - before) / (time.perf_counter() - began) / 1e6
    running = False
    for thread in threads:
        thread.join()
    return rate


def test_parallel_downloads_from_an_agent_that_paces_itself(target: Peer) -> None:
    words = ("--set", "pacing=0.001")
    one_config = UNLIMITED + "[forward]\nmax_sessions = 1\n"
    with ExitStack() as stack:
        single = stack.enter_context(Settled(one_config, *words))
        pool = stack.enter_context(Settled(UNLIMITED, *words))
        (alone,) = single.forward(f"0:{target.port}")
        (shared,) = pool.forward(f"0:{target.port}")
        # A port that nobody has connected to yet has no session yet: one for each round.
        fresh = [
            pool.forward(f"0:{stack.enter_context(Peer('target')).port}")[0] for _ in range(PACED_ROUNDS)
        ]
        rates = in_turns(
            PACED_ROUNDS,
            {
                "one": lambda: together([alone], 1.5, 0.1),
                "four": lambda: together([alone] * 4, 1.5, 0.4),
                "pool": lambda: together([shared] * 4, 1.5, 0.4),
                "at once": lambda: together([fresh.pop()] * 4, 1.5, 0.0),
            },
        )
    rows = [
        ["1 connection, 1 session", "one"],
        ["4 connections, 1 session", "four"],
        ["4 connections, pool of 4", "pool"],
        ["the same, all begun before there was any load", "at once"],
    ]
    show(
        "download from an agent that pauses 1 ms after each KiB / one session",
        ["", "all together", "ratio"],
        [[title, f"{rates[name]:.2f} MB/s", f"{rates[name] / rates['one']:.2f}"] for title, name in rows],
    )

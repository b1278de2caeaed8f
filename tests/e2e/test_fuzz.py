"""Whatever is sent to the control socket, the daemon answers it or hangs up, and goes on. The seed is printed.

Not one request may end in "the daemon failed at this request": that is a bug by another name. A traceback in
the daemon's log is one, too, whoever saw an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
import pytest

from devboxd.api import routes, wire
from tests.e2e.kit import World
from tests.kit.requests import Attempt, Requests

WORKERS: Final = 16  # connections at a time
ANSWER: Final = 20.0  # seconds for an answer to a whole request
LEAVES: Final = 0.3  # seconds after which we leave a request that takes its time
HANGS_UP: Final = 0.05  # seconds that we wait on a request that we did not finish
TAKES_TIME: Final = (
    routes.PING, routes.DOCTOR, routes.DOCTOR_BOX, routes.SSH, routes.PROXY, routes.LOGIN,
    routes.PEEK, routes.SAY, routes.SET_UP_AGENTS, routes.SHOW_AGENTS,
)  # fmt: skip
SLOW: Final = 3.0  # seconds; what takes longer is printed
LISTENS: Final = 0.02  # seconds that a stream is listened to before we leave

Answers = Counter[str]


@pytest.fixture(scope="module")
def own_world() -> Iterator[World]:
    """A world of our own: others would find strange forwards in it."""
    with World(env={"DEVBOX_LOG": "warning"}) as world:
        yield world


def test_no_request_makes_the_daemon_fail(own_world: World) -> None:
    """A fixed seed: what fails here fails again."""
    run(own_world, seed=20, count=4000)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_no_request_of_twenty_thousand_makes_the_daemon_fail(own_world: World) -> None:
    """Another seed each time; DEVBOX_SEED repeats one."""
    run(own_world, seed=int(os.environ.get("DEVBOX_SEED") or random.randrange(2**32)), count=20_000)


def run(world: World, *, seed: int, count: int) -> None:
    """Send ``count`` requests, and look at every answer and at the log."""
    print(f"seed {seed}")
    already = len(world.log)
    began = time.monotonic()
    problems, answers = asyncio.run(_all(world, seed, count))
    print(f"{count} requests in {time.monotonic() - began:.1f} s: {dict(answers.most_common())}")
    assert not problems, "\n".join([f"seed {seed}", *problems[:20], *_faults(world.log[already:])])
    assert _faults(world.log[already:]) == []
    assert world.json("status")["pid"] == world.daemon_pid()


def _faults(log: str) -> list[str]:
    """Each kind of traceback in the log once."""
    found = {}
    for line in log.splitlines():
        if "Traceback" in line or "never retrieved" in line:
            found[re.sub(r"\d+", "N", line[-300:])] = line[-3000:]
    return list(found.values())


async def _all(world: World, seed: int, count: int) -> tuple[list[str], Answers]:
    requests = Requests(seed, [*world.boxes, *(box["id"] for box in world.boxes.values())], world.folder)
    left = iter(range(count))
    problems: list[str] = []
    answers: Answers = Counter()

    async def work() -> None:
        for _ in left:
            attempt = requests.next()
            began = time.monotonic()
            try:
                async with asyncio.timeout(ANSWER):
                    outcome = await _one(world, attempt)
            except TimeoutError:
                outcome = "no answer"
                problems.append(f"no answer within {ANSWER} s: {attempt}")
            except OSError as error:
                outcome = type(error).__name__
                if isinstance(error, FileNotFoundError | ConnectionRefusedError):
                    problems.append(f"the daemon is gone after: {attempt}")
            if outcome.startswith("!"):
                problems.append(f"{outcome}: {attempt}")
            answers[outcome[:40]] += 1
            if time.monotonic() - began > SLOW:
                answers[f"slow: {attempt.route.path}"] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(WORKERS):
            tasks.create_task(work())
    return problems, answers


async def _one(world: World, attempt: Attempt) -> str:
    """Send one request; say how it was answered, with ``!`` in front where it may not be."""
    reader, writer = await asyncio.open_unix_connection(str(world.socket), limit=1 << 24)
    try:
        writer.write(attempt.data)
        leaves = LEAVES if attempt.route in TAKES_TIME else None
        try:
            async with asyncio.timeout(leaves if attempt.is_whole else HANGS_UP):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            return "left"
        except asyncio.IncompleteReadError as error:
            return f"! hung up ({error})" if attempt.is_http and attempt.is_whole else "hung up"
        return await _judged(attempt, head, reader, writer)
    finally:
        writer.transport.abort()


async def _judged(
    attempt: Attempt, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> str:
    status = int(head.split(b" ", 2)[1])
    if status == 100:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (
            asyncio.IncompleteReadError
        ) as error:  # as before it: only what is no whole request may go unanswered
            return f"! hung up ({error})" if attempt.is_http and attempt.is_whole else "hung up"
        status = int(head.split(b" ", 2)[1])
    if status in (101, 200):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTENS):
                writer.write(os.urandom(20) if status == 101 else b"")
                await reader.read()
        return str(status)
    if attempt.data.startswith(b"HEAD"):
        return f"{status} without a body"
    length = re.search(rb"(?i)content-length: (\d+)", head)
    data = await reader.readexactly(int(length[1])) if length else b""
    try:
        failure = msgspec.json.decode(data, type=wire.Failure)
    except msgspec.DecodeError:
        return (
            f"{status} of the library"
            if status < 500 and not attempt.is_http
            else f"! {status} {data[:200]!r}"
        )
    if failure.code == "internal" or not failure.message:
        return f"! {status} {failure}"
    return f"{status} {failure.code}"

"""What must hold whatever the network does and whatever the far end sends."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devboxd.ssm import frame
from devboxd.ssm.channel import Channel, State
from devboxd.ssm.effect import Broken, Closed, Effect
from devboxd.ssm.limits import PORT, Limits
from devboxd.ssm.payload import PayloadType
from tests.kit.farend import FarEnd, World, handshake_request
from tests.ssm.support import (
    CLIENT,
    SESSION,
    TARGET,
    delivered,
    open_channel,
    output,
    ready_shell,
    transcripts,
    vectors,
)

KEY = bytes(range(64))

FATES: st.SearchStrategy[list[float]] = st.sampled_from(
    [
        [0.01],  # arrives
        [0.01],
        [],  # is lost
        [0.01, 0.02],  # arrives twice
        [0.01, 2.0],  # and much later again
        [0.3],  # is overtaken
        [1.5],
    ]
)
Plan = list[tuple[float, str, int]]
PLANS: st.SearchStrategy[Plan] = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.005, 0.05, 0.4, 3.0]),
        st.sampled_from(["type", "print", "cut", "connect", "pause"]),
        st.integers(1, 5000),
    ),
    max_size=14,
)


def world(kind: str, fates: list[list[float]]) -> World:
    """A session of one kind, on a network that recovers when ``fates`` are used up."""
    far_end = {
        "shell": lambda: FarEnd(),
        "port": lambda: FarEnd(handshake_request("Port"), ready_after=0.15),
        "sealed": lambda: FarEnd(handshake_request("Standard_Stream", key_id="k"), data_key=KEY),
    }[kind]()
    limits = PORT if kind == "port" else Limits(window_bytes=4096)
    channel = Channel(session_id=SESSION, target=TARGET, client_id=CLIENT, limits=limits)
    left = list(fates)
    return World(channel, far_end, fate=lambda: left.pop() if left else [0.01])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kind=st.sampled_from(["shell", "port", "sealed"]), fates=st.lists(FATES, max_size=120), plan=PLANS)
def test_items_21_23_26_32_every_byte_arrives_once_and_in_order(
    kind: str, fates: list[list[float]], plan: Plan
) -> None:
    """Loss, repeats, reordering, cuts at any moment and pauses; both directions."""
    run, source = world(kind, fates), random.Random(1)
    typed, printed = bytearray(), bytearray()
    run.connect()
    for wait, what, amount in plan:
        match what:
            case "type":
                typed += (text := source.randbytes(amount))
                run.to_send += text
                run.pump()
            case "print" if run.far_end.is_complete:
                printed += (text := source.randbytes(amount))
                run.write(text)
            case "cut":
                run.cut()
            case "connect":
                run.connect()
            case "pause":
                run.far_end.paused = True
        run.run(wait)
    run.connect()
    if not run.far_end.is_complete:
        assert run.run(120.0, lambda: run.far_end.is_complete)
    printed += b"$ "
    run.write(b"$ ")
    assert run.run(600.0, lambda: len(run.output) == len(printed) and len(run.far_end.taken) == len(typed))
    assert run.output == printed
    assert run.far_end.taken == typed
    assert run.run(300.0, lambda: not run.channel.unacknowledged), "something is kept for ever"
    assert run.run(300.0, lambda: not run.far_end.unacknowledged), "something is never acknowledged"
    assert run.far_end.problems == []
    assert not run.is_over


@pytest.mark.parametrize(
    "limits", [PORT, Limits(payload=32 * 1024, window_bytes=1 << 20)], ids=["1 KiB", "32 KiB"]
)
def test_item_32_twelve_mebibytes_each_way_with_a_cut_every_few_seconds(limits: Limits) -> None:
    amount = 12 << 20
    source = random.Random(2)
    up, down = source.randbytes(amount), source.randbytes(amount)
    channel = Channel(session_id=SESSION, target=TARGET, client_id=CLIENT, limits=limits)
    run = World(channel, FarEnd(), fate=lambda: [0.01] if source.random() < 0.95 else [0.01, 0.05])
    run.connect()
    run.write(down[:1024])
    run.run(1.0)
    run.to_send += up
    run.pump()
    printed = 1024
    while printed < amount:  # the agent's own pace: a frame a millisecond
        run.write(down[printed : printed + 512 * 1024])
        printed += 512 * 1024
        run.run(0.5)
        if source.random() < 0.3:
            run.cut()
            run.run(source.random())
            run.connect()
    assert run.run(900.0, lambda: len(run.output) == amount and len(run.far_end.taken) == amount)
    assert run.output == down
    assert run.far_end.taken == up


# -- hostile input

SEEDS: list[bytes] = [bytes.fromhex(vector["wire_hex"]) for vector in vectors("messages")["vectors"]]
SEEDS += [bytes.fromhex(vector["wire_hex"]) for vector in vectors("framing_quirks")["vectors"]]


def hostile_frame(type_: str, sequence: int, payload_type: int, content: bytes) -> bytes:
    return frame.Frame(type_, sequence, content or b"?", payload_type, 0, UUID(int=1), 1).encode()


CONTENT = st.one_of(
    st.binary(max_size=80),
    st.sampled_from(
        [
            b"null",
            b"[]",
            b"{}",
            b'{"Challenge":"AAAA"}',
            b'{"AcknowledgedMessageSequenceNumber":0}',
            b'{"AcknowledgedMessageSequenceNumber":1e99}',
            b'{"AcknowledgedMessageSequenceNumber":123456789012345678901234567890}',
            b'{"RequestedClientActions":[{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"k"}}]}',
            handshake_request(),
            handshake_request("Standard_Stream", key_id="k"),
            b"EXIT_CODE: 99999999999999",
        ]
    ),
)
HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=20),
    st.sampled_from(SEEDS),
    st.builds(
        hostile_frame,
        st.sampled_from(
            [
                *[frame.OUTPUT] * 4,
                frame.ACKNOWLEDGE,
                frame.PAUSE_PUBLICATION,
                frame.START_PUBLICATION,
                frame.CHANNEL_CLOSED,
                frame.INPUT,
                "",
                "x" * 32,
            ]
        ),
        st.one_of(st.integers(-2, 8), st.integers(-(2**63), 2**63 - 1)),
        st.one_of(st.integers(0, 14), st.integers(0, 2**32 - 1)),
        CONTENT,
    ),
)


@settings(max_examples=300, deadline=None)
@given(messages=st.lists(HOSTILE, max_size=40), answers_key=st.booleans())
def test_whatever_arrives_nothing_is_raised_and_the_owner_can_go_on(
    messages: list[bytes | str], answers_key: bool
) -> None:
    channel, now = open_channel(), 0.0
    for message in messages:
        now += 0.3
        effects: list[Effect] = channel.received(message, now)
        if answers_key:
            effects += channel.data_key(KEY, b"sealed", now)
        else:
            effects += channel.data_key_failed("no", now)
        if channel.room:
            effects += channel.send(PayloadType.OUTPUT, b"x", now)
        effects += channel.send(PayloadType.SIZE, b'{"cols":80,"rows":24}', now)
        effects += channel.probe(now)
        effects += channel.tick(now)
        over = [effect for effect in effects if isinstance(effect, Closed | Broken)]
        assert bool(over) == (channel.state is State.CLOSED) or not effects
        deadline = channel.next_deadline()
        assert deadline is None or deadline > now - 1e-9


@settings(max_examples=300, deadline=None)
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_mutated_real_messages_never_raise(seed: bytes, changes: list[tuple[int, int]]) -> None:
    wire = bytearray(seed)
    for position, value in changes:
        wire[position % len(wire)] = value
    for channel in (open_channel(), ready_shell()):
        channel.received(bytes(wire), 1.0)


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.stem)
def test_recorded_sessions_in_any_order_and_damaged_never_raise(path: Any) -> None:
    source = random.Random(path.stem)
    wires = [
        bytes.fromhex(line.split('"hex":"')[1].split('"')[0])
        for line in path.read_text().splitlines()
        if '"hex"' in line
    ]
    for _ in range(5):
        channel = open_channel()
        for wire in source.sample(wires, len(wires)):
            damaged = bytearray(wire)
            if source.random() < 0.3:
                damaged[source.randrange(len(damaged))] = source.randrange(256)
            channel.received(
                bytes(damaged[: source.choice([len(damaged), source.randrange(len(damaged))])]), 1.0
            )


def test_a_far_end_that_never_sends_the_expected_frame_costs_bounded_memory() -> None:
    channel = ready_shell(Limits(early_bytes=4 << 20))
    big = bytes(256 * 1024)
    tracemalloc.start()
    try:
        for sequence in range(2, 400):
            channel.received(output(sequence, big), 1.0)
        for sequence in range(400, 30_000):
            channel.received(output(sequence, b"x"), 1.0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 12 << 20
    assert channel.drops["too far ahead"] > 20_000
    assert delivered(channel.received(output(1, b"here"), 2.0)).startswith(b"here")


def test_a_far_end_that_acknowledges_nothing_costs_bounded_memory() -> None:
    channel = ready_shell()
    for number in range(5000):
        if room := channel.room:
            channel.send(PayloadType.OUTPUT, bytes(room), number * 0.01)
        channel.send(PayloadType.SIZE, b'{"cols":%d,"rows":24}' % (number + 1), number * 0.01)
        channel.probe(number * 0.01)
        channel.tick(number * 0.01)
    assert channel.unacknowledged <= 16 + 4 + 1

"""An end of a bridge that is frozen and thawed, at any point of any talk, goes on as if nothing had been."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.model.bridge.wire import SEND_MOST
from devboxd.model.frozen import FrozenBridge, freeze, thaw
from tests.model.test_bridge import End, Talk, all_arrives, ready


def move(talk: Talk, end: End) -> None:
    """Another process goes on with this end: its lanes die there and then, and what is on them is lost."""
    end.look(talk.now)
    packed = msgspec.msgpack.encode(freeze(end.bridge))
    assert end.bridge.order() == []
    other = talk.far if end is talk.near else talk.near
    for lane in list(talk.flying):
        assert end.bridge.outgoing(lane, talk.now) == b"", "it says something after it was frozen"
        del talk.flying[lane]
        other.bridge.lane_down(lane)
    end.bridge = thaw(msgspec.msgpack.decode(packed, type=FrozenBridge))


def asked_and_answered(moves: dict[int, str]) -> int:
    """Two streams with questions and answers, a reset and a half-close; an end moves before some steps. Returns the steps."""
    talk = Talk()
    talk.lane()
    talk.lane()
    near, far = talk.near, talk.far
    a, b, c = (near.bridge.open(name) for name in (b"first", b"second", b"third"))
    near.bridge.write(a, bytes(range(256)) * 300)
    near.bridge.write(b, b"abc")
    near.bridge.finish(a)
    near.bridge.write(c, b"never mind")
    answered: set[int] = set()
    for step in range(2000):
        if (who := moves.get(step)) is not None:
            move(talk, near if who == "near" else far)
        if not talk.flying:
            talk.lane()
        said = talk.pump()
        for number in far.ended - answered:
            answered.add(number)
            far.bridge.write(number, b"reply " * 9000)
            far.bridge.finish(number)
        if step == 20:
            far.bridge.reset(c, "tired")
        if a in near.ended and b not in far.ended:
            near.bridge.finish(b)
        for lane in list(talk.flying):
            for way in (0, 1):
                if lane in talk.flying and talk.flying[lane][way]:
                    said = True
                    talk.arrive(lane, way, 9000)
        talk.now += 0.01
        if not said and step > 40 and {a, b} <= near.ended:
            break
    assert bytes(far.got[a]) == bytes(range(256)) * 300
    assert bytes(far.got[b]) == b"abc"
    assert bytes(near.got[a]) == bytes(near.got[b]) == b"reply " * 9000
    assert (near.resets, far.resets) == ({c: "tired"}, {})
    talk.settle()
    assert not near.bridge._streams.by_number
    assert not far.bridge._streams.by_number
    return step


@pytest.mark.parametrize("who", ["near", "far"])
def test_an_end_may_move_before_every_step_of_a_talk(who: str) -> None:
    whole = asked_and_answered({})
    assert whole > 40
    for step in range(whole + 1):
        asked_and_answered({step: who})


def test_both_ends_may_move_again_and_again() -> None:
    asked_and_answered({step: ("near", "far")[step // 3 % 2] for step in range(0, 120, 3)})


WHAT = st.sampled_from(
    ["open", "write", "write", "write", "finish", "reset", "lane", "cut", "move", "move", "arrive", "arrive"]
)
STEPS = st.lists(st.tuples(WHAT, st.booleans(), st.integers(0, 1 << 20)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_every_byte_arrives_once_and_in_order(steps: list[tuple[str, bool, int]]) -> None:
    talk = Talk()
    sent: dict[tuple[bool, int], bytes] = defaultdict(bytes)
    finished: set[tuple[bool, int]] = set()
    reset: set[int] = set()
    numbers: list[int] = []
    talk.lane()
    for what, is_near, size in steps:
        end = talk.near if is_near else talk.far
        number = numbers[size % len(numbers)] if numbers else None
        talk.now += (size % 7) * 0.05
        if what == "open" and len(numbers) < 8:
            numbers.append(end.bridge.open(b"%d" % size))
        elif what == "lane" and len(talk.flying) < 4:
            talk.lane()
        elif what == "cut" and talk.flying:
            talk.cut(list(talk.flying)[size % len(talk.flying)], near_first=is_near)
        elif what == "move":
            move(talk, end)
        elif number is not None and number in end.bridge.streams:
            if what == "write" and (is_near, number) not in finished:
                data = bytes((size + at) % 251 for at in range(size % 3000)) * (1 + size % 17)
                sent[is_near, number] += data[: end.bridge.write(number, data)]
            elif what == "finish":
                end.bridge.finish(number)
                finished.add((is_near, number))
            elif what == "reset" and size % 3 == 0:
                end.bridge.reset(number, "tired")
                reset.add(number)
        for one in (talk.near, talk.far):
            one.bridge.tick(talk.now)
        talk.pump()
        for lane in list(talk.flying):
            for way in (0, 1):
                talk.arrive(lane, way, (1, 1000, 50_000)[size % 3])
    all_arrives(talk, numbers, sent, finished, reset)


def test_who_waits_for_room_is_told_by_the_end_that_goes_on() -> None:
    talk = ready()
    number = talk.near.bridge.open(b"x")
    assert talk.near.bridge.write(number, bytes(SEND_MOST * 2)) < SEND_MOST * 2
    move(talk, talk.near)
    assert talk.near.bridge.unsent == SEND_MOST
    talk.lane()
    talk.settle()
    talk.near.look(talk.now)
    assert talk.near.room == [number]
    assert talk.near.bridge.unsent == 0


def test_credit_that_was_granted_stays_granted() -> None:
    """Or all streams together would hold more than the bound."""
    talk = ready()
    number = talk.far.bridge.open(b"x")
    for _ in range(60):
        talk.far.bridge.write(number, bytes(500_000))
        talk.settle(step=0.001)
    granted = talk.near.bridge._streams.granted
    assert granted > 0
    move(talk, talk.near)
    assert talk.near.bridge._streams.granted == granted


def test_what_happened_is_taken_before_an_end_is_frozen() -> None:
    talk = ready()
    talk.far.bridge.open(b"x")
    talk.pump()
    lane = talk.flying[1][1]
    talk.near.bridge.received(1, bytes(lane), talk.now)
    with pytest.raises(ValueError, match="events"):
        freeze(talk.near.bridge)

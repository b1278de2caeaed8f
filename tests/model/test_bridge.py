"""The bridge: whatever its lanes do, every byte arrives once and in order, and memory has a bound."""

from __future__ import annotations

import ast
import os
import random
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.model.bridge import wire as module
from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import (
    SEND_LEAST,
    SEND_MOST,
    SENDS_TOTAL,
    WINDOW_FIRST,
    WINDOW_MOST,
    BridgeError,
    Data,
    Ended,
    Opened,
    Room,
    WasReset,
)


@dataclass
class End:
    """One end, with an application that reads everything at once unless it is told not to."""

    bridge: Bridge
    got: dict[int, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    purposes: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    resets: dict[int, str] = field(default_factory=dict)
    room: list[int] = field(default_factory=list)
    reads: bool = True

    def look(self, now: float) -> None:
        for event in self.bridge.events():
            match event:
                case Opened(stream, purpose):
                    assert stream not in self.purposes, "opened twice"
                    self.purposes[stream] = purpose
                case Data(stream, data):
                    assert stream not in self.ended, "data after the end"
                    self.got[stream] += data
                    if self.reads:
                        self.bridge.consumed(stream, len(data), now)
                case Ended(stream):
                    assert stream not in self.ended, "ended twice"
                    self.ended.add(stream)
                case WasReset(stream, reason):
                    assert stream not in self.resets, "reset twice"
                    self.resets[stream] = reason
                case Room(stream):
                    self.room.append(stream)


@dataclass
class Talk:
    """Two ends and the lanes between them. A lane keeps order; what is on it is lost when it dies."""

    near: End = field(default_factory=lambda: End(Bridge(near=True)))
    far: End = field(default_factory=lambda: End(Bridge(near=False)))
    now: float = 100.0
    flying: dict[int, tuple[bytearray, bytearray]] = field(default_factory=dict)  # to far, to near
    opened: int = 0
    carried: int = 0

    def lane(self) -> int:
        self.opened += 1
        self.flying[self.opened] = (bytearray(), bytearray())
        self.near.bridge.lane_up(self.opened, self.now)
        self.far.bridge.lane_up(self.opened, self.now)
        return self.opened

    def cut(self, lane: int, *, near_first: bool = True) -> None:
        del self.flying[lane]
        ends = (self.near, self.far) if near_first else (self.far, self.near)
        for end in ends:
            end.bridge.lane_down(lane)

    def pump(self) -> bool:
        """Let both ends put on the lanes what they want to say."""
        said = False
        for end, way in ((self.near, 0), (self.far, 1)):
            for lane in end.bridge.order():
                while data := end.bridge.outgoing(lane, self.now):
                    said = True
                    if lane in self.flying:
                        self.flying[lane][way].extend(data)
        return said

    def arrive(self, lane: int, way: int, size: int) -> None:
        """Some bytes of a lane arrive."""
        if lane not in self.flying:
            return
        pipe = self.flying[lane][way]
        data = bytes(pipe[:size])
        del pipe[:size]
        self.carried += len(data)
        end = (self.far, self.near)[way]
        end.bridge.received(lane, data, self.now)
        end.look(self.now)

    def settle(self, *, step: float = 0.01, most: int = 20_000) -> None:
        """Until nobody has anything to say."""
        for _ in range(most):
            said = self.pump()
            for lane in list(self.flying):
                for way in (0, 1):
                    if self.flying[lane][way]:
                        said = True
                        self.arrive(lane, way, 1 << 20)
            self.now += step
            if not said:
                return
        raise AssertionError("it never settles")


def ready() -> Talk:
    talk = Talk()
    talk.lane()
    return talk


def test_a_stream_carries_both_ways_and_ends_in_halves() -> None:
    """A client that says all it has and then listens must still get its answer."""
    talk = ready()
    number = talk.near.bridge.open(b"tcp 5432")
    assert talk.near.bridge.write(number, b"question") == 8
    talk.near.bridge.finish(number)
    talk.settle()
    assert talk.far.purposes == {number: b"tcp 5432"}
    assert bytes(talk.far.got[number]) == b"question"
    assert talk.far.ended == {number}
    assert talk.near.ended == set()
    talk.far.bridge.write(number, b"the answer")
    talk.far.bridge.finish(number)
    talk.settle()
    assert bytes(talk.near.got[number]) == b"the answer"
    assert talk.near.ended == {number}
    assert talk.near.bridge.streams == talk.far.bridge.streams == []


def test_either_end_opens_streams() -> None:
    """A reverse forward and a lent ssh agent begin at the box."""
    talk = ready()
    here, there = talk.near.bridge.open(b"a"), talk.far.bridge.open(b"b")
    talk.settle()
    assert talk.far.purposes == {here: b"a"}
    assert talk.near.purposes == {there: b"b"}


def test_a_reset_carries_its_reason_and_frees_both_ends() -> None:
    """ "connection refused" is an answer; silence is not."""
    talk = ready()
    number = talk.near.bridge.open(b"tcp 1")
    talk.near.bridge.write(number, b"x" * 100_000)
    talk.settle()
    talk.far.bridge.reset(number, "connection refused")
    talk.settle()
    assert talk.near.resets == {number: "connection refused"}
    assert talk.far.resets == {}
    assert talk.near.bridge.streams == talk.far.bridge.streams == []
    assert talk.near.bridge.write(number, b"more") == 0


def test_both_ends_may_reset_at_once() -> None:
    talk = ready()
    number = talk.near.bridge.open(b"x")
    talk.settle()
    talk.near.bridge.reset(number, "here")
    talk.far.bridge.reset(number, "there")
    talk.settle()
    assert talk.near.bridge.streams == talk.far.bridge.streams == []
    assert not talk.near.bridge._streams.by_number
    assert not talk.far.bridge._streams.by_number


def recorded() -> list[int]:
    """Lengths of everything the near end and the far end put on one lane in a short talk."""
    talk = short_talk(Talk())
    return [talk.carried]


def short_talk(talk: Talk, *, dies_after: int | None = None, near_first: bool = True) -> Talk:
    """Two streams, both ways, over one lane that dies after so many bytes and is replaced."""
    lane = talk.lane()
    a, b = talk.near.bridge.open(b"first"), talk.near.bridge.open(b"second")
    talk.near.bridge.write(a, b"hello " * 20)
    talk.near.bridge.write(b, b"abc")
    talk.near.bridge.finish(a)
    answered: set[int] = set()
    died = dies_after is None
    for _ in range(4000):
        said = talk.pump()
        for number in talk.far.ended - answered:
            answered.add(number)
            talk.far.bridge.write(number, b"reply " * 30)
            talk.far.bridge.finish(number)
        if a in talk.near.ended and b not in talk.far.ended:
            talk.near.bridge.finish(b)
        for lane in list(talk.flying):
            for way in (0, 1):
                left = (1 << 20) if died else max(0, (dies_after or 0) - talk.carried)
                if talk.flying[lane][way]:
                    said = True
                    talk.arrive(lane, way, left)
                if not died and talk.carried >= (dies_after or 0):
                    died = True
                    talk.cut(lane, near_first=near_first)
                    talk.lane()
                    break
        talk.now += 0.01
        if not said and {a, b} <= talk.near.ended:
            break
    assert bytes(talk.far.got[a]) == b"hello " * 20
    assert bytes(talk.far.got[b]) == b"abc"
    assert bytes(talk.near.got[a]) == bytes(talk.near.got[b]) == b"reply " * 30
    assert talk.near.resets == talk.far.resets == {}
    talk.settle()
    assert not talk.near.bridge._streams.by_number
    assert not talk.far.bridge._streams.by_number
    return talk


@pytest.mark.parametrize("near_first", [True, False])
def test_a_lane_may_die_after_every_byte(near_first: bool) -> None:
    """The talk is the same whichever byte was the lane's last, and nothing is left over."""
    whole = short_talk(Talk()).carried
    for byte in range(whole + 1):
        short_talk(Talk(), dies_after=byte, near_first=near_first)


def all_arrives(
    talk: Talk,
    numbers: list[int],
    sent: dict[tuple[bool, int], bytes],
    finished: set[tuple[bool, int]],
    reset: set[int],
) -> None:
    """Finish what is open: every byte has arrived once and in order, and nothing is left. Ends are named by whether they are near."""
    talk.lane()
    for is_near, end in ((True, talk.near), (False, talk.far)):
        for number in list(end.bridge.streams):
            end.bridge.finish(number)
            finished.add((is_near, number))
    talk.settle()
    for number in numbers:
        for is_near, other in ((True, talk.far), (False, talk.near)):
            if number in reset or number in talk.near.resets or number in talk.far.resets:
                assert sent[is_near, number].startswith(bytes(other.got[number]))
            else:
                assert sent[is_near, number] == bytes(other.got[number])
                if (is_near, number) in finished and number in other.purposes:
                    assert number in other.ended
    # An end that was never told of a stream cannot end it: finish those, and nothing is left.
    for end in (talk.near, talk.far):
        for number in list(end.bridge.streams):
            end.bridge.finish(number)
    talk.settle()
    assert not talk.near.bridge._streams.by_number, "the near end keeps something for ever"
    assert not talk.far.bridge._streams.by_number, "the far end keeps something for ever"


@pytest.mark.parametrize("seed", range(150))
def test_every_byte_arrives_once_and_in_order(seed: int) -> None:
    """Lanes come, die, stand still and are cut anywhere; streams open, end and are reset meanwhile."""
    dice = random.Random(seed)
    talk = Talk()
    sent: dict[tuple[bool, int], bytes] = defaultdict(bytes)
    finished: set[tuple[bool, int]] = set()
    reset: set[int] = set()
    numbers: list[int] = []
    talk.lane()
    stuck: set[int] = set()
    for _ in range(400):
        talk.now += dice.random() * 0.2
        what = dice.random()
        end, is_near = (talk.near, True) if dice.random() < 0.5 else (talk.far, False)
        if what < 0.08 and len(numbers) < 12:
            numbers.append(end.bridge.open(b"%d" % len(numbers)))
        elif what < 0.35 and numbers:
            number = dice.choice(numbers)
            if number in end.bridge.streams and (is_near, number) not in finished:
                data = dice.randbytes(dice.choice((1, 100, 5000, 70_000)))
                data = data if dice.random() < 0.5 else data[:1] * len(data)
                taken = end.bridge.write(number, data)
                sent[is_near, number] += data[:taken]
        elif what < 0.4 and numbers:
            number = dice.choice(numbers)
            if number in end.bridge.streams:
                end.bridge.finish(number)
                finished.add((is_near, number))
        elif what < 0.42 and numbers:
            number = dice.choice(numbers)
            if number in end.bridge.streams:
                end.bridge.reset(number, "tired")
                reset.add(number)
        elif what < 0.47 and len(talk.flying) < 5:
            talk.lane()
        elif what < 0.51 and talk.flying:
            lane = dice.choice(list(talk.flying))
            stuck.discard(lane)
            talk.cut(lane, near_first=dice.random() < 0.5)
        elif what < 0.54 and talk.flying:
            stuck ^= {dice.choice(list(talk.flying))}
        for one in (talk.near, talk.far):
            one.bridge.tick(talk.now)
        talk.pump()
        for lane in list(talk.flying):
            if lane not in stuck:
                for way in (0, 1):
                    talk.arrive(lane, way, dice.choice((1, 7, 1000, 50_000)))
    for lane in list(talk.flying):
        if lane in stuck:
            talk.cut(lane)
    all_arrives(talk, numbers, sent, finished, reset)


def test_a_lane_that_stands_still_is_noticed_and_its_bytes_go_over_another() -> None:
    """A black hole in one session must not hold up the others."""
    talk = ready()
    number = talk.near.bridge.open(b"x")
    talk.settle()
    talk.near.bridge.write(number, b"y" * 200_000)
    talk.pump()
    dead = 1
    talk.flying[dead] = (bytearray(), bytearray())  # what it carried never arrives
    other = talk.lane()
    deadline = talk.near.bridge.next_deadline()
    assert deadline is not None
    talk.now = deadline
    assert talk.near.bridge.tick(talk.now) == [dead]
    (length,) = module.LENGTH_PREFIX.unpack_from(asked := talk.near.bridge.outgoing(dead, talk.now))
    assert (asked[4], len(asked)) == (module.PING, 4 + length), "only whether it lives"
    assert talk.near.bridge.outgoing(dead, talk.now) == b""
    for _ in range(200):
        talk.near.bridge.tick(talk.now)
        talk.pump()
        talk.arrive(other, 0, 1 << 20)
        talk.arrive(other, 1, 1 << 20)
        talk.now += 0.01
    assert len(talk.far.got[number]) == 200_000


def test_a_reader_that_never_reads_stops_its_own_stream_only() -> None:
    """And what is kept for it stays below the bound, at both ends."""
    talk = ready()
    slow, quick = talk.near.bridge.open(b"slow"), talk.near.bridge.open(b"quick")
    talk.settle()
    talk.far.reads = False
    taken = 0
    for _ in range(200):
        taken += talk.near.bridge.write(slow, b"z" * 100_000)
        talk.settle()
    assert taken <= WINDOW_FIRST + SEND_MOST
    assert len(talk.far.got[slow]) <= WINDOW_FIRST
    talk.near.bridge.write(quick, b"still here")
    talk.settle()
    assert bytes(talk.far.got[quick]) == b"still here"


def test_many_readers_that_never_read_do_not_fill_the_writers_memory() -> None:
    """All of them together hold little more than the bound, and one that reads is carried on as before."""
    talk = ready()
    numbers = [talk.near.bridge.open(b"slow") for _ in range(100)]
    talk.settle()
    talk.far.reads = False
    for _ in range(3):
        for number in numbers:
            talk.near.bridge.write(number, bytes(SEND_MOST))
        talk.settle()
    held = sum(len(one.waiting) for one in talk.near.bridge._streams.by_number.values())
    assert (
        SENDS_TOTAL <= held == talk.near.bridge.unsent <= SENDS_TOTAL + SEND_MOST + len(numbers) * SEND_LEAST
    )
    quick, said = talk.near.bridge.open(b"quick"), os.urandom(3 << 20)
    sent = talk.near.bridge.write(quick, said)
    assert sent <= SEND_LEAST
    while sent < len(said):
        talk.settle()
        assert bytes(talk.far.got[quick]) == said[:sent]
        talk.far.bridge.consumed(quick, sent - talk.far.bridge._streams.by_number[quick].read_next, talk.now)
        talk.near.look(talk.now)
        assert talk.near.room.pop() == quick
        sent += talk.near.bridge.write(quick, said[sent:])
    for number in numbers[::2]:
        talk.near.bridge.reset(number)
    for number in numbers[1::2]:
        talk.far.bridge.reset(number)
    talk.settle()
    assert talk.near.bridge.unsent == 0
    assert talk.near.bridge.room(quick) == SEND_MOST


def test_a_writer_that_was_stopped_is_told_when_there_is_room() -> None:
    talk = ready()
    number = talk.near.bridge.open(b"x")
    assert talk.near.bridge.write(number, bytes(SEND_MOST * 2)) < SEND_MOST * 2
    talk.settle()
    talk.near.look(talk.now)
    assert talk.near.room == [number]


def test_a_fast_reader_gets_more_credit_and_a_slow_one_does_not() -> None:
    """Over a long way a window of a quarter of a mebibyte is a brake."""
    talk = ready()
    number = talk.near.bridge.open(b"x")
    for _ in range(100):
        talk.near.bridge.write(number, os.urandom(500_000))
        talk.settle(step=0.001)
    window = talk.far.bridge._streams.by_number[number].window
    assert WINDOW_FIRST < window <= WINDOW_MOST
    slow = talk.near.bridge.open(b"y")
    for _ in range(30):
        talk.near.bridge.write(slow, os.urandom(50_000))
        talk.settle(step=0.001)
        talk.now += 5
    assert talk.far.bridge._streams.by_number[slow].window == WINDOW_FIRST


def test_a_lane_that_dies_does_not_leave_the_other_end_believing_that_bytes_wait() -> None:
    """Lanes are opened and kept for them: the word that none are left may have died with its lane."""
    talk = ready()
    number = talk.near.bridge.open(b"x")
    talk.settle()
    talk.far.bridge.write(number, os.urandom(200_000))
    for _ in range(100):
        talk.pump()
        if talk.near.bridge.peer_waiting and not talk.far.bridge.waiting:
            break
        talk.arrive(1, 0, 1 << 20)
        talk.arrive(1, 1, 1 << 20)
        talk.now += 0.01
    assert talk.near.bridge.peer_waiting
    talk.cut(1)
    talk.lane()
    talk.settle()
    assert len(talk.near.got[number]) == 200_000
    assert talk.near.bridge.peer_waiting == 0


def test_a_key_does_not_wait_behind_bulk() -> None:
    """Ten downloads fill every lane; the quick lane holds eight kibibytes of them at most."""
    talk = ready()
    talk.lane()
    bulk = [talk.near.bridge.open(b"bulk") for _ in range(10)]
    key = talk.near.bridge.open(b"key")
    talk.settle()
    for number in bulk:
        talk.near.bridge.write(number, os.urandom(900_000))
    talk.pump()
    quick = talk.near.bridge.order()[0]
    before = len(talk.flying[quick][0])
    assert before <= module.QUICK_BULK + module.FRAME_MOST
    talk.near.bridge.write(key, b"k")
    talk.pump()
    assert talk.flying[quick][0][before:].endswith(b"k")


def test_no_stream_starves() -> None:
    """Streams that send much take turns, chunk by chunk."""
    talk = ready()
    numbers = [talk.near.bridge.open(b"x") for _ in range(8)]
    talk.settle()
    for number in numbers:
        talk.near.bridge.write(number, os.urandom(200_000))
    for _ in range(12):
        talk.pump()
        talk.arrive(1, 0, 1 << 20)
        talk.arrive(1, 1, 1 << 20)
    sizes = [len(talk.far.got[number]) for number in numbers]
    assert max(sizes) - min(sizes) <= 2 * module.CHUNK


def test_a_lane_holds_little() -> None:
    """An outage loses what the lanes hold, and the agent repairs ten frames a second."""
    talk = ready()
    number = talk.near.bridge.open(b"x")
    talk.near.bridge.write(number, os.urandom(SEND_MOST))
    talk.pump()
    assert len(talk.flying[1][0]) <= module.LANE_FIRST + module.FRAME_MOST


def test_text_packs_and_noise_is_given_up() -> None:
    """Seven tenths of a mebibyte a second is what a lane brings: text should fill it with meaning."""
    talk = ready()
    number = talk.near.bridge.open(b"x")
    talk.near.bridge.write(number, b"def f(x):\n    return x + 1\n" * 20_000)
    before = talk.carried
    talk.settle()
    assert talk.carried - before < 540_000 / 8
    noise = talk.near.bridge.open(b"y")
    talk.near.bridge.write(noise, os.urandom(400_000))
    talk.settle()
    assert talk.near.bridge._streams.by_number[noise].tried == 2


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400), cut=st.integers(1, 50))
def test_any_bytes_are_an_answer_or_a_typed_error(data: bytes, cut: int) -> None:
    """The box is not trusted."""
    bridge = Bridge(near=True)
    bridge.lane_up(1, 0.0)
    number = bridge.open(b"x")
    bridge.write(number, b"abc" * 1000)
    bridge.outgoing(1, 0.0)
    try:
        for start in range(0, len(data), cut):
            bridge.received(1, data[start : start + cut], 1.0)
            list(bridge.events())
            bridge.outgoing(1, 1.0)
    except BridgeError:
        pass


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def data_frame(stream: int, offset: int, data: bytes, flags: int = 0, size: int | None = None) -> bytes:
    return frame(
        module.DATA_HEAD.pack(module.DATA, stream, offset, flags, len(data) if size is None else size) + data
    )


@pytest.mark.parametrize(
    "hostile",
    [
        data_frame(1, WINDOW_FIRST, b"x"),  # beyond the credit
        data_frame(1, 0, b"x", size=5),  # says five, sends one
        data_frame(1, 0, b"", size=module.CHUNK + 1),
        data_frame(1, 0, b"\x78\x9c\x00", flags=1, size=10),  # does not unpack
        data_frame(1, 5, b"abcdef") + data_frame(1, 8, b"xyz"),  # overlaps
        data_frame(1, 5, b"abc") + data_frame(1, 4, b"xyz"),
        data_frame(1, 0, b"\0\1p") + data_frame(1, 2, b"pq"),
        data_frame(1, 0, b"\0\1p", flags=2) + data_frame(1, 3, b"q"),  # beyond its end
        data_frame(1, 9, b"abc") + data_frame(1, 5, b"", flags=2),  # ends before what it sent
        data_frame(1, 0, b"", flags=2),  # ends before it began
        data_frame(1, 0, b"\xff\xff"),  # a purpose that is too long
        data_frame(1 + 2 * module.STREAMS_MOST, 0, b"\0\1p"),  # too many streams
        frame(module.ACK_HEAD.pack(module.ACK, 0, 1 << 40, 0)),  # acknowledges what was not sent
        frame(b""),
        frame(b"\xff"),
        frame(b"\1\0"),
        (module.FRAME_MOST + 1).to_bytes(4, "big"),
    ],
)
def test_what_can_not_be_is_refused(hostile: bytes) -> None:
    bridge = Bridge(near=True)
    bridge.lane_up(1, 0.0)
    bridge.open(b"x")
    bridge.outgoing(1, 0.0)
    with pytest.raises(BridgeError):
        bridge.received(1, hostile, 1.0)


def test_a_bomb_unpacks_to_no_more_than_it_says() -> None:
    """Sixteen kibibytes can pack a gigabyte."""
    bomb = zlib.compress(bytes(10 << 20), 9)
    bridge = Bridge(near=True)
    bridge.lane_up(1, 0.0)
    with pytest.raises(BridgeError):
        bridge.received(1, data_frame(1, 0, bomb, flags=1, size=module.CHUNK), 1.0)


def test_it_is_written_in_the_python_of_old_boxes() -> None:
    """Amazon Linux 2 has 3.7, RHEL 8 has 3.6."""
    for path in Path(module.__file__).parent.glob("*.py"):
        ast.parse(path.read_text("utf-8"), feature_version=(3, 6))


def dead(talk: Talk, *lanes: int) -> None:
    """What is on these lanes stays there, both ways, and neither end is told."""
    for lane in lanes:
        talk.flying.pop(lane, None)


def live(talk: Talk, seconds: float) -> None:
    """Let time pass: the near end lets go of lanes that fell behind, as its owner does."""
    for _ in range(int(seconds / 0.05)):
        talk.now += 0.05
        for end in (talk.near, talk.far):
            for lane in end.bridge.tick(talk.now):
                if end is talk.near:
                    end.bridge.lane_down(lane)
        talk.pump()
        for lane in list(talk.flying):
            talk.arrive(lane, 0, 1 << 20)
            talk.arrive(lane, 1, 1 << 20)


def test_lanes_that_die_together_are_found_dead_together() -> None:
    """All workers of the agent are killed: a key must not wait for each lane's own patience in turn."""
    talk = ready()
    lanes = [1, talk.lane(), talk.lane(), talk.lane()]
    number = talk.near.bridge.open(b"echo")
    talk.settle()
    dead(talk, *lanes)
    talk.near.bridge.write(number, b"key")
    live(talk, 2 * module.BEHIND + 0.3)
    assert talk.near.bridge.order() == []
    talk.lane()
    live(talk, 0.2)
    assert bytes(talk.far.got[number]) == b"key"


def test_the_other_end_is_told_of_lanes_that_are_dead_for_us() -> None:
    """The agent's workers stand still: their sockets on the box stay open, and whatever is said into them is lost."""
    talk = ready()
    lanes = [1, talk.lane(), talk.lane(), talk.lane()]
    number = talk.near.bridge.open(b"echo")
    talk.settle()
    dead(talk, *lanes)
    talk.near.bridge.write(number, b"key")
    live(talk, 2 * module.BEHIND + 0.3)
    fresh = talk.lane()
    live(talk, 0.2)
    assert talk.far.bridge.order() == [*lanes, fresh]
    talk.far.bridge.write(number, b"answer")
    live(talk, 0.2)
    assert bytes(talk.near.got[number]) == b"answer"
    live(talk, 20)
    assert talk.near.bridge.order() == [fresh], "its acknowledgements went into a dead lane"


def test_a_lane_that_was_called_dead_and_is_not_is_used_again() -> None:
    talk = ready()
    other = talk.lane()
    number = talk.near.bridge.open(b"x")
    talk.settle()
    word = module.frame_of(module.LANE_HEAD.pack(module.DEAD, other))
    talk.far.bridge.received(1, word, talk.now)
    assert [lane[4] for lane in talk.far.bridge.lanes()] == [False, True]
    talk.settle()
    assert [lane[4] for lane in talk.far.bridge.lanes()] == [False, False]
    talk.far.bridge.write(number, os.urandom(300_000))
    talk.settle()
    assert len(talk.near.got[number]) == 300_000


def test_a_lane_cannot_be_called_dead_over_itself_nor_one_that_is_not_there() -> None:
    talk = ready()
    for number in (1, 99):
        talk.far.bridge.received(1, module.frame_of(module.LANE_HEAD.pack(module.DEAD, number)), talk.now)
    assert [lane[4] for lane in talk.far.bridge.lanes()] == [False]
    with pytest.raises(BridgeError):
        talk.far.bridge.received(1, module.frame_of(b"\x07"), talk.now)

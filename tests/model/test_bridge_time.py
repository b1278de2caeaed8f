"""Keys beside bulk, on virtual time: lanes as slow as the agent makes them, and as far as a continent is wide."""

from __future__ import annotations

import heapq
import random
from itertools import count

import pytest

from devboxd.model.bridge.end import Bridge
from devboxd.model.bridge.wire import Data, Opened

PACE = 0.7 * (1 << 20)  # bytes a second of one session
WAY = 0.05  # seconds, one way


class World:
    """Two ends and lanes that take their time. Both applications read everything at once."""

    def __init__(self, lanes: int) -> None:
        self.near, self.far = Bridge(near=True), Bridge(near=False)
        self.now = 0.0
        self.sequence = count()
        self.arrivals: list[tuple[float, int, Bridge, int, bytes]] = []
        self.free_at = {
            (end, lane): 0.0 for end in (id(self.near), id(self.far)) for lane in range(1, lanes + 1)
        }
        self.keys: list[float] = []  # when each came back
        self.bulk = 0
        self.key = -1
        for lane in range(1, lanes + 1):
            self.near.lane_up(lane, 0.0)
            self.far.lane_up(lane, 0.0)

    def say(self, end: Bridge) -> None:
        """Each lane that is free takes a chunk; the rest stays where it can still be overtaken."""
        other = self.far if end is self.near else self.near
        for lane in end.order():
            while self.free_at[id(end), lane] <= self.now + 0.1:  # what the pipe takes ahead of its pace
                data = end.outgoing(lane, self.now, 1)
                if not data:
                    break
                done = max(self.now, self.free_at[id(end), lane]) + len(data) / PACE
                self.free_at[id(end), lane] = done
                heapq.heappush(self.arrivals, (done + WAY, next(self.sequence), other, lane, data))

    def hear(self, end: Bridge) -> None:
        for event in end.events():
            if isinstance(event, Opened) and event.purpose == b"key":
                self.key = event.stream
            elif isinstance(event, Data):
                end.consumed(event.stream, len(event.data), self.now)
                if end is self.near and event.stream == self.key:
                    self.keys.append(self.now)
                elif end is self.near:
                    self.bulk += len(event.data)
                elif event.stream == self.key:
                    end.write(event.stream, event.data)  # echo

    def until(self, when: float) -> None:
        while True:
            self.say(self.near)
            self.say(self.far)
            if not self.arrivals or self.arrivals[0][0] > when:
                self.now = when
                return
            self.now, _, end, lane, data = heapq.heappop(self.arrivals)
            end.received(lane, data, self.now)
            self.hear(end)


@pytest.mark.parametrize("lanes", [2, 4, 8])
def test_ten_bulk_streams_never_delay_a_key_by_more_than_a_round_trip_and_fifty_milliseconds(
    lanes: int,
) -> None:
    world, dice = World(lanes), random.Random(1)
    world.key = world.near.open(b"key")
    bulk = [world.near.open(b"bulk") for _ in range(10)]
    world.until(1.0)
    noise = dice.randbytes(1 << 18)
    waits = []
    for turn in range(60):
        for number in bulk:  # both ways at once
            world.far.write(number, noise)
            world.near.write(number, noise)
        began, before = world.now, len(world.keys)
        world.near.write(world.key, b"k")
        while len(world.keys) == before:
            world.until(world.now + 0.005)
            assert world.now < began + 5, f"the key of turn {turn} never came back"
        waits.append(world.keys[-1] - began)
        world.until(began + 0.3)
    # Alone it takes a round trip; bulk may cost one more, and fifty milliseconds.
    assert max(waits) <= 2 * (2 * WAY) + 0.05, f"{max(waits) * 1000:.0f} ms"
    assert world.bulk > 0.5 * (lanes - 1) * PACE * 18, f"{world.bulk} bytes of bulk: the lanes were not full"

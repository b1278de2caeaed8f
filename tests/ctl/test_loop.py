"""The one loop that terminal, pipes and ssh all hang on."""

from __future__ import annotations

import os
from collections.abc import Mapping

from devboxctl.fast.loop import GONE, IN, OUT, Loop


class Copies(Loop):
    """Collects what becomes ready, for a number of turns."""

    def __init__(self, wanted: list[dict[int, int]], *, deadline: float | None = None) -> None:
        super().__init__()
        self.wanted = wanted
        self.seen: list[dict[int, int]] = []
        self.times = 0
        self.deadline = deadline

    def is_over(self) -> bool:
        return len(self.seen) == len(self.wanted)

    def on_time(self, now: float) -> None:
        self.times += 1

    def wants(self, now: float) -> dict[int, int]:
        return self.wanted[len(self.seen)]

    def next_deadline(self) -> float | None:
        return self.deadline

    def act(self, ready: Mapping[int, int]) -> None:
        self.seen.append(dict(ready))


def test_only_what_is_wanted_in_this_turn_is_reported() -> None:
    """Input that is not wanted now (no credit, a full queue) must neither be read nor spin the loop."""
    read, write = os.pipe()
    os.write(write, b"x")
    loop = Copies([{read: IN}, {write: OUT}, {read: IN, write: OUT}])
    loop.run()
    assert loop.seen == [{read: IN}, {write: OUT}, {read: IN, write: OUT}]
    os.close(read)
    os.close(write)


def test_a_hang_up_is_reported_where_nothing_else_is_wanted() -> None:
    """A proxy whose ssh has gone ends at once, also while it has nothing to write."""
    read, write = os.pipe()
    os.close(read)
    loop = Copies([{write: 0}])
    loop.run()
    assert loop.seen[0][write] & GONE
    os.close(write)


def test_a_deadline_ends_the_wait() -> None:
    """A status line that is due must not wait for a key."""
    read, write = os.pipe()
    loop = Copies([{read: IN}], deadline=0.0)
    loop.run()
    assert loop.seen == [{}]
    assert loop.times == 1
    os.close(read)
    os.close(write)


def test_a_number_that_comes_back_as_another_descriptor_is_waited_for_anew() -> None:
    """The connection to a daemon that was restarted often gets the number of the former one."""
    read, write = os.pipe()
    loop = Copies([{read: IN}], deadline=0.0)
    loop.run()
    loop.forget(read)
    os.close(read)
    os.close(write)
    again, writer = os.pipe()
    assert again == read
    os.write(writer, b"x")
    loop.wanted, loop.seen = [{again: IN}], []
    loop.run()
    assert loop.seen == [{again: IN}]
    os.close(again)
    os.close(writer)

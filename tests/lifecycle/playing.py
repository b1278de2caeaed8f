"""Plays a history that has a name, under the eyes of the oracle."""

from __future__ import annotations

from typing import Final

from tests.lifecycle import scenarios, scenarios_by_hand
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.test_crashes import UID, watched
from tests.lifecycle.world import World

ALL: Final = {**scenarios.ALL, **scenarios_by_hand.BY_HAND}
# What is out of sight is lost for the oracle too; what somebody takes away is not there, and what is kept for
# somebody is left over.
EXCUSED: Final = {
    "volume_out_of_sight": ("S1", "V2", "V3"),
    "volume_moved_to_another_box": ("V2", "V3"),
    "volume_detached_before_the_save": ("V2", "V3"),
    "all_is_gone": ("S1", "V2"),
    "head_deregistered_by_hand": ("S6",),
}


def play(name: str) -> World:
    """One of them."""
    world = World(MemoryStore(), seed=9)
    with watched(world, lenient=EXCUSED.get(name, ())) as oracle:
        ALL[name](world)
        oracle.ends_well(UID)
    return world

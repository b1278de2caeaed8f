"""Random histories, 500 of them in every run of the tests and 20,000 in ``make soak``. A failure names its seed:

python -m tests.lifecycle.swarm --seed SEED
"""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.lifecycle import swarm

BATCH = 25
HISTORIES = 500
SOAK = 20_000


def play(seed: int, engine: str = "memory") -> Counter[str]:
    try:
        return swarm.run(seed, engine)
    except AssertionError as error:
        raise AssertionError(f"python -m tests.lifecycle.swarm --seed {seed}\n{error}") from error


@pytest.mark.parametrize("first", range(0, HISTORIES, BATCH))
def test_whatever_happens_no_work_is_lost_and_nothing_is_left_over(first: int) -> None:
    """Daemons that die and nap, answers lost, old views, refusals, hands in the console, failing images."""
    for seed in range(first, first + BATCH):
        play(seed)


@pytest.mark.parametrize("seed", range(HISTORIES, HISTORIES + 8))
def test_the_same_on_a_file(seed: int) -> None:
    """SQLite instead of memory."""
    play(seed, "sqlite")


def test_the_same_seed_is_the_same_history() -> None:
    """Or a replay would show something else."""
    one, other = swarm.Swarm(3), swarm.Swarm(3)
    one.run()
    other.run()
    assert one.world.trace == other.world.trace


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_soak() -> None:
    """Twenty thousand. Prints what happened in them."""
    began, total, failed = time.monotonic(), Counter[str](), []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for seed, error, counts in pool.map(swarm.attempt, range(1000, 1000 + SOAK), chunksize=20):
            total += counts
            if error:
                failed.append(f"{seed}: {error.splitlines()[0]}")
    print(f"\n{SOAK} histories in {time.monotonic() - began:.0f} s: {dict(total)}")
    assert not failed

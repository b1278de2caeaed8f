"""One simulator and one daemon for all end-to-end tests of a worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.e2e.kit import World


@pytest.fixture(scope="session")
def shared_world() -> Iterator[World]:
    """The world; use ``world``."""
    with World() as world:
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """A world in order: a daemon that runs, no faults, no forwards. What a test breaks is mended after it."""
    if not sys.platform.startswith("linux"):
        pytest.skip("looks at processes in /proc")
    shared_world.ensure_daemon()
    yield shared_world
    shared_world.fault("clear")
    shared_world.ensure_daemon()
    if shared_world.json("forward", "ls")["forwards"]:
        shared_world.remove_forwards()

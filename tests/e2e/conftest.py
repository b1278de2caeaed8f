"""One simulator and one daemon for all end-to-end tests of a worker; and one whose daemon goes without bridges."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.kit import BARE, World


@pytest.fixture(scope="session")
def shared_world() -> Iterator[World]:
    """The world; use ``world``."""
    with World() as world:
        yield world


@pytest.fixture(scope="session")
def shared_bare_world() -> Iterator[World]:
    """The world without bridges; use ``bare_world``."""
    with World(env=BARE) as world:
        yield world


@pytest.fixture
def bridged_world(shared_world: World) -> Iterator[World]:
    """A world in order: a daemon that runs, no faults, no forwards. What a test breaks is mended after it."""
    with in_order(shared_world) as world:
        yield world


@pytest.fixture
def world(bridged_world: World) -> World:
    """The usual one. A module whose tests hold without bridges, too, lets this be ``either_world``."""
    return bridged_world


@pytest.fixture
def bare_world(shared_bare_world: World) -> Iterator[World]:
    """The same where all goes as on a box that can have no bridge."""
    with in_order(shared_bare_world) as world:
        yield world


@pytest.fixture(params=["bridge", "sessions"])
def either_world(request: pytest.FixtureRequest) -> World:
    """A world with bridges, then the one without: a test that takes it holds in both."""
    found: World = request.getfixturevalue("bridged_world" if request.param == "bridge" else "bare_world")
    return found


@contextlib.contextmanager
def in_order(shared_world: World) -> Iterator[World]:
    """Mend before and after."""
    if not sys.platform.startswith("linux"):
        pytest.skip("looks at processes in /proc")
    shared_world.ensure_daemon()
    yield shared_world
    shared_world.fault("clear")
    shared_world.ensure_daemon()
    if shared_world.json("forward", "ls")["forwards"]:
        shared_world.remove_forwards()

"""The seed of a chaos run: printed, and given again to replay it."""

from __future__ import annotations

import os
import random

import pytest


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """``--chaos-seed``, DEVBOX_CHAOS_SEED, or a new one."""
    given = request.config.getoption("--chaos-seed")
    if given is None and os.environ.get("DEVBOX_CHAOS_SEED"):
        given = int(os.environ["DEVBOX_CHAOS_SEED"])
    found = int(given) if given is not None else random.SystemRandom().randrange(1 << 31)
    print(f"\nchaos seed {found}: replay with --chaos-seed {found}")
    return found

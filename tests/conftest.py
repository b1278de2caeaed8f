"""What holds for all tests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, settings

# A busy machine draws slowly: that says nothing of the code. How fast code is, benchmarks say, as ratios.
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

# On Python 3.11, the first ``asyncio.get_event_loop()`` of a thread makes a loop that nobody closes:
# pytest-asyncio asks, and some later test would fail on the ResourceWarning. Said "none", it makes none.
asyncio.set_event_loop(None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a chaos run be replayed: its seed is printed when it starts."""
    parser.addoption("--chaos-seed", type=int, default=None, help="replay a chaos run (or DEVBOX_CHAOS_SEED)")

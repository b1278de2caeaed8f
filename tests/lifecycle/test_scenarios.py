"""Histories with a name."""

from __future__ import annotations

import pytest

from tests.lifecycle import scenarios


@pytest.mark.parametrize("name", scenarios.ALL)
def test_it_ends_well(name: str) -> None:
    """See ``scenarios``."""
    scenarios.play(name)

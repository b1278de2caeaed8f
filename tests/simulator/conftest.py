"""The simulator fixture for its own tests."""

from __future__ import annotations

from tests.kit.sim import simulator

__all__ = ["simulator"]

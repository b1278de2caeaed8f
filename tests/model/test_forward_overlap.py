"""Which local addresses are in each other's way."""

from __future__ import annotations

import pytest

from devboxd.model.forward import overlap


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("localhost", "127.0.0.1", True),
        ("localhost", "::1", True),
        ("0.0.0.0", "10.0.0.1", True),
        ("10.0.0.1", "", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("localhost", "10.0.0.1", False),
    ],
)
def test_addresses_that_share_a_socket_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected

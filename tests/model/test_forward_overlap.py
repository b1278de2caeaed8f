"""Forwards as they are asked for: which cannot be, and which local addresses are in each other's way."""

from __future__ import annotations

import msgspec
import pytest

from devboxd.errors import BadRequest
from devboxd.model.forward import Facts, ForwardState, Spec, check, overlap


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


@pytest.mark.parametrize(
    "spec",
    [
        Spec(port=1, path="/a", local_port=1),
        Spec(path="a", local_port=1),
        Spec(path="/a"),
        Spec(path="/" + "a" * 100, local_port=1),
        Spec(path="/a", local_port=1, host="db"),
        Spec(path="/a\nb", local_port=1),
        Spec(reverse=True, dynamic=True),
        Spec(reverse=True, port=1, host="db"),
        Spec(reverse=True, port=1, local_port=0),
        Spec(reverse=True),
    ],
)
def test_a_socket_or_a_reverse_forward_that_cannot_be_is_refused(spec: Spec) -> None:
    with pytest.raises(BadRequest):
        check(spec)


def test_ends_are_told_from_the_one_that_listens() -> None:
    facts = Facts("f", "api", ForwardState.ONLINE, "localhost:3000", "8080", 0, 0, 0, 0, 0, None, False)
    assert facts.ends == "localhost:3000 -> api:8080"
    assert msgspec.structs.replace(facts, reverse=True).ends == "api:8080 -> localhost:3000"

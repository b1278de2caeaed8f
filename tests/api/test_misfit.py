"""What does not fit into a request is said in words, never as a pattern."""

from __future__ import annotations

import msgspec
import pytest

from devboxd.api import wire
from devboxd.api.server import _misfit


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"limit": "cheap"}, "Expected an amount, as 40 or 12.50 - at `$.limit`"),
        ({"limit": "1", "month": "foo"}, "Expected a month, as 2026-12 - at `$.month`"),
        ({"limit": "-1"}, "Expected an amount, as 40 or 12.50 - at `$.limit`"),
        ({"limit": "1", "project": "a\nb"}, "Expected text without control characters - at `$.project`"),
    ],
)
def test_an_amount_is_not_called_text(value: dict[str, str], says: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(value, wire.BudgetRequest)
    assert _misfit(error.value) == says

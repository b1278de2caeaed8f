"""What does not fit into a request is said in words, never as a pattern."""

from __future__ import annotations

import msgspec
import pytest

from devboxd.api import wire
from devboxd.api.server import _misfit


@pytest.mark.parametrize("name", ["", "1", "-i", "--chdir", "a=b", "a\nb"])
def test_a_name_that_is_no_variable_is_refused(name: str) -> None:
    """``env`` on the box would take some of them for its own options."""
    good = {"box": "api", "argv": ["true"], "env": {"_": "1", "a.b": "=", "HOME": "/"}}
    assert msgspec.convert(good, wire.ExecRequest).env == good["env"]
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert({"box": "api", "argv": ["true"], "env": {name: "x"}}, wire.ExecRequest)
    assert (
        _misfit(error.value) == "Expected a variable's name, with a letter or _ first - at `key` in `$.env`"
    )


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

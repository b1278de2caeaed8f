"""Conditions are declared once: the page shows that table, and whoever states one has its words."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator
from pathlib import Path

from devboxd.model.health import CONDITIONS, Kind, condition

ROOT = Path(__file__).parents[2]


def words(kind: Kind) -> set[str]:
    """What the texts of a kind leave open."""
    parsed = string.Formatter().parse(kind.text + kind.hint)
    return {name for _, name, _, _ in parsed if name is not None}


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every place that states a condition."""
    for path in sorted((ROOT / "devboxd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            first = node.args[0] if node.args else None
            if name in ("raise_condition", "condition") and isinstance(first, ast.Constant):
                yield str(first.value), node


def test_the_page_lists_every_condition_with_its_words() -> None:
    page = (ROOT / "docs" / "conditions.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    listed = {code: rest for code, *rest in rows}
    assert listed == {
        code: [
            kind.severity,
            f"{kind.after:g} s" if kind.after else "at once",
            f"{kind.title}: {kind.text}",
            kind.hint or "—",
        ]
        for code, kind in CONDITIONS.items()
    }


def test_whoever_states_a_condition_fills_in_all_that_its_texts_leave_open() -> None:
    """A missing word would be an internal error in the moment of trouble."""
    wrong, stated = [], set()
    for code, call in calls():
        stated.add(code)
        given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        if code not in CONDITIONS or given != words(CONDITIONS[code]):
            wrong.append(f"{code} at line {call.lineno}: {sorted(given)}")
    assert wrong == []
    assert stated == set(CONDITIONS), "a kind that nobody states"


def test_a_hint_that_comes_to_nothing_is_left_out() -> None:
    assert condition("forward-failed", 5.0, problem="no", hint=None).hint is None
    stated = condition("forward-failed", 5.0, problem="{x} %s", hint="{y}")
    assert (stated.text, stated.hint, stated.since) == ("{x} %s", "{y}", 5.0)

"""Days on a box as the collector sees them, a sample a minute, with the verdict that each minute must get."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from devboxd.model.idle import decide, empty, judge, warn

START = 1_800_000_000.0
RULES: dict[str, Any] = {"after": 1800.0, "warn": 600.0, "then": "warm"}
QUIET: dict[str, Any] = {"input": 9e5, "cpu": 0.004, "net": 9000, "disk": 4096, "tools": []}


def tool(name: str, kind: str, **seen: Any) -> dict[str, Any]:
    """A program as the collector reports it; quiet unless said."""
    return {"id": seen.pop("id", name), "name": name, "kind": kind, "cpu": 0.0, "io": 0, **seen}


def sample(minute: int, **seen: Any) -> dict[str, Any]:
    """A minute on which nothing happens but what is said."""
    return {"at": START + 60.0 * minute, "span": 60.0, "boot": "b", **QUIET, **seen}


@dataclass
class Trace:
    """Minutes, each with what is seen in it and the letter of its verdict."""

    samples: list[dict[str, Any]] = field(default_factory=list)
    expected: str = ""

    def then(self, minutes: int, verdict: str, **seen: Any) -> Trace:
        """So many minutes alike. ``typed``: minutes since the last input when they begin."""
        typed = seen.pop("typed", None)
        for number in range(minutes):
            at = len(self.samples)
            given = dict(seen)
            if typed is not None:
                given["input"] = 60.0 * (typed + number) + 3.0
            self.samples.append(sample(at, **given))
        self.expected += verdict * minutes
        return self


def verdicts(samples: list[dict[str, Any]]) -> str:
    """A letter for each sample."""
    state, found = before(samples[0]), ""
    for one in samples:
        state = judge(state, one)
        found += state["verdict"][0]
    return found


def before(first: dict[str, Any]) -> dict[str, Any]:
    """What was known a minute before a trace: the box had been watched."""
    return judge(empty(), {**first, **QUIET, "at": first["at"] - 60.0, "tools": [], "input": None})


def stops(
    samples: list[dict[str, Any]], rules: dict[str, Any] = RULES
) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each time at which the box would be stopped, with what was known; it is not stopped, and goes on."""
    state = before(samples[0])
    for one in samples:
        state = judge(state, one)
        decision = decide(state, rules, one["at"])
        if decision["do"] == "warn":
            state = warn(state, decision, one["at"])
        elif decision["do"] == "stop":
            yield one["at"], state

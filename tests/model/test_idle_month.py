"""A month of a hundred users: no box is stopped under somebody's work, and hardly one runs longer than it must."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from devboxd.model.idle import decide, empty, judge, warn
from tests.model.traces import QUIET, RULES, START, tool

USERS, DAYS = 100, 30
GRACE = 30  # minutes: ``after`` of the rules
Piece = tuple[int, bool, dict[str, Any]]  # minutes, whether it is work, what is seen in each of them


def at_the_desk(dice: random.Random, minutes: int) -> Iterator[Piece]:
    """Typing, compiling, and up to twenty minutes of thinking or talking."""
    while minutes > 0:
        for count, seen in (
            (dice.randint(1, 12), {"input": 5.0, "cpu": dice.random() * 0.3}),
            (dice.choice([0, 0, 1, 3]), {"cpu": 2.0, "tools": [tool("cargo", "finite", cpu=0.2)]}),
            (dice.choice([0, 2, 4, 20]), {}),
        ):
            if count:
                yield count, True, seen
            minutes -= count
    yield 1, True, {"input": 5.0}


def agent(dice: random.Random, minutes: int, hooks: bool) -> Iterator[Piece]:
    """An agent that is left alone: it waits for its API, up to nine minutes without hooks, up to fifty with."""
    known: dict[str, Any] = {"name": "claude", "kind": "agent"}
    if hooks:
        known |= {"state": "working", "since": START}
    while minutes > 0:
        quiet = dice.randint(1, 50 if hooks else 9)
        yield 1, True, {"tools": [tool(**known, cpu=0.03, tty=True)]}
        yield quiet, True, {"tools": [tool(**known, cpu=0.001)]}
        minutes -= quiet + 1
    yield 1, True, {"tools": [tool(**known, cpu=0.03, tty=True)]}


def day(dice: random.Random, kind: str) -> Iterator[Piece]:
    """A working day, and what is left running at its end."""
    yield from at_the_desk(dice, dice.randint(120, 240))
    yield dice.randint(20, 75), False, {}
    yield from at_the_desk(dice, dice.randint(120, 260))
    match kind:
        case "agent":
            yield from agent(dice, dice.randint(60, 420), hooks=False)
            yield 30, False, {"tools": [tool("claude", "agent", cpu=0.002)]}
        case "hooked":
            yield from agent(dice, dice.randint(60, 420), hooks=True)
            yield 30, False, {"tools": [tool("claude", "agent", state="done", since=START)]}
        case "gpu":
            yield dice.randint(60, 600), True, {"gpu": 95.0}
        case "tests":
            yield dice.randint(30, 300), True, {"tools": [tool("pytest", "finite")]}
        case "poller":
            for _ in range(dice.randint(5, 60)):
                yield 1, True, {"tools": [tool("poll.sh", "job", child=True)]}
                yield dice.randint(1, 8), True, {"tools": [tool("poll.sh", "job")]}
        case "download":
            yield (
                dice.randint(20, 200),
                True,
                {"net": 700_000, "tools": [tool("aws", "transfer", io=700_000)]},
            )
        case "tab":
            yield 300, False, {"net": 500_000, "cpu": 0.03, "tools": [tool("node", "server", cpu=0.02)]}
        case "watcher":
            yield 300, False, {"tools": [tool("node", "server", cpu=0.01, tty=True)], "cpu": 0.01}


KINDS = ("plain", "plain", "agent", "hooked", "gpu", "tests", "poller", "download", "tab", "watcher")


def month(number: int) -> tuple[int, int, int]:
    """One user's: stops under work, minutes that were paid for nothing, and those that could not be saved."""
    dice = random.Random(number)
    state: dict[str, Any] | None = None
    wrong = spent = optimum = since_work = 0
    at = START
    is_up = False
    for date in range(DAYS):
        begin = START + date * 86400.0 + dice.randint(0, 7200)
        pieces = list(day(dice, dice.choice(KINDS))) if date % 7 < 5 else []
        if at < begin:
            pieces.insert(0, (int((begin - at) // 60), False, {}))
        for minutes, is_work, seen in pieces:
            optimum += 0 if is_work else max(0, min(minutes, GRACE - since_work))
            since_work = 0 if is_work else since_work + minutes
            if is_work and not is_up:
                is_up, state = True, judge(empty(), {"at": at, "span": 0, "boot": str(at), **QUIET})
            same = 0
            for minute in range(minutes):
                at += 60.0
                if not is_up or state is None:
                    continue
                spent += not is_work
                same += 1
                if is_work and 15 < minute < minutes - 2 and same > 15 and state["verdict"] == "active":
                    state["at"] = at  # nothing changes: it stays as it is, for all but the last minutes
                    continue
                sample = {"at": at, "span": 60.0, "boot": state["boot"], **QUIET, **seen}
                state = judge(state, sample)
                decision = decide(state, RULES, at)
                if decision["do"] == "warn":
                    state = warn(state, decision, at)
                elif decision["do"] == "stop":
                    wrong += is_work
                    is_up = False
    return wrong, spent, optimum


def test_a_month_of_a_hundred_users() -> None:
    """No wrong stop; what is spent on idle boxes is within a tenth of what knowing everything would spend."""
    found = [month(number) for number in range(USERS)]
    wrong, spent, optimum = (sum(column) for column in zip(*found, strict=True))
    print(
        f"{wrong} wrong stops; {spent / 60:.0f} h idle, at best {optimum / 60:.0f} h ({spent / optimum:.3f})"
    )
    assert wrong == 0
    assert spent > optimum * 0.9  # the yardstick is one
    assert spent <= optimum * 1.1


def test_the_same_month_with_a_bad_judge_is_told_apart(monkeypatch: Any) -> None:
    """Where a sign of life is forgotten too soon, agents are stopped at work: the month would say so."""
    monkeypatch.setattr("devboxd.model.idle.TOOL_HOLD", 0.0)
    monkeypatch.setattr("devboxd.model.idle.STUCK", 60.0)
    assert sum(month(number)[0] for number in range(20)) > 0

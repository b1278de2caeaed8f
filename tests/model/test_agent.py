"""What coding agents say of themselves, and what is told of it."""

from __future__ import annotations

from typing import Any

import pytest

from devboxd.model.agent import (
    NOTES_MOST,
    OLD,
    SEEN_MOST,
    AgentNote,
    AgentState,
    Tell,
    news,
    notice,
    read,
    remembered,
    said,
    sampled,
)
from devboxd.model.idle import decide, judge, warn
from tests.model.traces import RULES, START, before, sample, tool

NOW = 1_800_000_000.0


def note(state: str, age: float = 60.0, **more: Any) -> AgentNote:
    return AgentNote(more.pop("name", "claude"), AgentState(state), NOW - age, **more)


@pytest.mark.parametrize(
    "one",
    [
        None,
        7,
        {},
        {"name": "claude", "state": "sleeping", "since": 1},
        {"name": "", "state": "done", "since": 1},
        {"name": "x" * 61, "state": "done", "since": 1},
        {"name": "claude", "state": "done", "since": -1},
        {"name": "claude", "state": "done", "since": 1e12},
        {"name": "claude", "state": "done", "since": 1, "pid": -1},
        {"name": "claude", "state": "done", "since": 1, "text": "x" * 2000},
        {"name": "claude", "state": "done", "since": 1, "alive": "no"},
    ],
)
def test_what_is_no_note_is_left_out_and_the_others_count(one: object) -> None:
    good = {"name": "codex", "state": "waiting", "since": 1.5, "pid": 7, "more": True}
    assert read([one, good]) == (AgentNote("codex", AgentState.WAITING, 1.5, 7),)


def test_a_box_may_say_anything() -> None:
    for nothing in (None, "x", 4, [4]):
        assert read(nothing) == ()
    assert len(read([{"name": "a", "state": "done", "since": 1}] * 500)) == NOTES_MOST
    assert sampled(None) is sampled({}) is sampled({"agents": None}) is sampled({"agents": 4}) is None
    assert sampled({"agents": []}) == ()


def test_what_matters_most_is_said_first() -> None:
    assert said([], NOW) == said([note("waiting", alive=False)], NOW) == ""
    assert said([note("waiting", 185.0)], NOW) == "claude waits for you since 3 min"
    assert said([note("done", 3600.0)], NOW) == "claude is done since 1 h"
    several = [note("working", 5.0, name="codex"), note("done"), note("waiting", 120.0)]
    assert said(several, NOW) == "claude waits for you since 2 min, and 2 more"
    assert "\x1b" not in said([note("working", name="a\x1b[2Jb")], NOW)


def test_each_change_to_waiting_or_done_is_news_once() -> None:
    fresh = note("waiting", pid=1)
    assert news([fresh], 0.0, {}, NOW) == [fresh]
    assert news([fresh], 0.0, {fresh.key: fresh.since}, NOW) == [], "told by us"
    assert news([fresh], fresh.since, {}, NOW) == [], "told by the daemon before us"
    later = note("done", 5.0, pid=1)
    assert news([later], fresh.since, {fresh.key: fresh.since}, NOW) == [later]
    for quiet in (
        note("working"),
        note("done", quiet=True),  # it has only begun
        note("waiting", alive=False),
        note("waiting", OLD + 1),
    ):
        assert news([quiet], 0.0, {}, NOW) == [], quiet


def test_what_was_told_is_remembered_while_it_could_be_news_and_within_a_bound() -> None:
    told = note("waiting", pid=1)
    seen = {told.key: told.since}
    assert remembered(seen, [], NOW) == seen, "a report that has fewer agents"
    assert remembered(seen, [told], told.since + OLD) == {}, "too old to be news"
    many = [note("done", float(pid), pid=pid) for pid in range(1, 2 * SEEN_MOST)]
    everyone = {one.key: one.since for one in many}
    kept = remembered(everyone, [], NOW)
    assert kept == {one.key: one.since for one in many[:SEEN_MOST]}, "the newest"
    kept = remembered(everyone, [many[-1]], NOW)
    assert len(kept) == SEEN_MOST
    assert many[-1].key in kept


def test_who_wants_to_hear_less_does() -> None:
    notes = [note("waiting", pid=1), note("done", pid=2), note("working", pid=3)]
    kept = {tell: [one.pid for one in news(notes, 0.0, {}, NOW, tell)] for tell in Tell}
    assert kept == {Tell.ALL: [1, 2], Tell.WAITING: [1], Tell.NONE: []}


def test_a_notice_names_box_session_and_question_and_is_bounded() -> None:
    asks = note("waiting", text="May I\x1b[2J run\nrm?", where="main")
    title, text = notice("api", asks)
    assert title == "api: claude waits for you (main)"
    assert text == "May I [2J run rm? — devboxctl peek api main"
    title, text = notice("api", note("done", text="x" * 1000))
    assert (title, len(text) < 260) == ("api: claude is done", True)
    assert notice("api", note("done"))[1] == "devboxctl peek api"
    assert notice("api", note("done", where="x; rm -rf ~"))[1] == "devboxctl peek api", "somebody copies it"


# In the verdict ---------------------------------------------------------------------------------------------


def verdict(**seen: Any) -> tuple[str, list[Any]]:
    one = sample(1, **seen)
    state = judge(before(sample(0)), one)
    return state["verdict"], [row for row in state["evidence"] if row[0] == "claude"]


def test_a_waiting_agent_that_was_allowed_to_go_on_works_again() -> None:
    """No hook tells that before what it was allowed to do has ended; what it started does."""
    at = START + 60.0
    waits = {**tool("claude", "agent", state="waiting", since=at - 600.0)}
    assert verdict(tools=[waits])[0] == "idle"
    assert verdict(tools=[{**waits, "born": at - 3600.0}])[0] == "idle", "a server that it started before"
    assert verdict(tools=[{**waits, "born": at - 597.0}])[0] == "idle", "the hook that said so"
    found, rows = verdict(tools=[{**waits, "born": at - 120.0, "child": True}])
    assert (found, rows[0][2]) == ("active", True)


def test_a_note_whose_agent_is_gone_is_shown_and_counts_for_nothing() -> None:
    at = START + 60.0
    gone = {"name": "claude", "pid": 7, "state": "working", "since": at - 7200.0, "alive": False}
    found, rows = verdict(agents=[gone])
    assert (found, rows) == ("idle", [["claude", "said working 2 h ago, and is gone: not known", False]])
    assert verdict(agents=[{**gone, "alive": True}])[1] == [], "the agent itself is the row"
    assert verdict(agents=[{}, {"alive": False, "since": "x"}])[0] == "idle"


def test_a_box_whose_agent_waits_goes_and_one_whose_agent_works_stays() -> None:
    for state, stops in (("waiting", True), ("done", True), ("working", False)):
        known = before(sample(0))
        seen = []
        for minute in range(60):
            one = sample(minute, tools=[tool("claude", "agent", state=state, since=START)])
            known = judge(known, one)
            decision = decide(known, RULES, one["at"])
            if decision["do"] == "warn":
                known = warn(known, decision, one["at"])
            seen.append(decision["do"])
        assert ("stop" in seen) is stops, state

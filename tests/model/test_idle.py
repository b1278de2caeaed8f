"""Idle or not, minute by minute: what people and programs do, and what each minute must be called."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devboxd.model import idle
from devboxd.model.idle import decide, empty, judge, signed, unattended, warn
from devboxd.model.idle_note import blind
from tests.model.traces import QUIET, RULES, START, Trace, before, sample, stops, tool, verdicts

AGENT = {"name": "claude", "kind": "agent"}

TRACES = {
    "an agent waits for its API all night, without hooks": Trace()
    .then(5, "a", typed=0, tools=[tool(**AGENT, cpu=0.05, tty=True)])
    # Between two answers it draws a little, or a byte comes: every few minutes there is a sign of life.
    .then(60, "a", tools=[tool(**AGENT, cpu=0.001, tty=True)])
    .then(9, "a", tools=[tool(**AGENT, cpu=0.001)])
    .then(60, "a", tools=[tool(**AGENT, cpu=0.001, io=40_000)])
    .then(9, "a", tools=[tool(**AGENT)])
    .then(1, "a", tools=[tool(**AGENT, child=True)])
    # It has ended its turn, and nobody has told it what is next.
    .then(9, "a", tools=[tool(**AGENT, cpu=0.002)])
    .then(60, "i", tools=[tool(**AGENT, cpu=0.002)]),
    "an agent whose hooks say that it works": Trace()
    .then(300, "a", tools=[tool(**AGENT, state="working", since=START)])
    .then(30, "i", tools=[tool(**AGENT, state="done", since=START + 300 * 60.0)]),
    "an agent that only says when it is done": Trace()
    .then(30, "i", tools=[tool(**AGENT, state="done", since=START - 60.0)])
    .then(1, "i", tools=[tool(**AGENT, state="done", since=START + 30 * 60.0, tty=True)])
    # It was asked again, and no hook tells: its signs of life do.
    .then(1, "a", tools=[tool(**AGENT, state="done", since=START - 60.0, cpu=0.1, tty=True)])
    .then(9, "a", tools=[tool(**AGENT, state="done", since=START - 60.0)])
    .then(30, "i", tools=[tool(**AGENT, state="done", since=START - 60.0)]),
    "an agent that waits for a person": Trace().then(
        159, "i", tools=[tool(**AGENT, state="waiting", since=START - 60.0)]
    ),
    "an agent whose hook never came back": Trace()
    .then(720, "a", tools=[tool(**AGENT, state="working", since=START - 60.0)])
    .then(60, "i", tools=[tool(**AGENT, state="working", since=START - 60.0)]),
    "a forgotten browser tab": Trace()
    .then(3, "a", typed=0, net=9_000_000)
    .then(600, "i", typed=3, cpu=0.02, net=400_000, tools=[tool("code-server", "server", cpu=0.02)]),
    "an IDE that was left connected": Trace()
    .then(3, "a", typed=0, cpu=0.3)
    .then(240, "i", typed=3, cpu=0.03, net=300_000, disk=2_000_000),
    "a long compile": Trace()
    .then(2, "a", typed=0, cpu=1.0, tools=[tool("cargo", "finite", cpu=0.1)])
    .then(180, "a", typed=2, cpu=3.8, tools=[tool("cargo", "finite", cpu=0.1, child=True)])
    .then(60, "i", typed=182),
    "a quiet compile: one link that reads for hours": Trace()
    .then(120, "a", typed=5, cpu=0.0, tools=[tool("ld", "finite")])
    .then(10, "i", typed=125),
    "a watcher that rebuilds when something changes": Trace()
    .then(5, "a", typed=0, cpu=0.4, tools=[tool("node", "server", cpu=0.4)])
    .then(90, "i", typed=5, cpu=0.01, tools=[tool("node", "server", cpu=0.01, tty=True)])
    .then(1, "a", typed=95, cpu=0.7, tools=[tool("node", "server", cpu=0.7)])
    .then(30, "i", typed=96, cpu=0.01, tools=[tool("node", "server", cpu=0.01)]),
    "a watcher that prints to stay alive": Trace()
    .then(1, "a", typed=1, tools=[tool("watch.sh", "job", tty=True)], cpu=0.06)
    .then(9, "a", typed=2, tools=[tool("watch.sh", "job", tty=True)])
    .then(60, "i", typed=11, tools=[tool("watch.sh", "job", tty=True)]),
    "a test run that sleeps": Trace()
    .then(1, "a", typed=0, tools=[tool("pytest", "finite", cpu=0.5)])
    .then(300, "a", typed=1, tools=[tool("pytest", "finite")])
    .then(30, "i", typed=301),
    "a test run that hangs for ever": Trace()
    .then(1, "a", typed=0, tools=[tool("pytest", "finite", cpu=0.5)])
    .then(719, "a", typed=1, tools=[tool("pytest", "finite")])
    .then(60, "i", typed=720, tools=[tool("pytest", "finite")]),
    "a script that sleeps and looks again": Trace()
    .then(1, "a", typed=0)
    .then(300, "a", typed=1, tools=[tool("poll.sh", "job", child=True)])
    .then(9, "a", typed=301, tools=[tool("poll.sh", "job")])
    .then(30, "i", typed=310, tools=[tool("poll.sh", "job")]),
    "a quiet command that somebody waits for": Trace()
    .then(720, "a", tools=[tool("quiet.sh", "exec", since=START)])
    .then(1, "a", tools=[tool("quiet.sh", "exec", since=START, child=True)])
    .then(9, "a", tools=[tool("quiet.sh", "exec", since=START)])
    .then(30, "i", tools=[tool("quiet.sh", "exec", since=START)]),
    "a script without a terminal, and a daemon of the user": Trace()
    .then(300, "a", tools=[tool("poll.sh", "background", child=True)])
    .then(9, "a", tools=[tool("poll.sh", "background")])
    .then(30, "i", tools=[tool("poll.sh", "background", cpu=0.04)]),
    "only the GPU works": Trace().then(300, "a", gpu=97.0, cpu=0.03).then(30, "i", gpu=0.0, cpu=0.0),
    "a cron job of the user": Trace()
    .then(20, "i")
    .then(3, "a", cpu=0.6)
    .then(20, "i")
    .then(1, "i", cpu=0.02),
    "scp of a large file": Trace()
    .then(40, "a", net=120_000_000, tools=[tool("sftp-server", "transfer", io=120_000_000)])
    .then(9, "a", tools=[tool("sftp-server", "transfer")])
    .then(30, "i", tools=[tool("sftp-server", "transfer")]),
    "a slow download": Trace()
    .then(60, "a", net=600_000, tools=[tool("curl", "transfer", io=600_000)])
    .then(30, "i"),
    "a paused debugger": Trace()
    .then(5, "a", typed=0, tools=[tool("gdb", "debugger", cpu=0.2)])
    .then(119, "a", typed=5, tools=[tool("gdb", "debugger")])
    .then(30, "i", typed=124, tools=[tool("gdb", "debugger")]),
    "a video call on a forward": Trace().then(50, "a", net=15_000_000).then(30, "i", net=90_000),
    "a busy notebook, then a silent one": Trace()
    .then(20, "a", cpu=0.9, tools=[tool("ipykernel", "kernel", cpu=0.9)])
    .then(9, "a", tools=[tool("ipykernel", "kernel")])
    .then(30, "i", tools=[tool("ipykernel", "kernel")]),
    "work in a container": Trace()
    .then(30, "a", containers={"build": 0.8})
    .then(30, "i", containers={"postgres": 0.01}),
    "a service that computes, and the system for itself": Trace()
    .then(30, "a", system=0.9)
    .then(30, "i", system=0.1),
    "a lease and an inhibitor": Trace()
    .then(30, "a", leases=[{"id": "l1", "why": "keep-alive", "until": START + 1800}])
    .then(10, "a", inhibitors=["dnf: transaction"])
    .then(10, "i"),
    "typing and thinking": Trace().then(2, "a", typed=0).then(13, "i", typed=2).then(2, "a", typed=0),
    "a collector that does not answer": Trace()
    .then(10, "i")
    .then(20, "u", missing=["gpu: nvidia-smi did not answer"])
    .then(2, "a", missing=["gpu: nvidia-smi did not answer"], cpu=0.5)
    .then(10, "i"),
}


@pytest.mark.parametrize("name", TRACES)
def test_each_minute_has_its_verdict(name: str) -> None:
    trace = TRACES[name]
    assert verdicts(trace.samples) == trace.expected


@pytest.mark.parametrize("name", TRACES)
def test_no_trace_is_stopped_in_a_minute_that_is_not_idle(name: str) -> None:
    """And where it is idle for long enough, it is."""
    trace = TRACES[name]
    found = [round((at - START) / 60) for at, _ in stops(trace.samples)]
    assert all(trace.expected[minute - 29 : minute + 1] == "i" * 30 for minute in found)
    expected = [n for n in range(29, len(trace.expected)) if trace.expected[n - 29 : n + 1] == "i" * 30]
    assert found[-1:] == expected[-1:]


def test_the_evidence_names_every_signal_and_says_which_counts() -> None:
    state = judge(before(sample(0)), sample(0, input=47 * 60.0, gpu=0.0, tools=[tool("vim", "job", cpu=0.3)]))
    assert state["evidence"] == [
        ["vim", "cpu", True],
        ["input", "last key 47 min ago", False],
        ["cpu", "0.4 % of a core", False],
        ["gpu", "0 %", False],
        ["net", "9 kB a minute", False],
        ["disk", "4.1 kB a minute", False],
    ]
    assert state["last"] == [START, "vim", "cpu"]


def test_what_a_box_says_is_bounded_and_printable() -> None:
    """It may be hostile."""
    many = [tool("x\x1b[31m" * 100, "job", id=n, cpu=1.0) for n in range(5000)]
    given: Any = sample(0, tools=many, missing=["\x07" * 999] * 999, containers={"\x1b": "x"}, cpu="nan")
    state = judge(before(sample(0)), given)
    assert len(state["evidence"]) <= idle.EVIDENCE_MOST
    assert len(state["seen"]) <= idle.TOOLS_MOST
    assert len(json.dumps(state)) < 30_000
    assert "\\u001b" not in json.dumps(state["evidence"])


# Gaps, boots and clocks ------------------------------------------------------------------------------------


def test_a_gap_is_unknown_and_the_idle_time_begins_anew() -> None:
    state = before(sample(0))
    for minute in range(25):
        state = judge(state, sample(minute))
    assert state["idle_since"] == START - 60.0
    state = judge(state, sample(60))
    assert (state["verdict"], state["idle_since"]) == ("unknown", None)
    assert state["minutes"].endswith("i" + "u" * 36)
    state = judge(state, sample(61))
    assert (state["verdict"], state["idle_since"]) == ("idle", START + 3600.0)


@pytest.mark.parametrize("change", [{"boot": "other"}, {"at": START - 7200.0}], ids=["boot", "clock"])
def test_another_boot_or_a_clock_that_ran_back_starts_anew(change: dict[str, Any]) -> None:
    state = before(sample(0))
    for minute in range(40):
        state = judge(state, sample(minute))
    state = judge(state, sample(40, **change))
    assert (state["verdict"], state["idle_since"]) == ("unknown", None)


def test_a_key_five_seconds_before_the_stop_saves_the_box() -> None:
    """The look that precedes a stop sees it."""
    state, at = before(sample(0)), START
    for minute in range(30):
        state = judge(state, sample(minute))
        at = START + 60.0 * minute
        if (decision := decide(state, RULES, at))["do"] == "warn":
            state = warn(state, decision, at)
    deadline = decide(state, RULES, at)["at"]
    assert deadline == START - 60.0 + 1800.0
    last = sample(0, at=deadline, span=deadline - at, input=5.0)
    state = judge(state, last)
    assert state["verdict"] == "active"
    assert decide(state, RULES, deadline)["do"] == "rest"
    assert state["warned"] is None


# Deadlines -------------------------------------------------------------------------------------------------


def idle_for(minutes: int, **rules: Any) -> tuple[dict[str, Any], dict[str, Any], float]:
    state = before(sample(0))
    for minute in range(minutes):
        state = judge(state, sample(minute))
    at = START + 60.0 * (minutes - 1)
    return state, {**RULES, **rules}, at


@pytest.mark.parametrize(
    ("rules", "does", "deadline", "why"),
    [
        ({}, "rest", 1740.0, "idle since 15 min"),
        ({"never": [[START + 1000, START + 9000], [START + 9000, START + 9900]]}, "rest", 9900.0, "never"),
        ({"never": [[START + 1800, START + 9000]]}, "rest", 1740.0, "idle since"),
        ({"held": START + 5000}, "rest", 5000.0, "extend"),
        ({"leases": [{"id": "l", "until": START + 6000}]}, "rest", 6000.0, "lease l"),
        ({"leases": [{"id": "l", "until": START + 6000, "command": "x"}]}, "rest", 1740.0, "idle since"),
        # Outside of its hours it goes after the time that a warning takes: the warning is due at once.
        ({"hours": [[START - 9000, START - 8000]]}, "warn", 1440.0, "idle since"),
        ({"hours": [[START - 9000, START + 1500]]}, "rest", 1500.0, "idle since"),
        ({"hours": [[START - 9000, START + 9000]]}, "rest", 1740.0, "idle since"),
        ({"max_run": 3600.0, "started": START - 2000}, "rest", 1600.0, "longest time"),
    ],
)
def test_the_deadline_and_its_reason(rules: dict[str, Any], does: str, deadline: float, why: str) -> None:
    """Asked fifteen minutes into the quiet."""
    state, given, at = idle_for(15, **rules)
    decision = decide(state, given, at)
    assert (decision["do"], decision["at"]) == (does, START + deadline)
    assert why in decision["why"]


def test_how_long_nothing_is_known_is_counted_but_no_time_without_a_look() -> None:
    state = before(sample(0))
    for minute in range(3):
        state = judge(state, sample(minute))
    assert blind(state) == (0.0, "")
    for minute in range(3, 23):
        state = judge(state, sample(minute, missing=["gpu: lost", "net: lost"]))
    assert blind(state) == (1200.0, "gpu: lost; net: lost")
    state = judge(state, sample(240))
    assert state["verdict"] == "unknown"
    assert blind(state) == (0.0, "")


def test_unknown_never_stops_and_says_so() -> None:
    state = before(sample(0))
    for minute in range(600):
        state = judge(state, sample(minute, missing=["net"]))
        decision = decide(state, RULES, START + 60.0 * minute)
        assert (decision["do"], decision["at"]) == ("rest", None)
    assert "cannot be told" in decision["why"]


def test_an_old_look_stops_nothing() -> None:
    state, rules, at = idle_for(40)
    state = warn(state, decide(state, rules, at), at)
    assert decide(state, rules, at + 700.0)["do"] == "rest"
    fresh = judge(state, sample(0, at=at + 60.0))
    assert decide(fresh, rules, at + 600.0)["do"] == "rest"  # the look is too old by then
    for minute in range(1, 11):
        fresh = judge(fresh, sample(0, at=at + 60.0 * (minute + 1)))
    assert decide(fresh, rules, at + 660.0)["do"] == "stop"


def test_the_longest_run_ends_though_something_works_but_not_unwarned() -> None:
    rules = {**RULES, "max_run": 3600.0, "started": START}
    state, stopped = before(sample(0)), None
    for minute in range(100):
        at = START + 60.0 * minute
        state = judge(state, sample(minute, cpu=0.9))
        decision = decide(state, rules, at)
        if decision["do"] == "warn":
            assert minute == 50
            state = warn(state, decision, at)
        if decision["do"] == "stop":
            stopped = minute
            break
    assert stopped == 60


# The lid ----------------------------------------------------------------------------------------------------


LID = {**RULES, "after": 36000.0, "lid": 900.0}


def slept(minutes: int, last: int, *, holds: float = 300.0, works: int = -1) -> list[tuple[int, str]]:
    """Warnings and stops by minute, of a quiet box; ``last``: the minute of the only sign; ``works``: up to then."""
    state, found = before(sample(0)), []
    for minute in range(minutes):
        at = START + 60.0 * minute
        state = judge(state, sample(minute, cpu=0.5 if minute <= works else 0.0))
        if minute == last:
            state = signed(state, "me@here/1", holds, at)
        decision = decide(state, LID, at)
        if decision["do"] != "rest":
            found.append((minute, decision["do"]))
        if decision["do"] == "warn":
            state = warn(state, decision, at)
        if decision["do"] == "stop":
            break
    return found


def test_a_box_goes_so_long_after_the_last_sign_of_a_laptop() -> None:
    assert slept(600, last=40) == [(48, "warn"), (56, "stop")]
    assert slept(600, last=40, works=50) == [(58, "warn"), (66, "stop")]  # work counts from its end
    assert slept(600, last=-1)[0] == (589, "warn")  # no laptop was ever here: the usual time
    # A laptop that signs for half an hour has its half hour.
    assert slept(600, last=40, holds=1800.0) == [(70, "warn"), (78, "stop")]


def test_a_sign_takes_the_warning_away_and_a_new_life_of_the_box_has_none() -> None:
    state = judge(before(sample(0)), sample(0))
    state = signed(state, "a", 60.0, START)
    for minute in range(1, 12):
        state = judge(state, sample(minute))
    decision = decide(state, LID, START + 660.0)
    assert (decision["do"], decision["cause"], decision["alone"]) == ("warn", "lid", True)
    state = warn(state, decision, START + 660.0)
    assert judge(state, sample(12, cpu=0.9))["warned"] is None
    state = signed(state, "a", 300.0, START + 690.0)
    assert state["warned"] is None
    decision = decide(state, LID, START + 690.0)
    assert (decision["cause"], decision["alone"]) == ("idle", False)
    assert judge(state, {**sample(12), "boot": "other"})["here"] == {}


def test_only_so_many_laptops_are_remembered_the_newest_ones() -> None:
    state = before(sample(0))
    for number in range(40):
        state = signed(state, f"laptop {number}", 60.0, START + number)
    assert list(state["here"]) == [f"laptop {number}" for number in range(24, 40)]


def test_where_the_usual_time_comes_first_nobody_is_waited_for_either() -> None:
    """The lid was closed late in a quiet time: the box is alone, so its own watchdog needs no margin."""
    state, rules, at = idle_for(28)
    state = signed(state, "a", 30.0, at)
    decision = decide(state, {**rules, "lid": 900.0}, at + 60.0)
    assert (decision["cause"], decision["alone"]) == ("idle", True)
    assert not decide(state, rules, at + 60.0)["alone"]


def test_what_a_closed_lid_would_do_is_known_before() -> None:
    state, rules, at = idle_for(15)
    state = signed(state, "a", 300.0, at)
    found = unattended(state, {**rules, "after": 36000.0, "lid": 900.0}, at)
    assert (found["at"], found["cause"]) == (at + 900.0, "lid")
    lease = {"id": "l", "until": at + 7200.0}
    found = unattended(state, {**rules, "after": 36000.0, "lid": 900.0, "leases": [lease]}, at)
    assert found["at"] == at + 7200.0
    busy = judge(state, sample(99, at=at + 60.0, cpu=1.0))
    assert unattended(busy, {**rules, "lid": 900.0}, at + 60.0)["at"] is None


@settings(max_examples=200, deadline=None)
@given(
    signs=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 90)), max_size=12),
    work=st.sets(st.integers(0, 90), max_size=20),
    lid=st.integers(5, 30),
)
def test_the_lid_stops_no_box_that_works_or_that_a_laptop_keeps(
    signs: list[tuple[int, int]], work: set[int], lid: int
) -> None:
    rules = {**RULES, "after": 90000.0, "lid": 60.0 * lid}
    state, warned = before(sample(0)), None
    for minute in range(200):
        at = START + 60.0 * minute
        state = judge(state, sample(minute, cpu=0.5 if minute in work else 0.0))
        for who, when in signs:
            if when == minute:
                state = signed(state, str(who), 30.0 * lid, at)
        decision = decide(state, rules, at)
        if decision["do"] == "warn":
            state, warned = warn(state, decision, at), minute
        if decision["do"] != "stop":
            continue
        seen = [when for _, when in signs if when <= minute]
        assert seen
        assert minute - max(seen) >= lid
        assert not {when for when in work if minute - lid < when <= minute}
        assert warned is not None
        assert minute - warned >= min(10, lid / 2)
        return
    assert not [when for _, when in signs]  # whoever was here and left is followed in the end


# Property S10 ----------------------------------------------------------------------------------------------

minutes = st.sampled_from(["i", "i", "i", "i", "i", "a", "u", "gap"])
spans = st.lists(
    st.tuples(st.integers(0, 200), st.integers(1, 60)).map(
        lambda one: [START + 60.0 * one[0], START + 60.0 * (one[0] + one[1])]
    ),
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(
    runs=st.lists(st.tuples(minutes, st.integers(1, 70)), min_size=1, max_size=8),
    never=spans,
    held=st.none() | st.integers(0, 200).map(lambda m: START + 60.0 * m),
    lease=st.none() | st.integers(0, 200).map(lambda m: START + 60.0 * m),
    after=st.integers(5, 60),
    part=st.floats(0.1, 1.0),
)
def test_s10_a_box_is_stopped_only_when_all_of_it_holds(
    runs: list[tuple[str, int]],
    never: list[list[float]],
    held: float | None,
    lease: float | None,
    after: int,
    part: float,
) -> None:
    """Fresh, idle for the whole grace, no hold, no lease, no protected time, warned long enough ago."""
    rules: dict[str, Any] = {
        "after": 60.0 * after,
        "warn": max(60.0, 60.0 * after * part),
        "never": never,
        "held": held,
        "leases": [] if lease is None else [{"id": "l", "until": lease}],
    }
    state, minute, history = before(sample(0)), -1, [(START - 60.0, "u", 0.0)]
    warned: float | None = None
    for kind, count in runs:
        for _ in range(count):
            minute += 1
            if kind == "gap":
                continue
            at = START + 60.0 * minute
            words: dict[str, dict[str, Any]] = {"a": {"cpu": 1.0}, "u": {"missing": ["x"]}}
            seen = {**words.get(kind, {}), "span": at - history[-1][0]}
            leases = [{"id": "l", "until": lease}] if lease is not None and at < lease else []
            state = judge(state, sample(minute, leases=leases, **seen))
            history.append((at, state["verdict"][0], seen["span"]))
            decision = decide(state, rules, at)
            if decision["do"] == "warn":
                state, warned = warn(state, decision, at), at
            if decision["do"] != "stop":
                continue
            grace = [one for one in history if at - rules["after"] < one[0] <= at]
            assert all(verdict == "i" for _, verdict, _ in grace)
            assert sum(seconds for _, _, seconds in grace) >= rules["after"]  # none is missing
            assert not any(begin <= at < end for begin, end in never)
            assert held is None or at >= held
            assert lease is None or at >= lease
            assert warned is not None
            assert at - warned >= rules["warn"]


def test_the_state_is_json_and_small() -> None:
    """It is written each minute, and read by whatever Python the box has."""
    state = before(sample(0))
    for minute in range(3000):
        state = judge(state, sample(minute, tools=[tool("x", "job", id=minute)]))
    assert json.loads(json.dumps(state)) == state
    assert len(state["minutes"]) == idle.MINUTES_KEPT
    assert len(state["seen"]) == 1
    assert empty()["verdict"] == "unknown"
    assert QUIET["cpu"] < idle.CPU_LEAST

"""The table of a session, row by row: every row of it, its exceptions, the waits, the verdicts."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.errors import (
    BadRequest,
    Denied,
    DevboxError,
    LoginNeeded,
    NotConnected,
    SessionOver,
    Throttled,
    Unreachable,
    WrongState,
)
from devboxd.model.hold import (
    BEAT,
    CARRIED_AFTER,
    TABLE,
    Do,
    Happened,
    Interest,
    Liveness,
    Past,
    Rule,
    Signs,
    Step,
    Wait,
    keeps_alive,
    link_over,
    liveness,
    may_ask,
    next_step,
    resume_refused,
    silent_start_left,
    skips_gap,
    start_refused,
)
from devboxd.model.session import Ending
from devboxd.model.states import KeepAlive

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"
START = 1000.0  # when everything here began


def past(**what: object) -> Past:
    """A session that was asked for at ``START``, for a person who waits two minutes."""
    return msgspec.structs.replace(Past(began=START, lost_at=START, patience=120.0), **what)


def step(before: Past, happened: Happened, at: float = START, dice: float = 0.5, **more: object) -> Step:
    more.setdefault("interest", Interest.NOBODY)
    return next_step(before, happened, at, dice, **more)[1]  # type: ignore[arg-type]


# The page ----------------------------------------------------------------------------------------------


def words(rule: Rule) -> str:
    """A row as ``docs/protocol.md`` says it."""
    text = rule.do.value if rule.do in (Do.END, Do.LOOK, Do.RESTART) else f"{rule.do.value} {rule.wait.value}"
    if rule.ending is not None:
        text += f" ({rule.ending.value})"
    return text if rule.but is None else f"{text}; if {rule.but[0].value}: {words(rule.but[1])}"


def test_the_page_shows_the_table_as_it_is() -> None:
    """Whoever reads why a session was given up must read the truth."""
    section = PAGE.read_text().partition("## 11. Holding a session")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", section.partition("|---|---|")[2].partition("\n\n")[0], re.M)
    assert rows == [(happened.value, words(rule)) for happened, rule in TABLE.items()]


def test_everything_that_can_happen_has_a_row() -> None:
    """A gap would be a session that nobody holds."""
    assert list(TABLE) == list(Happened)


@pytest.mark.parametrize("happened", Happened)
@given(
    data=st.data(),
    dice=st.floats(0, 1, exclude_max=True),
    interest=st.sampled_from(Interest),
    rang=st.booleans(),
    after=st.floats(0, 1e7),
)
def test_whatever_the_past_a_wait_is_finite_and_an_end_says_how(
    happened: Happened, data: st.DataObject, dice: float, interest: Interest, rang: bool, after: float
) -> None:
    """No session waits for ever, none ends without a word."""
    before = past(
        patience=data.draw(st.none() | st.floats(0, 1e6)),
        waits_for_login=data.draw(st.booleans()),
        tries=data.draw(st.integers(0, 10**6)),
        mute=data.draw(st.integers(0, 10**6)),
        sessions=data.draw(st.integers(1, 3)),
    )
    new, next_one = next_step(before, happened, START + after, dice, interest=interest, rang=rang)
    assert 0 <= next_one.wait <= 30.0
    assert (next_one.ending is not None) is (next_one.do is Do.END)
    assert next_one.wait > 0 or next_one.do is not Do.START, "a start is never asked twice in one moment"
    assert new.tries <= before.tries + 1


# Starting ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "happened"),
    [
        (NotConnected("not yet"), Happened.START_ABSENT),
        (LoginNeeded("expired"), Happened.START_LOGIN),
        (Unreachable("no network"), Happened.START_TROUBLE),
        (Throttled("slow down"), Happened.START_TROUBLE),
        (Denied("no"), Happened.START_FINAL),
        (WrongState("no"), Happened.START_FINAL),
        (SessionOver("no"), Happened.START_FINAL),
    ],
)
def test_what_a_refused_start_means(error: DevboxError, happened: Happened) -> None:
    """A denied call repeated for two minutes is a hang; a box that boots is worth the wait."""
    assert start_refused(error) is happened


def test_what_cannot_succeed_later_is_not_tried_again() -> None:
    assert step(past(patience=None), Happened.START_FINAL) == Step(Do.END, ending=Ending.FAILED)


@pytest.mark.parametrize("dice", [0.0, 0.3, 0.9999])
def test_a_box_that_boots_is_polled(dice: float) -> None:
    """A poll, not a back-off: whoever started the box sits there; but not all in one moment."""
    before = past(tries=9)
    after, next_one = next_step(before, Happened.START_ABSENT, START + 60, dice, interest=Interest.NOBODY)
    assert after == before
    assert next_one.do is Do.START
    assert 2.0 < next_one.wait < 4.0


@pytest.mark.parametrize("happened", [Happened.START_ABSENT, Happened.START_TROUBLE])
def test_patience_with_a_box_has_an_end(happened: Happened) -> None:
    """A script must not hang on a box that is off; the last try is at the deadline."""
    before = past(patience=30.0, tries=20)
    assert step(before, happened, START + 29.5).wait == pytest.approx(0.5)
    assert step(before, happened, START + 29.99).wait == pytest.approx(0.05)
    assert step(before, happened, START + 30.0) == Step(Do.END, ending=Ending.FAILED)
    for hours in (0, 1, 12):  # an attach that was joined before stays through a night with the box stopped
        assert step(past(patience=None), happened, START + hours * 3600).do is Do.START


def test_a_missing_login_fails_at_once_where_nobody_waits() -> None:
    """The user is at the prompt: tell, do not hang. An attach that must reopen waits for ever."""
    assert step(past(), Happened.START_LOGIN) == Step(Do.END, ending=Ending.FAILED)
    patient = past(waits_for_login=True, patience=10.0)
    assert step(patient, Happened.START_LOGIN, START + 3600) == Step(Do.START, 30.0, for_login=True)


@pytest.mark.parametrize("happened", [Happened.START_TROUBLE, Happened.RESUME_THROTTLED])
def test_what_is_throttled_backs_off(happened: Happened) -> None:
    """Fifty forwards that come back at once must not keep the account throttled, whoever waits for them."""
    seen, now = past(patience=None), START
    waits = []
    for _ in range(9):
        seen, next_one = next_step(seen, happened, now, 1.0, interest=Interest.NOW)
        waits.append(next_one.wait)
        now += next_one.wait
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0])


def test_a_far_end_without_a_word_gets_three_sessions() -> None:
    """And then it is the box, not an attach that hangs for ever. Each has the whole time to start."""
    seen = past(patience=30.0, tries=7, mute=3)
    for number in (2, 3):
        seen, next_one = next_step(seen, Happened.SILENT, START + 25 * number, 0.5, interest=Interest.NOW)
        assert next_one == Step(Do.RESTART)
        assert (seen.sessions, seen.tries, seen.mute) == (number, 0, 0)
        assert step(seen, Happened.START_ABSENT, START + 25 * number + 29).do is Do.START
    assert step(seen, Happened.SILENT) == Step(Do.END, ending=Ending.FAILED)


# Links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lived", "heard", "status", "happened"),
    [
        (60.0, True, None, Happened.LINK_OLD),
        (1.01, True, None, Happened.LINK_OLD),
        (1.0, True, None, Happened.LINK_YOUNG),
        (60.0, False, None, Happened.LINK_MUTE),
        (0.0, False, None, Happened.LINK_MUTE),
        (0.0, False, 401, Happened.LINK_UNAUTHORIZED),
        (0.0, False, 403, Happened.LINK_UNAUTHORIZED),
        (0.0, False, 407, Happened.LINK_PROXY),
        (0.0, False, 410, Happened.LINK_MUTE),
        (0.0, False, 502, Happened.LINK_MUTE),
    ],
)
def test_what_the_end_of_a_link_means(
    lived: float, heard: bool, status: int | None, happened: Happened
) -> None:
    """With which code it was closed does not matter: 1000 "Bye" is the service's hourly routine."""
    assert link_over(lived=lived, heard=heard, status=status) is happened


@pytest.mark.parametrize(
    ("lived", "heard", "happened"),
    [
        (60.0, True, Happened.LINK_OLD),
        (1.0, True, Happened.LINK_CUT),
        (CARRIED_AFTER + 0.01, True, Happened.LINK_CUT),
        (
            CARRIED_AFTER,
            True,
            Happened.LINK_YOUNG,
        ),  # what dies of its first frames is not asked for in a loop
        (0.5, False, Happened.LINK_MUTE),
    ],
)
def test_a_link_that_carried_something_is_not_one_that_never_worked(
    lived: float, heard: bool, happened: Happened
) -> None:
    assert link_over(lived=lived, heard=heard, carried=True) is happened


@pytest.mark.parametrize("interest", [Interest.NOW, Interest.LATER])
def test_links_that_are_cut_again_and_again_come_back_each_time_as_soon(interest: Interest) -> None:
    """A bad network cuts each second what it carries: half of that second must not be a back-off."""
    seen, now = past(tries=9, mute=3), START
    for _ in range(100):
        seen, next_one = next_step(seen, Happened.LINK_CUT, now, 0.999, interest=interest)
        assert next_one.do is Do.RESUME
        assert 0.02 <= next_one.wait <= 0.2
        assert (seen.tries, seen.mute, seen.lost_at) == (1, 0, now)
        now += 1.0
    quick = step(seen, Happened.LINK_CUT, now, dice=0.0, interest=interest)
    assert quick.wait == pytest.approx(0.02), "and never at once: each costs two calls"


def test_a_proxy_that_refuses_us_ends_what_never_worked_and_holds_what_did() -> None:
    """Nobody waits two minutes for a wrong password; a session of this morning outlives its rotation."""
    assert step(past(), Happened.LINK_PROXY) == Step(Do.END, ending=Ending.FAILED)
    worked = step(
        past(lost_at=START + 60, tries=9), Happened.LINK_PROXY, at=START + 61, interest=Interest.NOW
    )
    assert worked.do is Do.RESUME
    assert worked.wait > 10, "not each two seconds, whoever waits"


def test_a_link_that_lived_is_resumed_at_once_and_forgives() -> None:
    """Back within the second; the next back-off starts from the beginning."""
    seen, next_one = next_step(
        past(tries=9, mute=3), Happened.LINK_OLD, START + 60, 0.5, interest=Interest.NOBODY
    )
    assert next_one == Step(Do.RESUME)
    assert (seen.tries, seen.mute, seen.lost_at) == (0, 0, START + 60)


@pytest.mark.parametrize(
    "happened",
    [Happened.LINK_YOUNG, Happened.LINK_CUT, Happened.LINK_MUTE, Happened.LINK_UNAUTHORIZED],
)
def test_a_link_that_dies_young_does_not_reset_the_back_off(happened: Happened) -> None:
    """Or we would hammer AWS for a session that nobody waits for."""
    seen, now, resumes = past(), START, 0
    while now < START + 3600:
        seen, next_one = next_step(seen, happened, now, 1.0, interest=Interest.NOBODY)
        if next_one.do is Do.LOOK:
            seen, next_one = next_step(seen, Happened.EXISTS, now, 1.0, interest=Interest.NOBODY)
        assert next_one.do is Do.RESUME
        now += next_one.wait
        resumes += 1
        seen, next_one = next_step(seen, Happened.RESUMED, now, 1.0, interest=Interest.NOBODY)
        assert next_one == Step(Do.DIAL)
    assert resumes < 3600 / 30 + 20


def test_links_that_die_without_a_frame_make_us_ask_now_and_then() -> None:
    """ResumeSession gives tokens for a terminated session for a while."""
    seen, asked = past(), []
    for number in range(1, 12):
        seen, next_one = next_step(seen, Happened.LINK_MUTE, START, 0.5, interest=Interest.NOBODY)
        if next_one.do is Do.LOOK:
            asked.append(number)
            assert next_one.wait == 0
    assert asked == [4, 8]
    seen, _ = next_step(seen, Happened.LINK_YOUNG, START, 0.5, interest=Interest.NOBODY)
    assert step(seen, Happened.LINK_MUTE).do is Do.RESUME, "the gateway spoke: counted afresh"


def test_only_a_plain_no_is_an_end() -> None:
    """An account that may not ask has sessions, too."""
    assert step(past(mute=4), Happened.EXISTS_NOT) == Step(Do.END, ending=Ending.GONE)
    assert step(past(mute=4), Happened.EXISTS).do is Do.RESUME


def test_some_gateways_want_a_signature_and_some_refuse_one() -> None:
    """The next dial is the other way round, whichever it was."""
    seen = past()
    for signs in (False, True, False):
        seen, next_one = next_step(seen, Happened.LINK_UNAUTHORIZED, START, 0.5, interest=Interest.NOBODY)
        assert seen.signs is signs
        assert next_one.do is Do.RESUME
    seen, _ = next_step(seen, Happened.LINK_OLD, START, 0.5, interest=Interest.NOBODY)
    assert seen.signs is False, "what worked is kept"


@pytest.mark.parametrize(
    "happened",
    [
        Happened.LINK_UNAUTHORIZED,
        Happened.LINK_MUTE,
        Happened.LINK_YOUNG,
        Happened.LINK_CUT,
        Happened.EXISTS,
    ],
)
def test_what_died_with_the_old_network_is_resumed_at_once(happened: Happened) -> None:
    """Back within two seconds of the network's return, and no trouble is counted."""
    seen, next_one = next_step(past(tries=9), happened, START, 0.5, interest=Interest.NOW, rang=True)
    assert next_one == Step(Do.RESUME)
    assert seen.tries == 9


@pytest.mark.parametrize("happened", [Happened.DIAL_CUT, Happened.RESUME_CUT])
def test_what_was_asked_over_the_old_network_is_asked_over_the_new_one(happened: Happened) -> None:
    """It may never be answered; that is not the session's fault."""
    before = past(tries=9, mute=3)
    assert next_step(before, happened, START, 0.5, interest=Interest.NOBODY) == (before, Step(Do.RESUME))


# Resuming ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "happened"),
    [
        (SessionOver("no token"), Happened.RESUME_OVER),
        (LoginNeeded("expired"), Happened.RESUME_LOGIN),
        (Denied("revoked"), Happened.RESUME_DENIED),
        (BadRequest("there is no AWS profile named x"), Happened.RESUME_DENIED),
        (Throttled("slow down"), Happened.RESUME_THROTTLED),
        (Unreachable("no network"), Happened.RESUME_TROUBLE),
        (WrongState("who knows"), Happened.RESUME_TROUBLE),
    ],
)
def test_what_a_refused_resume_means(error: DevboxError, happened: Happened) -> None:
    """Only the service's own word is the end of a session; anything else may pass."""
    assert resume_refused(error) is happened


def test_expired_or_revoked_credentials_are_waited_for() -> None:
    """The main reason why long tunnels die; asked every half minute, no faster."""
    for happened in (Happened.RESUME_LOGIN, Happened.RESUME_DENIED):
        for hours in (0, 48):
            assert step(past(), happened, START + hours * 3600) == Step(Do.RESUME, 30.0, for_login=True)


@pytest.mark.parametrize(
    ("interest", "outage", "most"),
    [
        (Interest.NOBODY, 0, 30.0),
        (Interest.LATER, 0, 5.0),
        (Interest.NOW, 0, 2.0),
        (Interest.LATER, 300, 10.0),
        (Interest.NOW, 300, 10.0),
        (Interest.NOW, 12 * 3600, 30.0),
    ],
)
def test_a_wait_behind_which_somebody_sits_is_bounded(interest: Interest, outage: float, most: float) -> None:
    """A network comes back without a word to us; but a weekend in a rucksack is not a call each second."""
    seen = past(tries=30)
    for dice in (0.0, 0.5, 0.9999):
        wait = step(seen, Happened.RESUME_TROUBLE, START + outage, dice, interest=interest).wait
        assert min(most, 30.0 * 0.1) / 2 <= wait <= most


# The end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happened", "ending"),
    [
        (Happened.CLOSED, Ending.FINISHED),
        (Happened.RESUME_OVER, Ending.GONE),
        (Happened.BROKEN, Ending.BROKEN),
        (Happened.KEYLESS, Ending.FAILED),
        (Happened.STOPPED, Ending.STOPPED),
    ],
)
def test_what_ends_a_session_ends_it_whatever_was(happened: Happened, ending: Ending) -> None:
    """Typing ``exit`` must not bring a new shell."""
    for before in (past(), past(patience=None, waits_for_login=True, tries=5, mute=4)):
        assert step(before, happened, interest=Interest.NOW) == Step(Do.END, ending=ending)


def test_nothing_but_these_is_an_end() -> None:
    """Whatever a network does, it never ends a session."""
    ends = {happened for happened, rule in TABLE.items() if rule.do is Do.END}
    assert ends == {
        Happened.START_FINAL,
        Happened.EXISTS_NOT,
        Happened.RESUME_OVER,
        Happened.CLOSED,
        Happened.BROKEN,
        Happened.KEYLESS,
        Happened.STOPPED,
    }
    assert not [
        h for h, rule in TABLE.items() if h.value.startswith("the link") and rule.wait is Wait.BACK_OFF
    ]


# Signs of life ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead_after", [0.0, 0.1, 1.2, 2.5, 3.7, 4.99])
@pytest.mark.parametrize("typing", [False, True])
@pytest.mark.parametrize("policy", [KeepAlive.AUTO, KeepAlive.ALWAYS])
def test_a_dead_far_end_is_noticed_within_fifteen_seconds(
    dead_after: float, typing: bool, policy: KeepAlive
) -> None:
    """The link's pings are answered by the gateway, and nobody is behind it."""
    signs = Signs(heard_at=START, far_end_at=START, used_at=START)
    died = START + dead_after
    for beat in itertools.count(1):
        now = START + beat * BEAT
        signs = msgspec.structs.replace(signs, waits=typing and now > died)
        match liveness(signs, now, policy=policy, interest=Interest.NOW):
            case Liveness.STALLED:
                break
            case Liveness.PROBE if now <= died:
                signs = msgspec.structs.replace(signs, heard_at=now, far_end_at=now)  # answered
            case Liveness.PROBE:
                signs = msgspec.structs.replace(signs, probed_at=now)
            case Liveness.FINE:
                pass
    assert now - died <= 15.0


def test_a_far_end_that_is_slow_but_takes_data_is_not_called_dead() -> None:
    """An upload over a thin line: acknowledgements come, the probe is queued behind a megabyte."""
    signs = Signs(heard_at=START + 58, far_end_at=START + 58, probed_at=START, waits=True)
    assert liveness(signs, START + 60, policy=KeepAlive.AUTO, interest=Interest.NOW) is Liveness.FINE
    assert liveness(signs, START + 63, policy=KeepAlive.AUTO, interest=Interest.NOW) is Liveness.STALLED


def test_what_is_unacknowledged_is_asked_about_whoever_waits() -> None:
    """It was sent anyway: a probe is no more activity than that."""
    signs = Signs(heard_at=START, waits=True)
    assert liveness(signs, START + 5, policy=KeepAlive.NEVER, interest=Interest.NOBODY) is Liveness.PROBE


@pytest.mark.parametrize(
    ("policy", "interest", "touches", "probes"),
    [
        (KeepAlive.AUTO, Interest.NOW, True, True),  # somebody watches: ask
        (KeepAlive.AUTO, Interest.LATER, True, False),  # somebody may come back
        (KeepAlive.AUTO, Interest.NOBODY, False, False),  # nobody does: let it idle out
        (KeepAlive.ALWAYS, Interest.NOBODY, True, False),
        (KeepAlive.NEVER, Interest.NOW, False, False),  # only while it is used
        (KeepAlive.NEVER, Interest.LATER, False, False),
    ],
)
def test_a_quiet_session_is_kept_as_the_policy_says(
    policy: KeepAlive, interest: Interest, touches: bool, probes: bool
) -> None:
    """A probe counts as activity: it must be there to keep a session, and absent to let it go."""
    signs = Signs(heard_at=START, used_at=START)
    hour = [START + 120 + number * BEAT for number in range(720)]
    assert {keeps_alive(signs, now, policy=policy, interest=interest) for now in hour} == {touches}
    seen = {liveness(signs, now, policy=policy, interest=interest) for now in hour}
    assert seen == {Liveness.PROBE if probes else Liveness.FINE}


def test_a_session_is_touched_before_the_shortest_idle_time_out() -> None:
    """60 s is the shortest that an account can set; and not more often than that takes."""
    touched, gaps = START, []
    for beat in range(1, 720):
        now = START + beat * BEAT
        if keeps_alive(
            Signs(START, used_at=START, touched_at=touched),
            now,
            policy=KeepAlive.AUTO,
            interest=Interest.LATER,
        ):
            gaps.append(now - touched)
            touched = now
    assert set(gaps) == {45.0}
    in_use = Signs(START, used_at=now - 10, touched_at=START)
    assert not keeps_alive(in_use, now, policy=KeepAlive.ALWAYS, interest=Interest.NOW), (
        "use keeps it by itself"
    )


def test_never_means_only_while_it_is_used() -> None:
    """Or the session could not idle out as its owner wants."""
    assert may_ask(KeepAlive.NEVER, START, START + 59)
    assert not may_ask(KeepAlive.NEVER, START, START + 60)
    assert may_ask(KeepAlive.AUTO, START, START + 1e6)
    signs = Signs(heard_at=START, used_at=START)
    assert liveness(signs, START + 30, policy=KeepAlive.NEVER, interest=Interest.NOW) is Liveness.PROBE


def test_a_far_end_has_its_time_on_a_link_not_in_the_dark() -> None:
    """A network that was away at the start is not the box's fault."""
    assert silent_start_left(START, START, START) == 20.0
    assert silent_start_left(START, START, START + 20) == 0.0
    assert silent_start_left(START, START + 600, START + 600) == 5.0
    assert silent_start_left(START, START + 18, START + 20) == 3.0


@pytest.mark.parametrize(
    ("missing", "before", "age", "skips"),
    [
        (0, 50, 9.0, False),  # nothing to skip
        (50, 0, 0.1, False),  # a burst on its way
        (50, 50, 0.1, True),  # five seconds of repairs
        (10, 50, 0.1, False),  # nearly repaired
        (1, 1, 0.6, True),  # one, and the agent does not send it
        (1, 1, 0.4, False),
    ],
)
def test_a_gap_is_given_up_where_its_repair_would_take_long(
    missing: int, before: int, age: float, skips: bool
) -> None:
    """Ten frames a second: three minutes of catching up after a long outage, for a screen of text."""
    assert skips_gap(missing, before, age, 0.5) is skips


def test_a_day_of_outage_costs_few_calls() -> None:
    """Fifty sessions of a laptop in a rucksack, all of them wanted."""
    seen, now, calls = past(), START, 0
    while now < START + 86400:
        seen, next_one = next_step(seen, Happened.RESUME_TROUBLE, now, 0.5, interest=Interest.NOW)
        now += next_one.wait
        calls += 1
    assert calls < 86400 / 15
    assert math.isfinite(now)

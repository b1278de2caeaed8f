"""What an attach decides: tables, and no time at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.errors import Denied, Unreachable, WrongState
from devboxd.model.attach import (
    AWAY_INPUT,
    BACKLOG_LIMIT,
    MAX_USELESS_STARTS,
    MOST_TYPED,
    RAW_BACKLOG_LIMIT,
    REPLACE_BEFORE,
    AfterEnd,
    Attachment,
    AttachSpec,
    Keys,
    Outflow,
    Phase,
    Reopen,
    Seen,
    TypeInstead,
    Verdict,
    after_end,
    looks_repaired,
    note,
    problem,
    replace_in,
    while_box_is,
)
from devboxd.model.box import Account, BoxRef
from devboxd.model.session import Ending, SessionEnd, SessionState
from devboxd.model.states import InstanceState, KeepAlive, Mux
from devboxd.model.terminal import Leaving, StatusLine

BOX = BoxRef("api", "i-0123456789abcdef0", Account())
NOW = 1_700_000_000.0

END = SessionEnd
ROWS = [
    # (end, mux, program_ended, useless) -> what follows
    (END(Ending.FINISHED), True, True, 0, AfterEnd.LEAVE),  # detached, or the last pane closed
    (END(Ending.GONE), True, True, 0, AfterEnd.LEAVE),
    (END(Ending.STOPPED), True, False, 0, AfterEnd.LEAVE),
    (END(Ending.FAILED), True, False, 0, AfterEnd.FAIL),
    (END(Ending.FINISHED), True, False, 0, AfterEnd.REOPEN),  # ended from outside
    (END(Ending.FINISHED, "timed out due to inactivity"), True, False, 0, AfterEnd.REOPEN),
    (END(Ending.GONE), True, False, 0, AfterEnd.REOPEN),
    (END(Ending.BROKEN), True, False, 0, AfterEnd.REOPEN),
    (END(Ending.FINISHED, "Unable to start command: x"), True, False, 0, AfterEnd.FAIL),
    (
        END(Ending.FINISHED, "Plugin … is not supported by this version of ssm agent"),
        True,
        False,
        0,
        AfterEnd.FAIL,
    ),
    (END(Ending.FINISHED), True, False, MAX_USELESS_STARTS, AfterEnd.FAIL),  # no endless loop
    (END(Ending.FINISHED), True, False, MAX_USELESS_STARTS - 1, AfterEnd.REOPEN),
    (END(Ending.FINISHED), False, False, 0, AfterEnd.LEAVE),  # ``exit`` in a plain shell
    (END(Ending.FINISHED, "timed out"), False, False, 0, AfterEnd.FAIL),
    (END(Ending.GONE), False, False, 0, AfterEnd.FAIL),
    (END(Ending.BROKEN, "output is lost"), False, False, 0, AfterEnd.FAIL),
]


@pytest.mark.parametrize(("end", "mux", "program_ended", "useless", "expected"), ROWS)
def test_what_follows_the_end_of_a_session(
    end: SessionEnd, mux: bool, program_ended: bool, useless: int, expected: AfterEnd
) -> None:
    """Reopen what outlives its session, leave when the user is done, fail with a reason otherwise."""
    assert after_end(end, mux=mux, program_ended=program_ended, useless_starts=useless) is expected


def attachment(*, keep_alive: KeepAlive = KeepAlive.AUTO, **spec: Any) -> Attachment:
    return Attachment(AttachSpec(box=BOX, **spec), keep_alive=keep_alive)


def joined(kind: str = "tmux", **spec: Any) -> Attachment:
    """One whose user sees a mux."""
    course = attachment(**spec)
    course.came_up(kind, "ana")
    return course


UP: dict[str, Any] = {"started": True, "kind": "tmux"}


def seen(ending: Ending = Ending.FINISHED, reason: str = "", **more: Any) -> Seen:
    return Seen(SessionEnd(ending, reason), **more)


@pytest.mark.parametrize(
    ("course", "ended", "expected"),
    [
        (joined(), seen(Ending.GONE, **UP), Reopen("the session ended", at_once=True)),
        (joined(), seen(reason="ended by ana", **UP), Reopen("ended by ana", at_once=True)),
        (joined(), seen(Ending.GONE), Reopen("the session ended", at_once=False)),
        (joined(), seen(program_ended=True, status=3, **UP), Leaving(status=3)),
        (joined("none"), seen(started=True, kind="none"), Leaving()),
        (joined("command", command="top"), seen(started=True, kind="command"), Leaving()),
        (attachment(rejoining=True), seen(Ending.GONE), Reopen("the session ended", at_once=False)),
        (
            joined(keep_alive=KeepAlive.NEVER),
            seen(reason="Session closed due to inactivity", **UP),
            Leaving(reason="Session closed due to inactivity", reattach=True),
        ),
        (attachment(), seen(Ending.FAILED, not_allowed=True), TypeInstead()),
    ],
)
def test_what_an_attach_does_when_its_session_is_over(
    course: Attachment, ended: Seen, expected: object
) -> None:
    """A mux is worth coming back to; a shell that is done, or an account that wants it so, is not."""
    assert course.after(ended, NOW) == expected


@pytest.mark.parametrize(
    ("course", "ended", "text", "hint"),
    [
        (attachment(), seen(reason="no reason"), "before anything ran in it: no reason", None),
        (attachment(), seen(preamble="sh: no"), "ended before anything ran in it: sh: no", None),
        (attachment(), seen(), "before anything ran in it: finished", None),
        (
            attachment(rejoining=True, mux=Mux.NONE),
            seen(Ending.GONE),
            "before anything ran in it: gone",
            None,
        ),
        (
            attachment(rejoining=True, command="top"),
            seen(Ending.GONE),
            "before anything ran in it: gone",
            None,
        ),
        (attachment(raw=True), seen(reason="timed out", started=True), "the shell ended: timed out", None),
        (attachment(raw=True), seen(Ending.GONE, started=True), "the session ended: gone", "plain shell"),
        (joined("none"), seen(reason="ended elsewhere", started=True, kind="none"), "ended elsewhere", None),
    ],
)
def test_what_cannot_be_reopened_says_why(
    course: Attachment, ended: Seen, text: str, hint: str | None
) -> None:
    """Never a bare "failed"."""
    leaving = course.after(ended, NOW)
    assert isinstance(leaving, Leaving)
    assert isinstance(leaving.error, Unreachable)
    assert text in leaving.error.message
    assert (hint is None) == (leaving.error.hint is None)


def test_an_error_of_the_session_is_the_error_of_the_attach() -> None:
    """With its own code and hint."""
    error = Denied("no")
    leaving = attachment().after(Seen(SessionEnd(Ending.FAILED, "no", error=error)), NOW)
    assert leaving == Leaving(error=error)


def test_typing_into_the_plain_shell_is_tried_once() -> None:
    """Both documents denied is an error, not a loop."""
    course, ended = attachment(), seen(Ending.FAILED, not_allowed=True)
    assert isinstance(course.after(ended, NOW), TypeInstead)
    assert course.is_typed
    assert isinstance(course.after(ended, NOW), Leaving)


def test_a_mux_that_never_comes_up_is_given_up() -> None:
    """A start that fails three times in a row would fail for ever; one that worked in between counts afresh."""
    course = joined()
    for _ in range(MAX_USELESS_STARTS - 1):
        assert isinstance(course.after(seen(Ending.GONE), NOW), Reopen)
    assert isinstance(course.after(seen(Ending.GONE, **UP), NOW), Reopen)
    for _ in range(MAX_USELESS_STARTS - 1):
        assert isinstance(course.after(seen(Ending.GONE), NOW), Reopen)
    assert isinstance(course.after(seen(Ending.GONE), NOW), Leaving)


@pytest.mark.parametrize(
    ("code", "what", "text"),
    [
        ("no-user", "bob", "there is no user 'bob' on api"),
        ("no-sudo", "bob", "may not become 'bob'"),
        ("no-mux", "zellij", "zellij is not installed on api"),
        ("new", "?", "api could not start the session (new)"),
    ],
)
def test_each_complaint_of_the_start_script_is_a_sentence(code: str, what: str, text: str) -> None:
    """And it ends the attach, whatever else was seen."""
    error = problem(code, what, box="api")
    assert isinstance(error, WrongState)
    assert text in error.message
    leaving = joined().after(seen(Ending.GONE, problem=(code, what)), NOW)
    assert isinstance(leaving, Leaving)
    assert leaving.error is not None
    assert leaving.error.message == error.message


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("asked", "no multiplexer, as asked: this shell ends with its connection"),
        ("missing", "neither zellij nor tmux is installed for ana: this shell ends with its connection"),
        ("silent", "neither zellij nor tmux was found for ana, whose login shell did not say where to look"),
        ("dumb", "this terminal is dumb (TERM)"),
        ("", "neither zellij nor tmux is installed for ana"),
    ],
)
def test_why_there_is_no_multiplexer_is_said_as_it_is(why: str, text: str) -> None:
    """ "Not installed" was said of boxes that have both."""
    assert attachment().came_up("none", "ana", why).text.startswith(text)


@pytest.mark.parametrize(
    ("code", "words", "text"),
    [
        ("term", ("foo", "xterm"), "api does not know the terminal foo: programs there are told xterm"),
        ("term", ("", "xterm"), "api does not know the terminal (odd name): programs there are told xterm"),
        ("login", ("10",), "waiting for the login shell on api, for 10 s at most"),
        ("term", (), None),
        ("new", ("x",), None),
    ],
)
def test_what_a_start_script_notes_is_a_sentence(code: str, words: tuple[str, ...], text: str | None) -> None:
    """Of a newer script it may be nothing."""
    assert note(code, words, "api") == text


@pytest.mark.parametrize("state", [InstanceState.STOPPED, InstanceState.STOPPING])
def test_a_box_that_is_off_is_waited_for(state: InstanceState) -> None:
    """Its user may start it in the morning."""
    assert while_box_is(state, BOX) == f"the box is {state.value}; this goes on as soon as somebody starts it"


@pytest.mark.parametrize("state", [InstanceState.TERMINATED, InstanceState.SHUTTING_DOWN])
def test_a_box_that_is_gone_ends_the_attach(state: InstanceState) -> None:
    """Waiting for it would be waiting for ever."""
    leaving = while_box_is(state, BOX)
    assert isinstance(leaving, Leaving)
    assert isinstance(leaving.error, WrongState)


@pytest.mark.parametrize("state", [None, InstanceState.RUNNING, InstanceState.PENDING, InstanceState.UNKNOWN])
def test_any_other_box_is_tried(state: InstanceState | None) -> None:
    """Who may not ask EC2 must still get back in."""
    assert while_box_is(state, BOX) is None


@pytest.mark.parametrize(
    ("lasts", "expected"), [(None, None), (3600.0, 3600 - REPLACE_BEFORE), (REPLACE_BEFORE, 1.0), (0.0, 1.0)]
)
def test_the_next_session_is_up_before_the_longest_life_of_this_one(
    lasts: float | None, expected: float | None
) -> None:
    """An account may limit how long a session lasts; its user need not notice."""
    assert replace_in(lasts) == expected


def test_only_few_pieces_look_like_repairs() -> None:
    """None at all is a quiet screen, many are output as it should be."""
    assert [looks_repaired(pieces) for pieces in (0, 1, 8, 9, 500)] == [False, True, True, False, False]


# What the user sees ---------------------------------------------------------------------------------


def test_the_states_of_a_session_as_its_user_sees_them() -> None:
    """Nothing before the mux runs, then the time since when it is away, and then none of that."""
    course = attachment()
    assert course.session_is(SessionState.ONLINE, "", None, NOW, started=False) is None
    assert course.came_up("tmux", "ana") == StatusLine("online", mux="tmux")
    away = course.session_is(SessionState.RECONNECTING, "cut", 1.5, NOW, started=True)
    assert away == StatusLine("reconnecting", "cut", NOW, 1.5)
    still = course.session_is(SessionState.RECONNECTING, "cut", 3.0, NOW + 5, started=True)
    assert still == StatusLine("reconnecting", "cut", NOW, 3.0), (
        "since the first loss, not since the last try"
    )
    back = course.session_is(SessionState.ONLINE, "", None, NOW + 6, started=True)
    assert back == StatusLine("online", mux="tmux")
    assert course.session_is(SessionState.ENDED, "", None, NOW + 7, started=True) is None
    assert isinstance(course.after(seen(Ending.GONE, **UP), NOW + 7), Reopen)
    opening = course.session_is(SessionState.STARTING, "not connected yet", 3.0, NOW + 8, started=False)
    assert opening == StatusLine("reopening", "not connected yet", NOW + 7, 3.0), (
        "keys have nowhere to go yet"
    )


def test_the_first_start_is_not_being_away() -> None:
    """There was nothing to be away from."""
    line = attachment().session_is(SessionState.RECONNECTING, "cut", None, NOW, started=False)
    assert line == StatusLine("reconnecting", "cut", None)


# Keys -----------------------------------------------------------------------------------------------


def test_keys_typed_while_the_link_is_down_are_kept_to_a_bound_and_in_order() -> None:
    """The session may be alive, and then they arrive once."""
    keys = Keys()
    for number in range(1024):
        keys.typed(b"%03x " % number, phase=Phase.JOINED, reaches=False)
    last = keys.typed(b"more", phase=Phase.JOINED, reaches=False)
    assert (last.dropped, last.say) == (4, "typed too much while away: the rest is not kept")
    kept = keys.waiting.take(10**6)
    assert len(kept) == AWAY_INPUT
    assert kept == b"".join(b"%03x " % number for number in range(1024))[:AWAY_INPUT]


def test_keys_typed_at_a_first_start_are_typed_ahead() -> None:
    """As with ssh: the shell gets them when it is there."""
    keys = Keys()
    assert keys.typed(b"ls\r", phase=Phase.FIRST, reaches=False) == Verdict()
    assert keys.waiting.take(9) == b"ls\r"


def test_keys_for_a_screen_that_is_gone_are_dropped_and_that_is_said_once() -> None:
    """A command typed into a dead session must not run an hour later in another one."""
    keys = Keys()
    keys.typed(b"rm -r x\r", phase=Phase.JOINED, reaches=False)
    verdict = keys.lost(unacknowledged=3)
    assert verdict.dropped == 8
    assert verdict.say == "11 bytes typed while away may not have arrived; they are not sent again"
    first = keys.typed(b"y\r", phase=Phase.REOPENING, reaches=False)
    again = keys.typed(b"y\r", phase=Phase.REOPENING, reaches=True)
    assert (first.dropped, first.say) == (2, "what is typed before the session is back is not kept")
    assert (again.dropped, again.say) == (2, "")
    assert not keys.waiting
    assert not keys.lost(0).say, "nothing was lost"


def test_an_interrupt_overtakes_what_still_waits() -> None:
    """That is what its typist wants, also where the rest would be too much."""
    keys = Keys()
    keys.typed(b"x" * AWAY_INPUT, phase=Phase.JOINED, reaches=False)
    verdict = keys.typed(b"\x03", phase=Phase.JOINED, reaches=False)
    assert (verdict.dropped, verdict.say) == (AWAY_INPUT, "")
    assert keys.waiting.take(99) == b"\x03"


def test_an_interrupt_in_a_pasted_file_is_a_byte() -> None:
    """What was pasted was not pressed."""
    keys = Keys()
    keys.typed(b"x" * 100, phase=Phase.JOINED, reaches=True)
    assert not keys.typed(b"y" * 100 + b"\x03", phase=Phase.JOINED, reaches=True).dropped
    assert len(keys.waiting) == 201


@given(st.lists(st.binary(max_size=40000), max_size=30), st.sampled_from(Phase), st.booleans())
def test_every_byte_that_is_typed_is_kept_or_credited_and_the_bound_holds(
    pieces: list[bytes], phase: Phase, reaches: bool
) -> None:
    """A byte that is neither makes the client wait for ever; a client that ignores its credit fills nothing."""
    keys, credited = Keys(), 0
    for piece in pieces:
        credited += keys.typed(piece, phase=phase, reaches=reaches).dropped
        assert len(keys.waiting) <= (MOST_TYPED if reaches else AWAY_INPUT)
    assert credited + len(keys.waiting) == sum(map(len, pieces))


# Output ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("redrawn", "limit"), [(True, BACKLOG_LIMIT), (False, RAW_BACKLOG_LIMIT)])
def test_a_terminal_that_does_not_read_loses_the_middle_only(redrawn: bool, limit: int) -> None:
    """All that is skipped is counted, and nothing is passed on in between: half a sequence would garble."""
    outflow = Outflow()
    assert outflow.passes(10, limit, redrawn=redrawn)
    assert not outflow.passes(10, limit + 1, redrawn=redrawn)
    assert not outflow.passes(7, 0, redrawn=redrawn), "until it was told what it missed"
    assert outflow.caught_up().startswith("17 bytes of output were skipped")
    assert outflow.passes(10, 0, redrawn=redrawn)

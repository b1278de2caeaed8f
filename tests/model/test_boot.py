"""What is said while a box boots, and when it is not waited for any more."""

from __future__ import annotations

import pytest

from devboxd.errors import (
    Denied,
    DevboxError,
    DocumentInvalid,
    LoginNeeded,
    NotConnected,
    Throttled,
    Unreachable,
    WrongState,
)
from devboxd.model.boot import LONG, MOST_AT_ONCE, PATIENCE, SURE, Boot, Stage, after, given_up
from devboxd.model.states import Connection

UP, AWAY, UNKNOWN = Connection.CONNECTED, Connection.NOT_CONNECTED, Connection.UNKNOWN
ABSENT = NotConnected("i-1 is not connected to Session Manager", hint="see doctor")
SILENT = Unreachable("nothing ran on api within 20 s")
NO_LOGIN = LoginNeeded("the AWS login has expired", hint="devboxctl login")
DENIED = Denied("AWS does not allow ssm:StartSession", hint="ask for the permission ssm:StartSession")
NO_DOCUMENT = DocumentInvalid("the session document is missing")


@pytest.mark.parametrize(
    ("agent", "error", "stage", "says", "hint"),
    [
        (AWAY, ABSENT, Stage.AGENT, "its agent is not connected to Session Manager yet", None),
        (AWAY, SILENT, Stage.AGENT, "its agent is not connected to Session Manager yet", None),
        (UP, SILENT, Stage.SHELL, "the agent is connected: no shell answers yet", None),
        (UNKNOWN, SILENT, Stage.SHELL, "the box boots: no shell answers yet", None),
        (UP, WrongState("there is no user dev"), Stage.SHELL, "there is no user dev", None),
        (UP, DENIED, Stage.SHELL, "refused: AWS does not allow ssm:StartSession", DENIED.hint),
        (AWAY, NO_DOCUMENT, Stage.AGENT, "refused: the session document is missing", None),
        (None, NO_LOGIN, Stage.LOGIN, "login needed: the AWS login has expired", "devboxctl login"),
        (UP, NO_LOGIN, Stage.LOGIN, "login needed: the AWS login has expired", "devboxctl login"),
        (None, Unreachable("no network"), Stage.NETWORK, "AWS can not be asked: no network", None),
        (None, Throttled("slow down"), Stage.NETWORK, "AWS can not be asked: slow down", None),
    ],
)
def test_what_is_waited_for_is_said(
    agent: Connection | None, error: DevboxError, stage: Stage, says: str, hint: str | None
) -> None:
    """With what mends it, where a person has to."""
    boot = after(Boot(), "api", 5.0, agent, error)
    assert (boot.stage, boot.hint) == (stage, hint)
    assert says in boot.text
    assert given_up(boot, "api", agent, error) is None


def played(agent: Connection | None, error: DevboxError, took: float, times: int) -> list[DevboxError | None]:
    """What is said to whoever waits after each of some tries."""
    boot, found = Boot(), []
    for _ in range(times):
        boot = after(boot, "api", took, agent, error)
        found.append(given_up(boot, "api", agent, error))
    return found


@pytest.mark.parametrize("error", [DENIED, NO_DOCUMENT])
@pytest.mark.parametrize("agent", [UP, AWAY, UNKNOWN])
def test_a_refusal_that_stays_ends_the_wait_and_one_that_passes_does_not(
    agent: Connection, error: DevboxError
) -> None:
    """AWS may not know the tags of an instance that it made a moment ago."""
    assert played(agent, error, 5.0, SURE) == [None] * (SURE - 1) + [error]
    boot = after(after(Boot(), "api", 5.0, agent, error), "api", 5.0, agent, ABSENT)
    assert boot.refused == 0


@pytest.mark.parametrize(
    ("agent", "kind", "says"),
    [
        (AWAY, NotConnected, "its agent has not connected to Session Manager within 10 min"),
        (UP, Unreachable, "no session to it has answered within 10 min: nothing ran on api within 20 s"),
        (UNKNOWN, Unreachable, "no session to it has answered within 10 min"),
    ],
)
def test_a_box_that_never_answers_is_given_up_after_ten_minutes(
    agent: Connection, kind: type[DevboxError], says: str
) -> None:
    """Five minutes are nothing for some images; one without an agent, or of another system, never answers."""
    *before, last = played(agent, SILENT, 20.0, int(PATIENCE / 20.0))
    assert before == [None] * len(before)
    assert isinstance(last, kind)
    assert says in last.message
    assert "devboxctl doctor api" in (last.hint or "")
    assert "devboxctl stop api" in (last.hint or "")


@pytest.mark.parametrize("error", [NO_LOGIN, Unreachable("no network")])
def test_no_network_and_no_login_are_waited_for_without_end(error: DevboxError) -> None:
    """Nothing is known of the box meanwhile, so nothing counts."""
    assert set(played(None, error, 3600.0, 100)) == {None}


def test_sleep_counts_as_one_try() -> None:
    """Else a laptop that was closed for a night would give its box up when it is opened."""
    boot = after(Boot(), "api", 8 * 3600.0, AWAY, ABSENT)
    assert boot.waited == MOST_AT_ONCE
    assert given_up(boot, "api", AWAY, ABSENT) is None


def test_a_long_boot_is_said_to_be_long_now_and_then() -> None:
    """With the command that looks closer; not with each try."""
    boot, texts = Boot(), []
    for _ in range(int(PATIENCE / 20.0) - 1):
        boot = after(boot, "api", 20.0, AWAY, ABSENT)
        texts.append(boot.text)
    assert [text for text in dict.fromkeys(texts) if "doctor" in text] == [
        f"the box boots: its agent is not connected to Session Manager yet, after {minutes} min; "
        "devboxctl doctor api looks closer"
        for minutes in range(int(LONG / 60), int(PATIENCE / 60), int(LONG / 60))
    ]

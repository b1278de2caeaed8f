"""What a daemon keeps for the next one, and what comes back of a journal that somebody has edited."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.model.box import Account, BoxRef
from devboxd.model.forward import Saved, Spec
from devboxd.model.memory import State, kept, recalled

BOX = BoxRef("api", "i-0123456789abcdef0", Account("work", "eu-central-1"), "ana")
SPEC: dict[str, Any] = {"port": 80, "local_port": 8080}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def entry(id_: str = "abc123", **spec: Any) -> dict[str, Any]:
    """A forward as it stands in the journal."""
    return {"id": id_, "box": {"name": "api", "target": "i-0", "account": {}}, "spec": SPEC | spec}


def test_everything_comes_back() -> None:
    state = State(
        owner="ana@desk/0011",
        forwards={"a": Saved("a", BOX, Spec(port=1, local_port=0)), "b": Saved("b", BOX, None)},
        open_sessions={"s-1": Account("work")},
        accounts=[Account(), Account("work", "eu-central-1")],
        host_keys={"api": {22: ["ssh-ed25519 AAAA"], 2222: []}},
        users={"api": "ana"},
    )
    assert recalled(kept(state)) == state


@pytest.mark.parametrize(
    "bad",
    [
        entry(port=0),
        entry(port=70000),
        entry(local_port=-1),
        entry(local_path="a\0b"),
        entry(local_path="/" + "x" * 200),
        entry(bind="x" * 300),
        entry(bind="127.0.0.1\n"),
        entry(bind="\ud800"),
        entry(host=""),
        entry(port="80"),
        {"id": "abc123"},
        {"id": "good", **{name: value for name, value in entry().items() if name != "id"}},
        {"box": 5},
        None,
        "abc123",
    ],
    ids=str,
)
def test_one_impossible_forward_does_not_take_the_rest_along(bad: Any) -> None:
    """It is set aside as it is, with the reason, and stays so until somebody removes it."""
    journal = {"memory": {"forwards": [entry("good"), bad, entry("also")], "users": {"api": "ana"}}}
    state = recalled(journal)
    assert list(state.forwards) == ["good", "also"]
    assert state.users == {"api": "ana"}
    (lost,) = state.unusable
    assert lost.entry == bad
    assert lost.why
    assert lost.id not in state.forwards
    assert recalled(kept(state)).unusable[0].entry == bad


def test_of_the_rest_only_the_damaged_entries_are_lost() -> None:
    """Keys, users and accounts are learned again; sessions are found by their Reason."""
    journal = {
        "owner": "me",
        "memory": {
            "open_sessions": {"s-1": {"profile": "a"}, "s-2": 5},
            "accounts": [{"profile": "a"}, "b"],
            "host_keys": {"api": {"22": ["k"]}, "web": {"x": []}, "db": 1},
            "users": {"api": "ana", "web": None},
            "of another version": True,
        },
    }
    assert recalled(journal) == State(
        owner="me",
        open_sessions={"s-1": Account("a")},
        accounts=[Account("a")],
        host_keys={"api": {22: ["k"]}},
        users={"api": "ana"},
    )


PARTS = st.sampled_from(["forwards", "open_sessions", "accounts", "host_keys", "users"])


@given(JSON | st.fixed_dictionaries({"memory": st.dictionaries(PARTS, JSON), "owner": JSON}))
def test_whatever_a_journal_holds_the_daemon_can_start(journal: Any) -> None:
    state = recalled(journal if isinstance(journal, dict) else {"memory": journal})
    again = recalled(kept(state))
    assert (again.forwards, len(again.unusable)) == (state.forwards, len(state.unusable))

"""What a daemon keeps for the next one: only what AWS cannot tell. To JSON and back, entry by entry.

One entry that cannot be must not take the others along: it is set aside as it was, with the reason, and stays
in the journal until somebody removes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.box import Account
from devboxd.model.forward import Facts, ForwardState, Saved, check
from devboxd.text import printable

ACCOUNTS_KEPT: Final = 8  # the last ones that boxes were reached with

T = TypeVar("T")


class Unusable(msgspec.Struct, frozen=True):
    """A forward that cannot be, as the journal has it."""

    id: str
    entry: Any  # JSON
    why: str


class State(msgspec.Struct):
    """All of it."""

    owner: str = ""  # marks our sessions at AWS: this machine and user
    forwards: dict[str, Saved] = {}  # by id, in the order of their making
    unusable: list[Unusable] = []
    open_sessions: dict[str, Account] = {}  # at AWS, by our doing and not yet ended: id, whose
    accounts: list[Account] = []  # boxes were reached with, the last one last
    host_keys: dict[str, dict[int, list[str]]] = {}  # by box, by port: what ssh pins
    users: dict[str, str] = {}  # by box: who logs in there
    contested: dict[int, float] = {}  # ports that box and machine use: when last here, Unix time


def kept(state: State) -> dict[str, Any]:
    """The state as JSON values."""
    forwards = [msgspec.to_builtins(saved) for saved in state.forwards.values()]
    memory = {
        "forwards": [*forwards, *(one.entry for one in state.unusable)],
        "open_sessions": msgspec.to_builtins(state.open_sessions),
        "accounts": msgspec.to_builtins(state.accounts),
        "host_keys": msgspec.to_builtins(state.host_keys, str_keys=True),
        "users": dict(state.users),
        "contested_ports": msgspec.to_builtins(state.contested, str_keys=True),
    }
    return {"owner": state.owner, "memory": memory}


def recalled(journal: Mapping[str, Any]) -> State:
    """The state out of JSON values, whatever they are. Raises nothing.

    What is only a convenience (keys, users, accounts) is learned again; a forward that cannot be is the user's
    wish, and is set aside.
    """
    owner, memory = journal.get("owner"), journal.get("memory")
    values: Mapping[str, Any] = memory if isinstance(memory, Mapping) else {}
    state = State(
        owner=owner if isinstance(owner, str) else "",
        open_sessions=dict(_pairs(values.get("open_sessions"), Account)),
        accounts=[account for _, account in _pairs(_numbered(values.get("accounts")), Account)],
        host_keys=dict(_pairs(values.get("host_keys"), dict[int, list[str]])),
        users=dict(_pairs(values.get("users"), str)),
        contested={
            int(port): when
            for port, when in _pairs(values.get("contested_ports"), float)
            if port.isascii() and port.isdecimal() and len(port) <= 5
        },
    )
    for number, entry in _numbered(values.get("forwards")).items():
        try:
            saved = msgspec.convert(entry, Saved)
            if saved.spec is not None:
                check(saved.spec)
            if not saved.id or saved.id in state.forwards:
                raise BadRequest(f"two forwards are called {saved.id!r}")
        except (msgspec.ValidationError, BadRequest) as error:
            given = entry.get("id") if isinstance(entry, Mapping) else None
            known = {*state.forwards, *(one.id for one in state.unusable)}
            id_ = given if isinstance(given, str) and given and given not in known else f"entry-{number}"
            state.unusable.append(Unusable(id_, entry, str(error).replace("`", "")))
        else:
            state.forwards[saved.id] = saved
    return state


def _numbered(value: object) -> dict[str, Any]:
    """A list as a table of its entries; empty where it is no list."""
    return {str(number): entry for number, entry in enumerate(value)} if isinstance(value, list) else {}


def _pairs(value: object, kind: type[T]) -> Iterator[tuple[str, T]]:
    """The entries of a table that are of this kind."""
    for name, entry in value.items() if isinstance(value, Mapping) else ():
        try:
            yield name, msgspec.convert(entry, kind, str_keys=True)
        except msgspec.ValidationError:
            continue


def facts_of(lost: Unusable) -> Facts:
    """A forward that cannot be, as far as its entry makes sense."""
    entry = lost.entry if isinstance(lost.entry, dict) else {}
    box, spec = entry.get("box"), entry.get("spec")
    name = printable(str(box.get("name", "?")) if isinstance(box, dict) else "?")
    remote = printable(str(spec.get("port", "?")) if isinstance(spec, dict) else "?")
    return Facts(lost.id, name, ForwardState.FAILED, "?", remote, 0, 0, 0, 0, 0, lost.why, False)

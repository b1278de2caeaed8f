"""sessions: what the daemon holds at AWS, and ending it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast.boxes import like
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import client, routes, wire
from devboxd.errors import Kind

HEADERS = (
    "session",
    "box",
    "name",
    "kind",
    "state",
    "detail",
    "since",
    "resumes",
    "up",
    "down",
    "profile",
    "region",
)
# First what is missed least; an id can be shortened, so it goes late.
DISPENSABLE = ("resumes", "up", "down", "region", "since", "profile", "detail", "session", "kind")


class NoSuchSession(client.ClientError):
    """No session that the daemon holds answers to that."""

    code = "session-not-found"
    kind = Kind.NOT_FOUND
    retryable = False


def add_to(app: typer.Typer) -> None:
    """Add the group."""
    group = grammar.add_group(
        app, "sessions", "List and end what is open on your boxes.", section=grammar.LOOK
    )
    grammar.add(group, "ls", list_, examples=["devboxctl sessions ls", "devboxctl sessions ls api"])
    grammar.add(group, "end", end, examples=["devboxctl sessions end api", "devboxctl sessions end ann-0123"])


def list_(
    box: Annotated[str | None, typer.Argument(metavar="[BOX]", help="Only those to this box.")] = None,
    wide: options.Wide = False,
) -> None:
    """List the sessions that the daemon holds."""
    found = ask.ask(routes.LIST_SESSIONS)
    if box is not None:
        found.sessions = [one for one in found.sessions if _is_of(one, box)]
    if settings.json:
        show.print_json(found)
    elif found.sessions or not show.is_terminal():
        print_sessions(found.sessions, wide=wide)
    else:
        show.say("the daemon holds no session" + (f" to {box}" if box else ""))


def print_sessions(found: Sequence[wire.Session], *, wide: bool = False) -> None:
    """Print a table of sessions."""
    rows = [
        (
            *(one.id, one.box, one.name, one.kind, one.state, one.detail, one.since, one.resumes),
            *(show.size(one.bytes_up), show.size(one.bytes_down), one.profile, one.region),
        )
        for one in found
    ]
    show.print_table(HEADERS, rows, dispensable=DISPENSABLE, wide=wide)


def end(
    which: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BOX|SESSION-ID...", help="All sessions to a box, or one by (the beginning of) its id."
        ),
    ] = None,
) -> None:
    """End sessions.

    What runs in zellij or tmux on the box goes on. A terminal that is attached opens a new session.
    """
    if not which:
        raise UsageError("which session? BOX or SESSION-ID is missing", "devboxctl sessions ls shows them")
    known = ask.ask(routes.LIST_SESSIONS).sessions
    chosen = {one.id: one for word in which for one in _matching(word, known)}
    ended = [ask.ask(routes.END_SESSION, wire.SessionId(id_)) for id_ in chosen]
    if settings.json:
        show.print_json(wire.SessionList(ended))
    else:
        show.say(f"ended {show.count(len(ended), 'session')}")


def _matching(word: str, known: Sequence[wire.Session]) -> list[wire.Session]:
    """All sessions to a box of that name, or else the one whose id begins so. Raises NoSuchSession."""
    if found := [one for one in known if one.id and _is_of(one, word)]:
        return found
    found = [one for one in known if one.id and one.id.startswith(word)]
    if len(found) != 1:
        problem = "several sessions begin" if found else "no session, and no box with one, begins"
        raise NoSuchSession(f"{problem} with {word}", "devboxctl sessions ls shows them")
    return found


def _is_of(session: wire.Session, box: str) -> bool:
    return like(session.box, box) or session.target == box

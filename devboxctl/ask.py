"""Ask the daemon: typed requests and replies over ``devboxd.api.client``."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import msgspec
import typer

from devboxctl.fast import folder, reply
from devboxctl.options import default_box, is_box_missing_fatal, missing_box, settings
from devboxd.api import client, routes, wire
from devboxd.api.routes import Route
from devboxd.text import printable

SLOW: Final = 2.0  # seconds until a person is told that something goes on

T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=msgspec.Struct)
AnswerT = TypeVar("AnswerT")


def ask(
    route: Route[RequestT, AnswerT],
    request: RequestT | None = None,
    *,
    start: bool = True,
    timeout: float | None = client.CALL_TIMEOUT,
    waits: bool = False,
) -> AnswerT:
    """Ask once. Raises ClientError; ``client.Refused`` carries the daemon's ``wire.Failure``.

    ``waits``: it is asked for something that has yet to happen, and that is what a person waits for.
    """
    path, body = spelled(route, request)
    with contextlib.nullcontext() if waits else _told_if_slow():
        answer = client.call(route.method, path, body, start=start, timeout=timeout)
    return understood(answer, route.answer)


@contextlib.contextmanager
def _told_if_slow() -> Iterator[None]:
    """Say once, to a person on a terminal, that an answer takes its time: AWS or a box is asked."""
    if settings.json or sys.stderr is None or not sys.stderr.isatty():
        yield
        return

    def say() -> None:
        if not client.has_told:  # the daemon has said more
            reply.say("this takes a moment: AWS or the box is being asked (Ctrl-C ends)\n")

    timer = threading.Timer(SLOW, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def ask_lines(route: Route[RequestT, AnswerT], request: RequestT | None = None) -> Iterator[AnswerT]:
    """Ask for an answer that comes line by line, for as long as it takes."""
    path, body = spelled(route, request)
    with client.Exchange.start(route.method, path, body, timeout=None) as exchange:
        for line in exchange.lines():
            yield understood(line, route.answer)


def spelled(route: Route[RequestT, AnswerT], request: RequestT | None) -> tuple[str, bytes | None]:
    """Build path and body of a request; None asks for what the defaults say."""
    asked = request if request is not None else route.request()
    return route.target(asked), msgspec.json.encode(asked) if route.has_body else None


def understood(data: bytes, answer: type[AnswerT]) -> AnswerT:
    """Decode an answer. An answer that does not fit comes from a daemon of another version."""
    try:
        return msgspec.json.decode(data, type=answer)
    except msgspec.DecodeError as error:
        raise client.NotUnderstood(
            f"the answer of devboxd was not understood: {error}", "try: devboxctl daemon restart"
        ) from None


def boxes(*, all_owners: bool = False) -> wire.BoxList:
    """Ask for all boxes, and projects that have none now."""
    return ask(routes.LIST_BOXES, wire.BoxesRequest(settings.profile, settings.region, all_owners))


def here() -> wire.Folder | None:
    """The devbox.toml of the folder that we are in. Raises UsageError."""
    said = folder.said()
    return None if said is None else wire.Folder(**said)


def of_folder(name: str) -> Any:
    """What the devbox.toml here says of one thing; None where there is none, or it says nothing.

    The daemon reads it, by the one set of rules. Raises ClientError.
    """
    if (file := here()) is None:
        return None
    settings_here = ask(routes.CONFIG, wire.ConfigRequest(file)).settings
    value = next((one.value for one in settings_here if one.name == name), None)
    if value and not settings.json:  # nobody should wonder where that came from
        shown = value if isinstance(value, str) else " ".join(value)
        reply.say(printable(f"{name}: {shown} ({file.path})") + "\n")
    return value or None


def chosen(given: str | None) -> str:
    """Say which box is meant: argument, ``DEVBOX_BOX``, devbox.toml, or a person's choice on a terminal.

    Raises:
        UsageError: none of them (exit status 2).
    """
    if (box := default_box(given)) is not None:
        return box
    if (box := of_folder("box")) is not None:
        return str(box)
    if is_box_missing_fatal():
        raise missing_box()
    return _pick(boxes().boxes)


def agreed(question: str) -> bool:
    """Ask a person yes or no; the question is broken between words where the terminal is too narrow for it.

    Raises:
        typer.Abort: neither was said (Ctrl-C, or the end of the input).
    """
    return typer.confirm(reply.fitted(f"{printable(question)} [y/N]"), show_default=False, err=True)


def is_meant(what: str) -> bool:
    """Ask a person whether to go on with what a sentence says; nothing was changed where not, and that is said.

    Raises:
        UsageError: nobody is there to ask.
        typer.Abort: as ``agreed``.
    """
    if settings.json or not sys.stdin.isatty():
        raise reply.UsageError(what, "--yes says that you mean it")
    if not agreed(f"{what}. Go on?"):
        reply.say("nothing was changed\n")
        return False
    return True


def _pick(known: list[wire.Box]) -> str:
    """Let a person pick a box by number or by the beginning of its name."""
    if not known:
        raise reply.UsageError(
            "there is no box to choose from", "devboxctl doctor says why, if there should be"
        )
    for number, box in enumerate(known, 1):
        about = f"{box.state}, {box.id}" if box.id else f"no box now: {box.phase}"
        sys.stderr.write(printable(f"{number:3}  {box.name}  ({about})") + "\n")
    while True:
        sys.stderr.write("which box? ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
        if not answer:
            sys.stderr.write("\n")
            raise missing_box()
        word = answer.strip()
        if word.isdigit() and 0 < int(word) <= len(known):
            return _ref(known[int(word) - 1])
        matches = [box for box in known if word and box.name.startswith(word)]
        exact = [box for box in matches if box.name == word]
        if len(exact or matches) == 1:
            return _ref((exact or matches)[0])


def _ref(box: wire.Box) -> str:
    """What means this box and no other."""
    return box.ref or box.name

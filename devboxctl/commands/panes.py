"""peek, say: the pane in front of a session on a box, without a terminal of one's own."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Final

import typer

from devboxctl import ask, grammar, options, show
from devboxctl.fast.reply import UsageError
from devboxctl.options import settings
from devboxd.api import routes, wire
from devboxd.text import one_line, printable

ASK: Final = 75.0  # seconds
TEXT_MOST: Final = 64 << 10  # bytes that are read of standard input; the daemon takes fewer
SHOWN: Final = 60  # characters of what was typed
OTHERS: Final = 8  # sessions in a sentence
_COLOR: Final = re.compile(r"\x1b\[[0-9;:]{0,60}m")
_DRIVES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~]?)")

Mux = Annotated[
    str | None, typer.Option("--mux", metavar="zellij|tmux", help="Only sessions of this multiplexer.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    grammar.add(
        app,
        "peek",
        peek,
        section=grammar.CONNECT,
        examples=["devboxctl peek api", "devboxctl peek api build --lines 200", "devboxctl peek api --color"],
    )
    grammar.add(
        app,
        "say",
        say,
        section=grammar.CONNECT,
        examples=[
            "devboxctl say api yes",
            "devboxctl say api --session build --key C-c",
            "devboxctl say api 1 --no-enter",
            "devboxctl say api - < question.txt",
        ],
    )


def peek(
    box: options.Box = None,
    session: Annotated[
        str | None,
        typer.Argument(metavar="[SESSION]", help="Session to look at; main, or the only one, unless said."),
    ] = None,
    lines: Annotated[
        int | None,
        typer.Option(
            "--lines", "-n", metavar="N", min=1, max=2000, help="The last N lines, also those above."
        ),
    ] = None,
    color: Annotated[bool, typer.Option("--color", help="Keep colours, on a terminal.")] = False,
    mux: Mux = None,
    user: options.User = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Print what a session on a box shows, without joining it.

    It is the pane in front of a session of zellij or tmux: nobody's terminal changes its size, it counts for nobody's
    work, and no box is started for it. --json has it with the other sessions of the box.
    """
    colored = color and show.is_terminal() and show.has_color()
    request = wire.PeekRequest(
        box=ask.chosen(box),
        session=session,
        lines=lines,
        color=colored,
        mux=mux,
        user=user,
        profile=settings.profile,
        region=settings.region,
        folder=ask.here(),
    )
    found = ask.ask(routes.PEEK, request, timeout=ASK)
    if settings.json:
        show.print_json(found)
        return
    if show.is_terminal():
        size = f", {found.columns}x{found.rows}" if found.columns else ""
        command = f", {found.command}" if found.command else ""
        show.say(f"{_place(found)}{command}{size}{_others(found)}")
    if found.cut:
        show.say("the first of these lines are left out: an answer takes no more")
    show.write("".join(shown(line, color=colored) + "\n" for line in found.lines))


def say(
    box: options.Box = None,
    text: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="What to type; - reads it from standard input."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session", "-s", metavar="SESSION", help="Session; main, or the only one, unless said."
        ),
    ] = None,
    no_enter: Annotated[bool, typer.Option("--no-enter", help="No Enter after the text.")] = False,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", "-k", metavar="KEY", help="A key after the text, as Escape or C-c; may repeat."
        ),
    ] = None,
    mux: Mux = None,
    user: options.User = None,
    profile: options.Profile = None,
    region: options.Region = None,
) -> None:
    """Type into a session on a box, as you would at its keyboard.

    The text goes into the pane in front, then come the keys, then Enter; keys alone are typed without it. Text of several
    lines is pasted, so that programs which know pastes take it as one. It counts as your input: the box is not idle.
    """
    name = ask.chosen(box)
    words = " ".join(text or ())
    if words == "-":
        words = _input()
    request = wire.SayRequest(
        box=name,
        text=words,
        keys=key or [],
        enter=not no_enter,
        session=session,
        mux=mux,
        user=user,
        profile=settings.profile,
        region=settings.region,
        folder=ask.here(),
    )
    found = ask.ask(routes.SAY, request, timeout=ASK)
    if settings.json:
        show.print_json(found)
        return
    lines = words.count("\n") + 1
    parts = [f"{one_line(words, SHOWN)!r}{f' ({lines} lines)' if lines > 1 else ''}"] if words else []
    show.write_line(f"typed {', '.join(parts + found.keys)} into {_place(found)} of {found.box}")


def _input() -> str:
    """Standard input as text, without the line break at its end. Raises UsageError."""
    data = sys.stdin.buffer.read(TEXT_MOST + 1) if sys.stdin is not None else b""
    if len(data) > TEXT_MOST:
        raise UsageError("that is too much to type", "devboxctl exec BOX, or a file, takes more")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError("standard input is no text in UTF-8") from None
    return text.removesuffix("\n")


def _place(found: wire.Pane | wire.Typed) -> str:
    window = f", window {found.window}" if found.window else ""
    return f"{found.session} ({found.mux}{window})"


def _others(found: wire.Pane) -> str:
    names = [one.name for one in found.sessions if (one.mux, one.name) != (found.mux, found.session)]
    more = ", …" if len(names) > OTHERS else ""
    return f"; other sessions: {', '.join(names[:OTHERS])}{more}" if names else ""


def shown(line: str, *, color: bool = False) -> str:
    """A line of a box, safe to show: with ``color`` its colours, and nothing else that drives a terminal."""
    if not color:
        return printable(_DRIVES.sub("", line))
    parts, at, colored = [], 0, False
    for match in _COLOR.finditer(line):
        parts += [printable(_DRIVES.sub("", line[at : match.start()])), match[0]]
        at, colored = match.end(), True
    parts.append(printable(_DRIVES.sub("", line[at:])))
    return "".join(parts) + ("\x1b[0m" if colored else "")

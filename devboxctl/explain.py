"""Help: what a command is for, how it is written, and an example of each. Pure but for colour and width."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, Final

from devboxctl import show

CONNECT: Final = "Connect"
PROJECTS: Final = "Projects"
LOOK: Final = "Look around"
ACCOUNT: Final = "Account and settings"
SELF: Final = "devbox itself"
SECTIONS: Final = (CONNECT, PROJECTS, LOOK, ACCOUNT, SELF)
INDENT = "  "
NARROW, WIDE = 30, 100  # columns between which the text fits itself to the terminal


def width() -> int:
    """Columns to explain things in: 80 where there is no terminal."""
    return max(NARROW, min(WIDE, show.columns()))


def command(described: Any, ctx: Any, *, columns: int | None = None) -> str:
    """Explain a command (or a group, or everything).

    Args:
        described: a command of typer.
        ctx: a context made for it.
        columns: how wide; None looks at the terminal.
    """
    columns = columns or width()
    blocks = [_paragraphs(_text(described), columns)]
    blocks.append(_titled("Usage", [INDENT + line for line in usage(described, ctx)]))
    blocks += _commands(described, columns)
    whole = usual_of(described)
    arguments = [(p.make_metavar(ctx), p.help or "") for p in whole.params if is_argument(p) and p.help]
    blocks.append(_titled("Arguments", table(arguments, columns)))
    blocks.append(_titled("Options", table([option(p) for p in _options(whole, ctx)], columns)))
    blocks.append(_titled("Examples", [f"{INDENT}$ {line}" for line in examples(described)]))
    if ctx.parent is None:
        blocks.append(_paragraphs("devboxctl help COMMAND explains one of them.", columns))
    return "\n\n".join(block for block in blocks if block)


def _text(described: Any) -> str:
    """The description; that of a group goes on with what there is to know about its usual command."""
    text = inspect.cleandoc(described.help or "")
    usual = usual_of(described)
    more = inspect.cleandoc(usual.help or "").partition("\n\n")[2] if usual is not described else ""
    return f"{text}\n\n{more}".strip()


def summary(described: Any) -> str:
    """The first paragraph of a command's description, on one line and without its full stop."""
    first = inspect.cleandoc(described.help or "").partition("\n\n")[0]
    return " ".join(first.split()).removesuffix(".")


def examples(described: Any) -> list[str]:
    """The examples of a command; those of a group are those of its commands where it has none."""
    own = [line for line in (described.epilog or "").splitlines() if line]
    return own or [line for one in getattr(described, "commands", {}).values() for line in examples(one)[:1]]


def usage(described: Any, ctx: Any) -> list[str]:
    """How the command is written, a line for each way."""
    path = ctx.command_path
    if not hasattr(described, "commands"):
        return [_written(path, described, ctx)]
    usual = usual_of(described)
    lines = [_written(path, usual, ctx)] if usual is not described else []
    if ctx.parent is None:
        return [f"{path} COMMAND …"]
    shown = [one for one in described.commands.values() if not one.hidden and one is not usual]
    return lines + [_written(f"{path} {one.name}", one, ctx) for one in shown]


def _written(path: str, described: Any, ctx: Any) -> str:
    pieces = [path, "[OPTIONS]"]
    for one in described.params:
        if is_argument(one):
            metavar = one.make_metavar(ctx)
            pieces.append(metavar if one.required or metavar.startswith("[") else f"[{metavar}]")
    return " ".join(pieces)


def usual_of(described: Any) -> Any:
    """The command that a group stands for when none of its commands is named."""
    name = getattr(described, "usual", None)
    return described if name is None else described.commands[name]


def _commands(described: Any, columns: int) -> list[str]:
    usual = usual_of(described)
    shown = [
        one for one in getattr(described, "commands", {}).values() if not one.hidden and one is not usual
    ]
    widest = max((len(one.name) for one in shown), default=0)
    sections: dict[str, list[tuple[str, str]]] = {}
    for one in shown:
        sections.setdefault(one.rich_help_panel or "Commands", []).append((one.name, summary(one)))
    order = sorted(sections, key=lambda title: SECTIONS.index(title) if title in SECTIONS else 0)
    return [_titled(title, table(sections[title], columns, widest=widest)) for title in order]


def is_argument(param: Any) -> bool:
    """Tell an argument from an option."""
    return getattr(param, "param_type_name", "") == "argument"


def _options(described: Any, ctx: Any) -> list[Any]:
    """The options, those of this command first and those of all commands last."""
    shared = ("profile", "region", "json", "help")
    found = [p for p in described.get_params(ctx) if not is_argument(p) and not getattr(p, "hidden", False)]
    return sorted(found, key=lambda p: shared.index(p.name) + 1 if p.name in shared else 0)


def option(param: Any) -> tuple[str, str]:
    """How an option is written (short first), and what it does."""
    names = ", ".join(sorted(param.opts, key=lambda name: (name.startswith("--"), name)))
    if all(name.startswith("--") for name in param.opts):
        names = f"    {names}"
    text = param.help or ""
    if getattr(param, "is_flag", False):
        return names, text
    value = param.metavar or (param.type.name or "").upper().removesuffix(" RANGE")
    default = param.default
    if default not in (None, "", []) and f"[{default}]" not in value:
        text += f" Default: {show.cell(default)}."
    return f"{names} {value}", text


def table(rows: Sequence[tuple[str, str]], columns: int, *, widest: int | None = None) -> list[str]:
    """Two columns; below each other where there is no room for both."""
    if widest is None:
        widest = max((len(name) for name, _ in rows), default=0)
    room = columns - widest - 4
    lines = []
    for name, text in rows:
        if room < NARROW - 10:
            lines.append(f"{INDENT}{name}")
            lines += textwrap.wrap(text, columns, initial_indent=INDENT * 3, subsequent_indent=INDENT * 3)
            continue
        first, *more = textwrap.wrap(text, room) or [""]
        lines.append(f"{INDENT}{name:<{widest}}{INDENT}{first}".rstrip())
        lines += [f"{'':<{widest + 4}}{line}" for line in more]
    return lines


def _titled(title: str, lines: Iterable[str]) -> str:
    body = "\n".join(lines)
    return f"{show.bold(title)}\n{body}" if body else ""


def _paragraphs(text: str, columns: int) -> str:
    parts = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(part.split()), columns) for part in parts)

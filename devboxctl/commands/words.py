"""Command lines that click alone does not read as promised: words after ``--``, and ``-D`` without a port."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

REST = "devboxctl.rest"


class RestCommand(TyperCommand):
    """Keeps the words after the first ``--`` away from the parser: they belong to another program."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Cut the line at ``--``; ``rest_of`` gives back the second half."""
        if "--" in args:
            at = args.index("--")
            ctx.meta[REST] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


class ForwardCommand(TyperCommand):
    """Gives ``-D`` its usual port when none follows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the port."""
        whole: list[str] = []
        for at, word in enumerate(args):
            whole.append(word)
            following = args[at + 1] if at + 1 < len(args) else ""
            if word in ("-D", "--dynamic") and not following.isdecimal():
                whole.append("1080")
        return super().parse_args(ctx, whole)


def rest_of(ctx: Any) -> list[str] | None:
    """Say what followed ``--``; None where there was no ``--``."""
    found = ctx.meta.get(REST)
    return found if isinstance(found, list) else None

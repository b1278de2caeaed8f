"""Options that many commands share, and what was said before the command (``devboxctl --json ls``)."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from devboxctl.fast import reply, words
from devboxctl.fast.reply import UsageError

BOX_VARIABLE = "DEVBOX_BOX"


class Settings:
    """What holds for the whole command line."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the former command line."""
        account = words.account()
        self.profile: str | None = account.get("profile")
        self.region: str | None = account.get("region")
        self.color = True
        self.json = False

    @property
    def json(self) -> bool:
        """Whether programs read what we say; the fast path and the full one have one answer."""
        return reply.manner.json

    @json.setter
    def json(self, value: bool) -> None:
        reply.manner.json = value


settings = Settings()


def _profile(value: str | None) -> str | None:
    settings.profile = value or settings.profile
    return settings.profile


def _region(value: str | None) -> str | None:
    settings.region = value or settings.region
    return settings.region


Profile = Annotated[
    str | None,
    typer.Option("--profile", "-p", metavar="NAME", help="AWS profile to use.", callback=_profile),
]
Region = Annotated[
    str | None,
    typer.Option("--region", "-r", metavar="NAME", help="AWS region to use.", callback=_region),
]
Box = Annotated[
    str | None,
    typer.Argument(
        metavar="BOX", help=f"Name or instance id of a box; a unique prefix will do [{BOX_VARIABLE}]."
    ),
]


User = Annotated[str | None, typer.Option("--user", "-l", metavar="USER", help="User on the box.")]


Wide = Annotated[bool, typer.Option("--wide", "-w", help="Leave no column out.")]


def default_box(given: str | None) -> str | None:
    """Take the box of the command line, or else the one in ``DEVBOX_BOX``."""
    return given or os.environ.get(BOX_VARIABLE) or None


def is_box_missing_fatal() -> bool:
    """Tell whether nobody is there to pick a box."""
    return settings.json or not (sys.stdin.isatty() and sys.stderr.isatty())


def missing_box() -> UsageError:
    """The error for a script that forgot the box."""
    return UsageError("which box? BOX is missing", f"name one, or set {BOX_VARIABLE}; devboxctl ls shows all")

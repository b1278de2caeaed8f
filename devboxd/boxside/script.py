"""The scripts that run on a box, and how one travels there as a single document parameter."""

from __future__ import annotations

import base64
import hashlib
import shlex
import zlib
from functools import cache
from importlib import resources
from typing import Final

from devboxd.errors import BadRequest

PARAMETER_LIMIT: Final = 65535  # characters of one document parameter (ssm API model)


@cache
def load(name: str, *, common: bool = True) -> str:
    """The text of a script of this package, with ``common.sh`` in front unless told otherwise.

    Reads a file that is part of the program, once, as importing a module does.
    """
    folder = resources.files(__package__) / "programs"
    text = (folder / name).read_text("utf-8")
    return (folder / "common.sh").read_text("utf-8") + text if common else text


def load_with_python(name: str) -> str:
    """The text of a script with ``find_python.sh`` in front."""
    return load("find_python.sh", common=False) + load(name, common=False)


def squeeze(script: str) -> str:
    """Drop blank lines, indentation and whole-line comments: ``ps`` and CloudTrail show the start command."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def load_program(name: str) -> str:
    """The text of a Python program of this package as it travels: ``make programs`` has shortened it."""
    return load(f"{name}.min", common=False)


def in_python(name: str, *arguments: str) -> list[str]:
    """The command that runs a Python program of this package with the box's own Python; its input is the program's."""
    return [
        "sh",
        "-c",
        squeeze(load_with_python("run_python.sh")),
        "devbox",
        load_program(name),
        *arguments,
    ]


@cache
def packed(name: str) -> str:
    """A Python program of this package in one line, for a script that keeps it on the box under its digest."""
    return base64.b64encode(zlib.compress(load_program(name).encode(), 9)).decode()


@cache
def digest(name: str) -> str:
    """The SHA-256 of a program's text, in hexadecimal digits: what a box keeps it under."""
    return hashlib.sha256(load_program(name).encode()).hexdigest()


def wrap(script: str, *arguments: str) -> str:
    """Make one ``sh -c`` text that runs ``script`` with its own text as ``$0``.

    The script travels as base64: no quoting on the way can change it, and no ``{{ name }}`` in it can be
    taken for a document parameter (the agent even looks ``{{ssm:name}}`` up, and hangs where it may not).
    So do the arguments, for the same reason.

    Raises:
        BadRequest: longer than a document parameter may be.
    """
    encoded = base64.b64encode(squeeze(script).encode()).decode()
    inner = " ".join(shlex.quote(argument) for argument in arguments)
    command = base64.b64encode(f'exec sh -c "$S" "$S" {inner}'.encode()).decode()
    text = f'S=$(printf %s {encoded}|base64 -d) && eval "$(printf %s {command}|base64 -d)"'
    if len(text) > PARAMETER_LIMIT:
        raise BadRequest("the command is too long to start", hint="put it into a script on the box")
    return text

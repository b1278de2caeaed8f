"""ui: open the page of the daemon in a browser."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from devboxctl import ask, grammar, show
from devboxctl.options import settings
from devboxd.api import client, routes

LOOPBACK = "http://127.0.0.1:"
READ_WITHIN = 5.0  # seconds that a browser has to read the file with the link


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    grammar.add(app, "ui", page, section=grammar.LOOK, examples=["devboxctl ui", "devboxctl ui --no-open"])


def page(
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open a browser, or print the link only.")
    ] = True,
) -> None:
    """Show boxes, sessions, forwards and cost on a page in the browser.

    The daemon serves it on loopback, for this browser only: the link works once, within two minutes.
    """
    found = ask.ask(routes.OPEN_PAGE)
    if settings.json:
        show.print_json(found)
        return
    if not open_:
        show.write(show.cell(found.url) + "\n")
        return
    if not found.url.startswith(LOOPBACK) or not _opened(found.url):
        show.say("no browser could be opened; this link works once, within two minutes:")
        show.write(show.cell(found.url) + "\n")


def _opened(url: str) -> bool:
    """Open a browser. It gets a private file that leads to the link: everybody may read what programs are called with."""
    import html  # slow to load, and only here
    import webbrowser

    folder = Path(client.socket_path()).parent
    name = folder / f"ui.{os.getpid()}.html"
    text = (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0;url={html.escape(url)}">'
    )
    try:
        with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return False
    try:
        if not webbrowser.open(name.as_uri()):
            return False
        time.sleep(READ_WITHIN)
    except webbrowser.Error:
        return False
    finally:
        name.unlink(missing_ok=True)
    return True

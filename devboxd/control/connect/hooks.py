"""Hooks of coding agents on a box: put in place, taken away, asked how they are."""

from __future__ import annotations

from typing import Final

from devboxd.boxside import agents as box_side
from devboxd.boxside.agents import Answer
from devboxd.control.base.news import News
from devboxd.control.connect.ask import Execute, ask
from devboxd.errors import BadRequest
from devboxd.model.box import BoxRef

KNOWN: Final = ("claude", "codex", "generic")
ALL: Final = "all"


class Hooks:
    """What ``agent`` asks. Errors: those of ``connect.ask``."""

    def __init__(self, execute: Execute, news: News) -> None:
        self._execute = execute
        self._news = news

    async def set_up(
        self, box: BoxRef, which: str, *, undo: bool = False, dry_run: bool = False, user: str | None = None
    ) -> Answer:
        """Put the hooks of one agent, or of ``all``, in place; with ``undo`` take them away.

        Raises:
            BadRequest: there is no such agent.
        """
        if which != ALL and which not in KNOWN:
            raise BadRequest(
                f"{which[:40]!r} is no agent that devbox knows", hint=f"one of: {', '.join((*KNOWN, ALL))}"
            )
        names = KNOWN if which == ALL else (which,)
        request = box_side.set_up(names, undo=undo, dry_run=dry_run)
        found = box_side.answer(await ask(self._execute, box, box_side.argv(), request, user))
        if not dry_run and any(one.changed for one in found.done):
            verb = "taken away" if undo else "set up"
            self._news.tell("agent.hooks", f"hooks of agents were {verb} ({which})", box=box.name)
        return found

    async def status(self, box: BoxRef, user: str | None = None) -> Answer:
        """What is set up, and what agents say of themselves."""
        return box_side.answer(await ask(self._execute, box, box_side.argv(), box_side.status(), user))

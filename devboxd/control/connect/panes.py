"""Look at the pane in front of a session on a box, or type into it, without a terminal of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from devboxd.boxside import panes as box_side
from devboxd.control.base.news import News
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BadRequest, Unreachable
from devboxd.model import pane
from devboxd.model.answer import BoxSaysNo
from devboxd.model.box import BoxRef
from devboxd.model.names import check_mux
from devboxd.model.pane import Key, Pane
from devboxd.model.states import Mux
from devboxd.model.terminal import Leaving
from devboxd.text import one_line

LIMIT: Final = 40.0  # seconds for the box to answer
WAIT: Final = 15.0  # seconds for a box that is not connected yet: nobody who peeks waits for a boot

Execute = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]


class Panes:
    """What ``peek`` and ``say`` ask. Errors: those of running a command on the box."""

    def __init__(self, execute: Execute, news: News) -> None:
        self._execute = execute
        self._news = news

    async def peek(
        self,
        box: BoxRef,
        session: str | None,
        *,
        count: int | None = None,
        color: bool = False,
        mux: str | None = None,
        user: str | None = None,
    ) -> Pane:
        """The last lines of the pane, or its screen.

        Raises:
            BadRequest: a name or a number that cannot be.
            MuxSessionNotFound: no session is there, or it is not clear which one is meant.
            BoxSaysNo: the multiplexer does not show it.
        """
        request = box_side.peek(session=session, mux=_mux(mux), lines=pane.lines(count), color=color)
        return await self._ask(box, session, user, request)

    async def say(
        self,
        box: BoxRef,
        session: str | None,
        text: str,
        keys: Sequence[str],
        *,
        enter: bool = True,
        mux: str | None = None,
        user: str | None = None,
    ) -> tuple[Pane, list[Key]]:
        """Type into the pane; the keys are those that followed the text. Errors as ``peek``."""
        text, pressed = pane.typed(text, keys, enter=enter)
        request = box_side.say(session=session, mux=_mux(mux), text=text, keys=pressed)
        found = await self._ask(box, session, user, request)
        # What was typed may be a secret.
        self._news.tell("pane.typed", f"something was typed into {found.place}", box=box.name)
        return found, pressed

    async def _ask(self, box: BoxRef, session: str | None, user: str | None, request: bytes) -> Pane:
        terminal = Capture(request)
        spec = ExecSpec(box=box, argv=box_side.argv(), user=user, wait=WAIT)
        try:
            async with asyncio.timeout(LIMIT):
                leaving = await self._execute(spec, terminal)
        except TimeoutError:
            raise Unreachable(f"{box.name} did not answer within {LIMIT:.0f} s") from None
        if leaving.error is not None:
            raise leaving.error
        if leaving.status is None:
            raise Unreachable(f"what ran on {box.name} was cut off: {leaving.reason}")
        if leaving.status != 0:
            said = one_line(bytes(terminal.stderr[-1000:]).decode("utf-8", "replace"), 200)
            raise BoxSaysNo(f"{box.name} can not be asked for its panes: {said or leaving.status}")
        found = box_side.read(bytes(terminal.stdout))
        if isinstance(found, box_side.Missing):
            raise pane.not_found(box.name, session, found.sessions)
        return found


def _mux(name: str | None) -> Mux | None:
    """Raises BadRequest."""
    found = check_mux(name) if name is not None else None
    if found is Mux.NONE:
        raise BadRequest("without a multiplexer there is no session", hint="zellij or tmux")
    return found

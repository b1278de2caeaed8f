"""Look at the pane in front of a session on a box, or type into it, without a terminal of one's own."""

from __future__ import annotations

from collections.abc import Sequence

from devboxd.boxside import panes as box_side
from devboxd.control.base.news import News
from devboxd.control.connect.ask import Execute, ask
from devboxd.errors import BadRequest
from devboxd.model import pane
from devboxd.model.attach import MUXES_THAT_STAY
from devboxd.model.box import BoxRef
from devboxd.model.names import check_mux
from devboxd.model.pane import Key, Pane
from devboxd.model.states import Mux


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
        found = box_side.read(await ask(self._execute, box, box_side.argv(), request, user))
        if isinstance(found, box_side.Missing):
            raise pane.not_found(box.name, session, found.sessions)
        return found


def _mux(name: str | None) -> Mux | None:
    """Raises BadRequest."""
    if name == Mux.NONE:
        raise BadRequest("without a multiplexer there is no session", hint="zellij or tmux")
    return check_mux(name, MUXES_THAT_STAY) if name is not None else None

"""How the daemon takes over: the clients of the one before it are taken up one by one, and go on here."""

from __future__ import annotations

import contextlib
import logging

from devboxd.control.base.needs import Listeners, LocalConnection
from devboxd.control.base.shared import Shared
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridged import BridgedExecution
from devboxd.control.connect.bridged_terminal import BridgedTerminal
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.clients import Clients
from devboxd.control.connect.forwards import Forwards
from devboxd.control.connect.handing import Estate, Inheritance, Resumed, carried
from devboxd.control.connect.parcel import Command, Opening, Piece, Rest
from devboxd.control.connect.splice import splice
from devboxd.control.connect.terminal import Terminal
from devboxd.model.loose import Loose
from devboxd.model.terminal import Leaving

log = logging.getLogger(__name__)


class Heir:
    """What another daemon has left, from the moment at which its bridges are ours: before forwards ask for streams."""

    def __init__(
        self,
        inheritance: Inheritance,
        shared: Shared,
        clients: Clients,
        bridges: Bridges | None,
        forwards: Forwards,
        listeners: Listeners,
    ) -> None:
        self._inheritance = inheritance
        self._estate = Estate(inheritance, bridges)
        self._shared = shared
        self._clients = clients
        self._bridges = bridges
        self._forwards = forwards
        self._listeners = listeners

    async def take_up(self) -> list[Resumed]:
        """Go on with it, once the forwards are there again.

        Returns those that speak through a terminal: for whoever knows how.
        """
        inheritance, news = self._inheritance, self._shared.news
        found: list[Resumed] = []
        for piece in [*self._estate.pieces]:
            try:
                resumed = await self._resumed(piece)
            except Exception:
                # The daemon before is gone: whatever is wrong with one must not end all of them.
                log.exception("a client of the daemon before could not be taken up")
                inheritance.lose("the daemon failed at it")
            else:
                found += [] if resumed is None else [resumed]
        self._estate.close()
        if inheritance.kept:
            news.tell(
                "handed-over.kept",
                f"{inheritance.kept} of the connections and commands of the daemon before go on",
            )
        if inheritance.cut:
            text = f"{inheritance.cut} of the connections and commands of the daemon before are cut: {inheritance.why}"
            news.tell("handed-over.cut", text)
        return found

    async def _resumed(self, piece: Piece) -> Resumed | None:
        """Take up one client. None: it is seen to, or it could not be."""
        inheritance, estate = self._inheritance, self._estate
        loose = estate.loose(piece.client)
        stream = None if isinstance(piece, Rest | Opening) else estate.stream(piece.stream)
        control = estate.stream(piece.control) if isinstance(piece, Command) else None

        def give_up() -> None:
            for one in (stream, control):
                if one is not None:
                    one.close()

        with contextlib.ExitStack() as undone:
            undone.callback(give_up)
            if loose is None:
                inheritance.lose("its descriptor did not come")
                return None
            if isinstance(piece, Rest):
                inheritance.kept += 1
                return Resumed("rest of a client", loose, None, lambda: None, None)
            if isinstance(piece, Opening):
                await self._begin(piece, loose)
                return None
            if stream is None:
                inheritance.lose("its stream did not come", loose.descriptor)
                return None
            if isinstance(piece, Command):
                undone.pop_all()
                inheritance.kept += 1
                return Resumed(
                    f"command on {piece.spec.box.name}",
                    loose,
                    lambda terminal: self._go_on(piece, terminal, stream, control),
                    give_up,
                    None if piece.attach is None else 2.0,
                )
            try:
                connection = await self._listeners.resumed(loose)
            except OSError as error:
                inheritance.lose(str(error))
                return None
            undone.callback(connection.reset)
            forward = self._forwards.of(piece.forward) if piece.forward is not None else None
            undone.pop_all()
        inheritance.kept += 1
        if forward is not None and not forward.is_removed:
            forward.resume(connection, stream)
        else:
            self._shared.tasks.spawn("connection of another daemon", self._carry(connection, stream))
        return None

    async def _begin(self, piece: Opening, loose: Loose) -> None:
        """Serve a connection that waited for its stream."""
        forward = self._forwards.of(piece.forward)
        if forward is None or forward.is_removed:
            self._inheritance.lose("its forward is not there any more", loose.descriptor)
            return
        try:
            connection = await self._listeners.resumed(loose)
        except OSError as error:
            self._inheritance.lose(str(error))
            return
        self._inheritance.kept += 1
        forward.begin(connection)

    async def _carry(self, connection: LocalConnection, stream: BridgeStream) -> None:
        """A connection of the daemon before us that no forward of ours has."""
        self._clients.piped += 1
        try:
            with carried(self._shared.handing, connection, stream):
                await splice(connection, stream)
        finally:
            connection.reset()
            self._clients.piped -= 1

    async def _go_on(
        self, command: Command, terminal: Terminal, stream: BridgeStream, control: BridgeStream | None
    ) -> Leaving:
        """Go on with a command of another daemon's."""
        assert self._bridges is not None
        spec = command.attach
        try:
            if spec is None:
                execution = BridgedExecution.resumed(self._bridges, command, terminal, stream, control)
                with self._clients.command():
                    return await self._clients.held(f"exec on {command.spec.box.name}", execution.go_on())
            bridged = BridgedTerminal(self._bridges, spec, terminal, self._shared.time)
            async with self._clients.joined(spec):
                name = f"terminal on {spec.box.name}"
                leaving = await self._clients.held(name, bridged.go_on(command, stream, control))
            return leaving or Leaving()
        finally:  # also where it never came to that: what was lent to it cannot be lent again, or we stop
            stream.close()
            if control is not None:
                control.close()

"""The daemon as the API sees it: boxes by name, and everything that can be done with one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Final, TypeVar

from devboxd.boxside import bridgehead
from devboxd.boxside.script import load, squeeze
from devboxd.control.base.boxes import Boxes
from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Cloud, Dialer, Listeners, LocalConnection
from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.attach import Attach
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.bridge_facts import BridgeFacts
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridged import BridgedExecution
from devboxd.control.connect.bridged_terminal import BridgedTerminal, goes_over_a_bridge
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.execute import ExecSpec, Execution
from devboxd.control.connect.forwards import Forwards
from devboxd.control.connect.handing import Estate, Inheritance, Resumed, carried
from devboxd.control.connect.hooks import Hooks
from devboxd.control.connect.panes import Panes
from devboxd.control.connect.parcel import Command, Left, Opening, Packing, Piece, Rest
from devboxd.control.connect.ping import Pinged, ping, ping_bridge
from devboxd.control.connect.pool import IDLE_AFTER
from devboxd.control.connect.pools import Pools
from devboxd.control.connect.port import PortTarget
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.splice import splice
from devboxd.control.connect.ssh import Keys, SshAccess
from devboxd.control.connect.sshagent import SshAgents
from devboxd.control.connect.stream import Duplex
from devboxd.control.connect.sweep import sweep
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BoxNotFound, DevboxError, Unreachable
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Config
from devboxd.model.identity import Identity
from devboxd.model.loose import Loose
from devboxd.model.states import InstanceState
from devboxd.model.terminal import Leaving
from devboxd.text import one_line

SETTLES: Final = 100  # turns of the loop that a connection which is being accepted has, before it is cut
AGENTS_WAIT: Final = 60.0  # seconds for the stream of a box's agents to open
T = TypeVar("T")
log = logging.getLogger(__name__)


class Daemon:
    """Boxes, sessions and forwards of one user."""

    def __init__(
        self,
        shared: Shared,
        cloud: Cloud,
        dialer: Dialer,
        keys: Keys,
        settings: Settings,
        memory: Memory,
        listeners: Listeners,
        *,
        idle_after: float = IDLE_AFTER,
        bridge_secret: Callable[[str], bytes] | None = None,
    ) -> None:
        """Make it. ``bridge_secret``: 32 bytes that belong to a name, the same after a restart; None: no bridges."""
        self.shared = shared
        self.settings = settings
        self.attached = 0
        self.piped = 0
        self.commands = 0  # of clients that run now
        self.shells = 0  # of clients, without a multiplexer
        self._cloud = cloud
        self.memory = memory
        self._sessions = Sessions(shared, cloud.sessions, dialer, memory, owner=memory.owner)
        self._bridges: Bridges | None = None
        if bridge_secret is not None:
            self._bridges = Bridges(
                self._sessions,
                self.execute_directly,
                bridge_secret,
                lambda: self.config,
            )
        self.boxes = Boxes(shared.time, cloud, memory, settings.for_aws)
        self.pools = Pools(
            self._sessions,
            lambda: self.config,
            self.boxes.resolve,
            idle_after=idle_after,
            bridged=self._bridged if self._bridges is not None else None,
        )
        self.forwards = Forwards(
            shared,
            self.pools.of,
            listeners,
            self.execute,
            memory,
            wait=lambda: self.config.forward.wait,
            changes=self._changes if self._bridges is not None else None,
            listening=self._listening if self._bridges is not None else None,
        )
        self._listeners = listeners
        self.inherited: Inheritance | None = None  # what the daemon before us has left, and what became of it
        self.ssh = SshAccess(shared, keys, self.execute, self._send_key)
        self.panes = Panes(self.execute, shared.news)
        self.hooks = Hooks(self.execute, shared.news)
        self.agents = SshAgents(shared, self.execute, self._bridges)

    # Life -------------------------------------------------------------------------------------------

    async def start(self, inherited: Inheritance | None = None) -> list[Resumed]:
        """Take up what an earlier daemon left: its forwards, the sessions it could not end, and its clients.

        Returns those that speak through a terminal: for whoever knows how.
        """
        left = self.memory.open_sessions
        accounts = {self.config.account_of(Account()), *self.memory.accounts}
        self.inherited = inherited
        # Before the forwards, which ask for streams.
        estate = Estate(inherited, self._bridges) if inherited is not None else None
        await self.forwards.restore()
        resumed = await self._inherit(estate) if estate is not None else []
        self.shared.tasks.spawn("heart", steadily(self.shared, "heart", self._sessions.beat))
        self.shared.tasks.spawn("sweep", sweep(self._sessions, left, accounts))
        self.shared.tasks.spawn("warm ports", self.pools.keep_warm())
        return resumed

    async def settle(self) -> None:
        """Before ``leave``: accept nothing more, and have what was accepted come to where it can be handed over."""
        for _ in range(SETTLES):
            is_quiet = self.forwards.pause()
            await asyncio.sleep(0)  # what was accepted begins to be served
            if is_quiet:
                return

    def leave(self) -> Left:
        """Leave to another daemon what can be, here and now; ``stop`` after this."""
        packing = Packing()
        for offer in self.shared.handing.ready():
            offer.pack(packing)
        packing.listeners.update(self.forwards.leave_listeners())
        frozen = self._bridges.freeze() if self._bridges is not None else {}
        return packing.packed(frozen)

    async def _inherit(self, estate: Estate) -> list[Resumed]:
        """Go on with what another daemon has left."""
        inheritance, news = estate.inheritance, self.shared.news
        found: list[Resumed] = []
        for piece in estate.pieces:
            try:
                resumed = await self._resumed(estate, piece)
            except (
                Exception
            ):  # the daemon before is gone: whatever is wrong with one must not end all of them
                log.exception("a client of the daemon before could not be taken up")
                inheritance.lose("the daemon failed at it")
            else:
                found += [] if resumed is None else [resumed]
        estate.close()
        if inheritance.kept:
            news.tell(
                "handed-over.kept",
                f"{inheritance.kept} of the connections and commands of the daemon before go on",
            )
        if inheritance.cut:
            text = f"{inheritance.cut} of the connections and commands of the daemon before are cut: {inheritance.why}"
            news.tell("handed-over.cut", text)
        return found

    async def _resumed(self, estate: Estate, piece: Piece) -> Resumed | None:
        """Take up one client. None: it is seen to, or it could not be."""
        inheritance = estate.inheritance
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
                await self._begin(piece, loose, inheritance)
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
            forward = self.forwards.of(piece.forward) if piece.forward is not None else None
            undone.pop_all()
        inheritance.kept += 1
        if forward is not None and not forward.is_removed:
            forward.resume(connection, stream)
        else:
            self.shared.tasks.spawn("connection of another daemon", self._carry(connection, stream))
        return None

    async def _begin(self, piece: Opening, loose: Loose, inheritance: Inheritance) -> None:
        """Serve a connection that waited for its stream."""
        forward = self.forwards.of(piece.forward)
        if forward is None or forward.is_removed:
            inheritance.lose("its forward is not there any more", loose.descriptor)
            return
        try:
            connection = await self._listeners.resumed(loose)
        except OSError as error:
            inheritance.lose(str(error))
            return
        inheritance.kept += 1
        forward.begin(connection)

    async def _carry(self, connection: LocalConnection, stream: BridgeStream) -> None:
        """A connection of the daemon before us that no forward of ours has."""
        self.piped += 1
        try:
            with carried(self.shared.handing, connection, stream):
                await splice(connection, stream)
        finally:
            connection.reset()
            self.piped -= 1

    async def _go_on(
        self, command: Command, terminal: Terminal, stream: BridgeStream, control: BridgeStream | None
    ) -> Leaving:
        """Go on with a command of another daemon's."""
        assert self._bridges is not None
        spec = command.attach
        try:
            if spec is None:
                execution = BridgedExecution.resumed(self._bridges, command, terminal, stream, control)
                self.commands += 1
                try:
                    return await self.held(f"exec on {command.spec.box.name}", execution.go_on())
                finally:
                    self.commands -= 1
            bridged = BridgedTerminal(self._bridges, spec, terminal, self.shared.time)
            async with self._joined(spec):
                name = f"terminal on {spec.box.name}"
                leaving = await self.held(name, bridged.go_on(command, stream, control))
            return leaving or Leaving()
        finally:  # also where it never came to that: what was lent to it cannot be lent again, or we stop
            stream.close()
            if control is not None:
                control.close()

    async def stop(self) -> None:
        """End all sessions at AWS's side, too; within a few seconds."""
        await self.forwards.stop()
        await self.pools.close()
        if self._bridges is not None:
            await self._bridges.stop()
        await self.shared.tasks.stop()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self.settings.config

    def reconfigured(self) -> None:
        """Another configuration is in force; what is open stays as it is."""
        self.boxes.forget()
        self.shared.tasks.spawn("warm ports", self.pools.keep_warm())

    async def identity(self, account: Account) -> Identity:
        """Who we are for AWS with these settings."""
        return await self._cloud.identity(self.settings.for_aws().account_of(account))

    async def owner_tag(self, account: Account) -> str:
        """Whose tag is on what we make there: IAM's policies compare it with ``aws:userid``."""
        return (await self.identity(account)).user_id

    # Sessions ---------------------------------------------------------------------------------------

    def sessions(self) -> list[HeldSession]:
        """All held sessions, oldest first."""
        return self._sessions.running

    async def end_session(self, session_id: str) -> HeldSession:
        """End a session by id or unique start of it.

        Raises:
            BoxNotFound: none is called so.
        """
        session = self._sessions.find(session_id)
        await session.stop()
        return session

    async def attach(self, spec: AttachSpec, terminal: Terminal) -> Leaving:
        """Join a terminal to a box until its user leaves."""

        async def state() -> InstanceState | None:
            try:
                instance = await self.boxes.instance(spec.box)
            except BoxNotFound:
                return InstanceState.TERMINATED  # an hour ago, so that EC2 has forgotten it
            return instance.state if instance is not None else None

        attach = Attach(
            self._sessions,
            spec,
            terminal,
            config=self.config,
            box_state=state,
        )
        async with self._joined(spec):
            if self._bridges is not None and goes_over_a_bridge(spec):
                bridged = BridgedTerminal(self._bridges, spec, terminal, self.shared.time)
                if (leaving := await self.held(f"terminal on {spec.box.name}", bridged.run())) is not None:
                    return leaving
            return await self.held(f"attach {spec.box.name}", attach.run())

    @contextlib.asynccontextmanager
    async def _joined(self, spec: AttachSpec) -> AsyncIterator[None]:
        """Count a terminal, say that it is there, and lend its agent."""
        self.attached += 1
        command, shell = spec.command is not None, spec.command is None and goes_over_a_bridge(spec)
        self.commands += command
        self.shells += shell
        self.shared.news.tell("attach.joined", f"a terminal joined {spec.session}", box=spec.box.name)
        try:
            async with contextlib.AsyncExitStack() as lent:
                if spec.agent is not None:
                    user = spec.user or spec.box.user
                    await lent.enter_async_context(self.agents.lending(spec.box, user, spec.agent))
                yield
        finally:
            self.attached -= 1
            self.commands -= command
            self.shells -= shell
            self.shared.news.tell("attach.left", f"a terminal left {spec.session}", box=spec.box.name)

    async def command(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a client's command."""
        self.commands += 1
        try:
            return await self.execute(spec, terminal)
        finally:
            self.commands -= 1

    async def execute(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a command on a box: over the bridge where there can be one."""
        if self._bridges is not None:
            bridged = BridgedExecution(self._bridges, spec, terminal)
            leaving = await self.held(f"exec on {spec.box.name}", bridged.run())
            if leaving is not None:
                return leaving
        return await self.execute_directly(spec, terminal)

    async def execute_directly(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a command in a session of its own."""
        execution = Execution(
            self._sessions,
            spec,
            terminal,
            config=self.config,
        )
        return await self.held(f"exec on {spec.box.name}", execution.run())

    async def held(self, name: str, work: Coroutine[None, None, T]) -> T:
        """Run a client's stream among our own tasks: ``stop`` ends it, and its session at AWS's side."""

        async def outcome() -> T | DevboxError:
            try:
                return await work
            except DevboxError as error:  # for the client: no failure of the task
                return error

        if self.shared.tasks.is_closing:
            work.close()
            raise Unreachable("devboxd is stopping")
        done: T | DevboxError = await self.shared.tasks.spawn(name, outcome())
        if isinstance(done, DevboxError):
            raise done
        return done

    async def remove_bridge(self, box: BoxRef) -> tuple[list[str], int]:
        """End the bridges to a box and what they keep there; what was done, in lines, and how many streams that cut.

        Raises:
            DevboxError: the box could not be asked; then the streams are cut all the same.
        """
        streams = await self._bridges.cut(box) if self._bridges is not None else 0
        said = Capture()
        argv = ["sh", "-c", squeeze(load("remove_bridge.sh", common=False))]
        leaving = await self.execute_directly(ExecSpec(box=box, argv=argv, stdin=False), said)
        if leaving.error is not None:
            raise leaving.error
        lines = [one_line(line) for line in said.stdout.decode("utf-8", "replace").splitlines()]
        self.shared.news.tell("bridge.removed", f"the bridge to {box.name} was removed", box=box.name)
        return [line for line in lines if line], streams

    def bridges(self) -> list[BridgeFacts]:
        """All bridges as they stand."""
        return self._bridges.facts() if self._bridges is not None else []

    async def _bridged(self, target: PortTarget, wait: float | None) -> Duplex | None:
        assert self._bridges is not None
        purpose = (
            bridgehead.tcp(target.host or "localhost", target.port)
            if target.path is None
            else bridgehead.unix(target.path)
        )
        return await self._bridges.stream(target.box, purpose, wait, connects=True)

    async def _listening(self, box: BoxRef, purpose: bytes) -> BridgeStream | None:
        assert self._bridges is not None
        return await self._bridges.stream(box, purpose, None)

    async def _changes(self, box: BoxRef) -> Duplex | None:
        assert self._bridges is not None
        return await self._bridges.stream(box, bridgehead.watch(), None)

    async def agent_changes(self, box: BoxRef) -> Duplex | None:
        """A stream of what coding agents say of themselves; None: there is no bridge to this box."""
        if self._bridges is None:
            return None
        return await self._bridges.stream(box, bridgehead.agents(), AGENTS_WAIT)

    async def connect(self, box: BoxRef, port: int, host: str | None, wait: float | None) -> Duplex:
        """Open a connection to a port of a box."""
        return await self.pools.of(PortTarget(box, port, host)).connect(wait)

    async def ping(self, box: BoxRef, count: int, timeout: float) -> Pinged:
        """Measure the way to the box and back. Errors as ``connect.ping``."""
        bridge = self._bridges.standing(box) if self._bridges is not None else None
        if bridge is not None:
            began = self.shared.time.monotonic()
            # A third of the time: what a dead link does not answer is asked of the agent, which says why.
            answered = await ping_bridge(bridge, count=count, timeout=timeout / 3)
            if answered is not None:
                return answered
            timeout -= self.shared.time.monotonic() - began
        return await ping(self._sessions, box, self.config, count=count, timeout=timeout)

    async def _send_key(self, box: BoxRef, user: str, public_key: str) -> None:
        await self._cloud.send_ssh_key(box.account, box.target, user, public_key)

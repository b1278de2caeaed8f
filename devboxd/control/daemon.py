"""The daemon as the API sees it: boxes by name, and everything that can be done with one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from devboxd.boxside import bridgehead
from devboxd.boxside.script import load, squeeze
from devboxd.control.base.boxes import Boxes
from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Cloud, Dialer, Listeners
from devboxd.control.base.settings import Settings
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.attach import Attach
from devboxd.control.connect.audience import Capture
from devboxd.control.connect.bridge_facts import BridgeFacts
from devboxd.control.connect.bridge_streams import BridgeStream
from devboxd.control.connect.bridged import BridgedExecution, Told
from devboxd.control.connect.bridged_terminal import BridgedTerminal, goes_over_a_bridge
from devboxd.control.connect.bridges import Bridges
from devboxd.control.connect.clients import Clients
from devboxd.control.connect.execute import ExecSpec, Execution
from devboxd.control.connect.forwards import Forwards
from devboxd.control.connect.handing import Inheritance, Resumed
from devboxd.control.connect.hooks import Hooks
from devboxd.control.connect.panes import Panes
from devboxd.control.connect.parcel import Left, Packing
from devboxd.control.connect.ping import Pinged, ping, ping_bridge
from devboxd.control.connect.pool import IDLE_AFTER
from devboxd.control.connect.pools import Pools
from devboxd.control.connect.port import PortTarget
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.ssh import Keys, SshAccess
from devboxd.control.connect.sshagent import SshAgents
from devboxd.control.connect.stream import Duplex
from devboxd.control.connect.sweep import sweep
from devboxd.control.connect.terminal import Terminal
from devboxd.control.heir import Heir
from devboxd.errors import BoxNotFound
from devboxd.model.attach import AttachSpec
from devboxd.model.box import Account, BoxRef
from devboxd.model.config import Config
from devboxd.model.identity import Identity
from devboxd.model.states import InstanceState
from devboxd.model.terminal import Leaving
from devboxd.text import one_line

SETTLES: Final = 100  # turns of the loop that a connection which is being accepted has, before it is cut
AGENTS_WAIT: Final = 60.0  # seconds for a stream of what a box tells to open


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
        self.agents = SshAgents(shared, self.execute, self._bridges, listeners)
        self.clients = Clients(shared, self.agents)

    # Life -------------------------------------------------------------------------------------------

    async def start(self, inherited: Inheritance | None = None) -> list[Resumed]:
        """Take up what an earlier daemon left: its forwards, the sessions it could not end, and its clients.

        Returns those that speak through a terminal: for whoever knows how.
        """
        left = self.memory.open_sessions
        accounts = {self.config.account_of(Account()), *self.memory.accounts}
        self.inherited = inherited
        heir = None
        if inherited is not None:  # before the forwards, which ask for streams
            heir = Heir(inherited, self.shared, self.clients, self._bridges, self.forwards, self._listeners)
        await self.forwards.restore()
        resumed = await heir.take_up() if heir is not None else []
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

        async with self.clients.joined(spec):
            if self._bridges is not None and goes_over_a_bridge(spec):
                bridged = BridgedTerminal(self._bridges, spec, terminal, self.shared.time)
                if (
                    leaving := await self.clients.held(f"terminal on {spec.box.name}", bridged.run())
                ) is not None:
                    return leaving
                terminal = bridged.unheard()
            attach = Attach(
                self._sessions,
                spec,
                terminal,
                config=self.config,
                box_state=state,
            )
            return await self.clients.held(f"attach {spec.box.name}", attach.run())

    async def command(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a client's command."""
        with self.clients.command():
            return await self.execute(spec, terminal)

    async def execute(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a command on a box: over the bridge where there can be one."""
        if self._bridges is not None:
            bridged = BridgedExecution(self._bridges, spec, terminal)
            leaving = await self.clients.held(f"exec on {spec.box.name}", bridged.run())
            if leaving is not None:
                return leaving
            terminal = bridged.unheard(terminal)
        return await self.execute_directly(spec, terminal)

    async def execute_directly(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a command in a session of its own."""
        execution = Execution(
            self._sessions,
            spec,
            terminal,
            config=self.config,
        )
        return await self.clients.held(f"exec on {spec.box.name}", execution.run())

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

    async def told(self, box: BoxRef, argv: Sequence[str]) -> Told | None:
        """What a command says for as long as it runs on a box; None: there is no bridge to this box."""
        if self._bridges is None:
            return None
        purpose = bridgehead.command(argv, stdin=False)
        stream = await self._bridges.stream(box, purpose, AGENTS_WAIT)
        return Told(stream) if stream is not None else None

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

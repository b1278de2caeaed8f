"""The daemon as the API sees it: boxes by name, and everything that can be done with one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Final

from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Cloud, Dialer
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.attach import Attach
from devboxd.control.connect.execute import ExecSpec, Execution
from devboxd.control.connect.forward import Forwards, ListenerStore
from devboxd.control.connect.ping import Pinged, ping
from devboxd.control.connect.port import IDLE_AFTER, PortPool, PortTarget
from devboxd.control.connect.session import HeldSession
from devboxd.control.connect.sessions import Sessions
from devboxd.control.connect.ssh import Keys, SshAccess
from devboxd.control.connect.sshagent import SshAgents
from devboxd.control.connect.stream import Stream
from devboxd.control.connect.sweep import sweep
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BadRequest, BoxNotFound, Denied, DevboxError, Unreachable
from devboxd.model.attach import AttachSpec
from devboxd.model.box import PROJECT_TAG, Account, BoxRef, Instance
from devboxd.model.config import Config
from devboxd.model.names import is_instance_id, is_name, strip_suffix
from devboxd.model.states import Connection, InstanceState
from devboxd.model.terminal import Leaving

log = logging.getLogger(__name__)

NAMES_KEPT: Final = 30.0  # seconds that a name keeps its instance without asking EC2 again


class Daemon:
    """Boxes, sessions and forwards of one user."""

    def __init__(
        self,
        shared: Shared,
        cloud: Cloud,
        dialer: Dialer,
        keys: Keys,
        config: Config,
        memory: Memory,
        listeners: ListenerStore | None = None,
        *,
        idle_after: float = IDLE_AFTER,
    ) -> None:
        self.shared = shared
        self.config = config
        self.attached = 0
        self.piped = 0
        self._cloud = cloud
        self._memory = memory
        self._sessions = Sessions(shared, cloud.sessions, dialer, memory, owner=memory.owner)
        self._idle_after = idle_after
        self._pools: dict[PortTarget, PortPool] = {}
        self._warm: list[PortPool] = []
        self._names: dict[tuple[str, Account], tuple[float, BoxRef]] = {}
        self._last_boxes: dict[Account, tuple[float, list[Instance]]] = {}
        self.forwards = Forwards(
            shared,
            self.pool,
            self.execute,
            memory,
            wait=lambda: self.config.forward.wait,
            store=listeners,
        )
        self.ssh = SshAccess(shared, keys, self.execute, self._send_key)
        self.agents = SshAgents(shared, self.execute)

    # Life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier daemon left: its forwards, and the sessions it could not end."""
        left = self._memory.open_sessions
        accounts = {self.config.account_of(Account()), *self._memory.accounts}
        await self.forwards.restore()
        self.shared.tasks.spawn("heart", steadily(self.shared, "heart", self._sessions.beat))
        self.shared.tasks.spawn("sweep", sweep(self._sessions, left, accounts))
        self.shared.tasks.spawn("warm ports", self._warm_up())

    async def stop(self) -> None:
        """End all sessions at AWS's side, too; within a few seconds."""
        await self.forwards.stop()
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        await self.shared.tasks.stop()

    async def _warm_up(self) -> None:
        """Keep sessions open to the ports that the configuration names, also after a change of it."""
        for pool in self._warm:
            pool.kept -= 1
            pool.warmed -= 1
        self._warm = []
        for name, configured in self.config.boxes.items():
            for port in configured.warm:
                try:
                    box = await self.resolve(name, Account())
                except DevboxError as error:
                    self.shared.news.tell(
                        "warm.failed", f"port {port} of {name} is not kept warm: {error.message}", box=name
                    )
                    continue
                pool = self.pool(PortTarget(box, port))
                pool.kept += 1
                pool.warmed += 1
                pool.warm()
                self._warm.append(pool)

    def apply(self, config: Config) -> None:
        """Use a new configuration from now on; what is open stays as it is."""
        self.config = config
        self._names.clear()
        self.shared.tasks.spawn("warm ports", self._warm_up())
        self.shared.news.tell("config.loaded", "the configuration was read again")

    # Boxes ------------------------------------------------------------------------------------------

    async def resolve(self, name: str, account: Account) -> BoxRef:
        """Find the box that ``name`` means: an instance id, a configured name, or a tag in EC2.

        Raises:
            BadRequest: it cannot be a name, or means several boxes.
            BoxNotFound: nothing is called so.
        """
        name = strip_suffix(name)
        config = self.config
        configured = config.boxes.get(name)
        account = config.account_of(account, name)
        meant = configured.target if configured is not None and configured.target else name
        if is_instance_id(meant):
            return self._seen(config.box_ref(name, meant, account))
        if not is_name(meant):
            raise BadRequest(
                f"{name!r} cannot be a box", hint="give a name from devboxctl ls, or an instance id"
            )
        key, now = (name, account), self.shared.time.monotonic()
        if (known := self._names.get(key)) is not None and now - known[0] < NAMES_KEPT:
            return known[1]
        instance = await self._find(meant, account)
        box = self._seen(config.box_ref(name, instance.id, account))
        self._names[key] = (now, box)
        return box

    async def _find(self, name: str, account: Account) -> Instance:
        try:
            instances = await self._list(account)
        except (Denied, Unreachable) as error:
            raise type(error)(
                f"the name {name!r} cannot be looked up: {error.message}",
                hint="an instance id (i-…) works without EC2 permissions; or configure [boxes.NAME] target",
            ) from error
        called = [i for i in instances if name in (i.name, i.tags.get(PROJECT_TAG)) and not i.state.is_gone]
        running = [instance for instance in called if instance.is_running] or called
        if len(running) > 1:
            ids = ", ".join(sorted(instance.id for instance in running))
            raise BadRequest(f"{name!r} means {len(running)} boxes: {ids}", hint="use the instance id")
        if not running:
            names = sorted(
                {instance.name for instance in instances if instance.name and not instance.state.is_gone}
            )
            hint = f"known boxes: {', '.join(names[:12])}" if names else "devboxctl ls shows what exists"
            raise BoxNotFound(f"there is no box named {name!r}", hint=hint)
        return running[0]

    async def boxes(self, account: Account) -> tuple[list[Instance], Account, float | None]:
        """All boxes of an account, which one that is, and since when they are old (None: fresh).

        Raises:
            DevboxError: AWS cannot be asked and nothing is remembered.
        """
        account = self.config.account_of(account)
        try:
            return await self._list(account), account, None
        except DevboxError:
            if (last := self._last_boxes.get(account)) is None:
                raise
            return last[1], account, last[0]

    async def instance(self, box: BoxRef) -> Instance | None:
        """The instance behind a box; None where EC2 does not know it or may not be asked."""
        try:
            return await self._cloud.instances(box.account).get(box.target)
        except DevboxError as error:
            log.debug("%s cannot be looked at: %s", box.name, error)
            return None

    async def connection(self, box: BoxRef) -> Connection:
        """Whether the agent of a box is connected."""
        try:
            return await self._cloud.sessions(box.account).connection_status(box.target) or Connection.UNKNOWN
        except DevboxError:
            return Connection.UNKNOWN

    async def _list(self, account: Account) -> list[Instance]:
        instances = await self._cloud.instances(account).list()
        self._last_boxes[account] = (self.shared.time.wall(), instances)
        return instances

    def _seen(self, box: BoxRef) -> BoxRef:
        self._memory.used(box.account)
        return box

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
            instance = await self.instance(spec.box)
            return instance.state if instance is not None else None

        attach = Attach(
            self._sessions,
            spec,
            terminal,
            config=self.config,
            box_state=state,
        )
        self.attached += 1
        self.shared.news.tell("attach.joined", f"a terminal joined {spec.session}", box=spec.box.name)
        try:
            async with contextlib.AsyncExitStack() as lent:
                if spec.agent is not None:
                    user = spec.user or spec.box.user
                    await lent.enter_async_context(self.agents.lending(spec.box, user, spec.agent))
                return await self.held(f"attach {spec.box.name}", attach.run())
        finally:
            self.attached -= 1
            self.shared.news.tell("attach.left", f"a terminal left {spec.session}", box=spec.box.name)

    async def execute(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        """Run a command on a box."""
        execution = Execution(
            self._sessions,
            spec,
            terminal,
            config=self.config,
        )
        return await self.held(f"exec on {spec.box.name}", execution.run())

    async def held(self, name: str, work: Coroutine[None, None, Leaving]) -> Leaving:
        """Run a client's stream among our own tasks: ``stop`` ends it, and its session at AWS's side."""
        if self.shared.tasks.is_closing:
            work.close()
            raise Unreachable("devboxd is stopping")
        task: asyncio.Task[Leaving] = self.shared.tasks.spawn(name, work)
        return await task

    def pool(self, target: PortTarget) -> PortPool:
        """The sessions to a port of a box."""
        if (pool := self._pools.get(target)) is None:
            pool = self._pools[target] = PortPool(
                self._sessions,
                target,
                self.config,
                idle_after=self._idle_after,
            )
            pool.on_empty = lambda: self._forget(target)
        return pool

    def _forget(self, target: PortTarget) -> None:
        """Drop a pool that nobody uses: a SOCKS client may see thousands of hosts."""
        pool = self._pools.get(target)
        if pool is not None and not pool.kept and not pool.sessions:
            del self._pools[target]

    async def connect(self, box: BoxRef, port: int, host: str | None, wait: float | None) -> Stream:
        """Open a connection to a port of a box."""
        return await self.pool(PortTarget(box, port, host)).connect(wait)

    async def ping(self, box: BoxRef, count: int, timeout: float) -> Pinged:
        """Measure the way to the agent and back. Errors as ``connect.ping``."""
        return await ping(self._sessions, box, self.config, count=count, timeout=timeout)

    async def _send_key(self, box: BoxRef, user: str, public_key: str) -> None:
        await self._cloud.send_ssh_key(box.account, box.target, user, public_key)

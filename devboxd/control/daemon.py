"""The daemon as the API sees it: boxes by name, and everything that can be done with one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Final

import msgspec

from devboxd.aws.errors import SessionOver
from devboxd.control.base.needs import Cloud, Dialer
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.attach import Attach
from devboxd.control.connect.execute import ExecSpec, Execution
from devboxd.control.connect.forward import Forwards, ListenerStore, Saved
from devboxd.control.connect.port import IDLE_AFTER, PortPool, PortTarget
from devboxd.control.connect.session import HeldSession, Plan, Quiet
from devboxd.control.connect.ssh import Keys, SshAccess
from devboxd.control.connect.sshagent import SshAgents
from devboxd.control.connect.stream import Stream
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import BadRequest, BoxNotFound, Denied, DevboxError, Unreachable
from devboxd.model.attach import AttachSpec
from devboxd.model.box import PROJECT_TAG, Account, BoxRef, Instance
from devboxd.model.config import Config
from devboxd.model.hold import BEAT
from devboxd.model.names import is_instance_id, is_name, owner_reason, strip_suffix
from devboxd.model.states import Connection, InstanceState, SessionKind
from devboxd.model.terminal import Leaving
from devboxd.ssm import documents
from devboxd.ssm.limits import SHELL

log = logging.getLogger(__name__)

NAMES_KEPT: Final = 30.0  # seconds that a name keeps its instance without asking EC2 again


class Memory(msgspec.Struct):
    """What the journal keeps between daemons: only what AWS cannot tell."""

    forwards: list[Saved] = []
    open_sessions: dict[str, Account] = {}
    accounts: list[Account] = []
    host_keys: dict[str, dict[int, list[str]]] = {}  # by box, by port: what ssh pins
    users: dict[str, str] = {}  # by box: who logs in there


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
        remember: Callable[[Memory], None],
        listeners: ListenerStore | None = None,
        *,
        idle_after: float = IDLE_AFTER,
    ) -> None:
        self.shared = shared
        self.config = config
        self.attached = 0
        self._cloud = cloud
        self._dialer = dialer
        self._memory = memory
        self._remember = remember
        self._idle_after = idle_after
        self._pools: dict[PortTarget, PortPool] = {}
        self._warm: list[PortPool] = []
        self._names: dict[tuple[str, Account], tuple[float, BoxRef]] = {}
        self._last_boxes: dict[Account, tuple[float, list[Instance]]] = {}
        self._stale = dict(memory.open_sessions)  # left open by an earlier daemon, until the sweep
        self.forwards = Forwards(
            shared,
            self.pool,
            self.execute,
            self._save_forwards,
            wait=lambda: self.config.forward.wait,
            store=listeners,
        )
        self.ssh = SshAccess(shared, keys, self.execute, self._send_key)
        self.agents = SshAgents(shared, self.execute)
        shared.sessions.on_change = self._save_sessions

    # Life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what an earlier daemon left: its forwards, and the sessions it could not end."""
        self.shared.tasks.spawn("heart", steadily(self.shared, "heart", self._beat))
        self.shared.tasks.spawn("sweep", self._sweep(dict(self._stale)))
        await self.forwards.restore(list(self._memory.forwards))
        self.shared.tasks.spawn("warm ports", self._warm_up())

    async def stop(self) -> None:
        """End all sessions at AWS's side, too; within a few seconds."""
        await self.forwards.stop()
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        await self.shared.tasks.stop()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            for session in list(self.shared.sessions.running):
                session.beat()

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

    async def _sweep(self, stale: Mapping[str, Account]) -> None:
        """End what a daemon before us left open: it can not be resumed without that daemon's memory."""
        ended = 0
        for session_id, account in stale.items():
            was_open = await self._end(account, session_id)
            ended += was_open is True
            if was_open is not None:
                del self._stale[session_id]
        prefix = owner_reason(self.shared.sessions.owner)
        for account in {self.config.account_of(Account()), *self._memory.accounts}:
            try:
                found = await self._cloud.sessions(account).active(reason_prefix=prefix)
            except DevboxError as error:
                log.info("no sweep of %s: %s", account, error)
                continue
            for session in found:
                # One of ours may be listed before the answer to its StartSession has reached us.
                if not session.reason.endswith(f"/{self.shared.sessions.run}") and session.id not in stale:
                    ended += await self._end(account, session.id) is True
        if ended:
            self.shared.news.tell(
                "sweep.ended", f"ended {ended} sessions that an earlier daemon had left open"
            )
        self._save_sessions()

    async def _end(self, account: Account, session_id: str) -> bool | None:
        """End a session. Returns whether it was open; None where that could not be done (the next daemon tries)."""
        try:
            await self._cloud.sessions(account).terminate(session_id)
        except SessionOver:
            return False
        except DevboxError as error:
            log.warning("stale session %s could not be ended: %s", session_id, error)
            return None
        return True

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
        if box.account not in self._memory.accounts:
            self._memory.accounts = [*self._memory.accounts, box.account][-8:]
            self._remember(self._memory)
        return box

    # Sessions ---------------------------------------------------------------------------------------

    def sessions(self) -> list[HeldSession]:
        """All held sessions, oldest first."""
        return list(self.shared.sessions.running)

    async def end_session(self, session_id: str) -> HeldSession:
        """End a session by id or unique start of it.

        Raises:
            BoxNotFound: none is called so.
        """
        found = [
            session
            for session in self.shared.sessions.running
            if session.id and session.id.startswith(session_id)
        ]
        if len(found) != 1:
            raise BoxNotFound(f"no session is called {session_id!r}", hint="devboxctl status lists them")
        await found[0].stop()
        return found[0]

    async def attach(self, spec: AttachSpec, terminal: Terminal) -> Leaving:
        """Join a terminal to a box until its user leaves."""

        async def state() -> InstanceState | None:
            instance = await self.instance(spec.box)
            return instance.state if instance is not None else None

        attach = Attach(
            self.shared,
            self._cloud.sessions(spec.box.account),
            self._dialer,
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
            self.shared,
            self._cloud.sessions(spec.box.account),
            self._dialer,
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
                self.shared,
                self._cloud.sessions(target.box.account),
                self._dialer,
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

    async def ping(self, box: BoxRef, count: int, timeout: float) -> tuple[list[float], float, str]:
        """Measure the way to the agent and back, over a session of its own.

        Returns:
            Round trips in seconds, seconds that opening took, and the agent's version (may be empty).
        """
        clock = self.shared.time
        # A port session greets at once and shows the agent's version; a shell would sleep for a second.
        plan = Plan(
            target=box.target,
            box=box.name,
            account=box.account,
            kind=SessionKind.PORT,
            document=documents.PORT,
            parameters={"portNumber": "22"},
            limits=SHELL,
            wait=timeout,
            keep_alive=self.config.keep_alive_of(box),
        )
        session = HeldSession(
            self.shared, self._cloud.sessions(box.account), self._dialer, plan, Quiet(), self.config.link
        )
        began = clock.monotonic()
        trips: list[float] = []
        # Not in a task group: it would wrap what made the session fail.
        holder = self.shared.tasks.spawn(f"ping {box.name}", session.run())
        try:
            async with asyncio.timeout(timeout):
                await session.wait_ready()
                opened = clock.monotonic() - began
                for _ in range(count):
                    trips.append(await session.measure())
                    await asyncio.sleep(0.05)
        except TimeoutError:
            if not trips:
                detail = session.detail or "no answer"
                raise Unreachable(f"{box.name} did not answer within {timeout:g} s: {detail}") from None
        finally:
            await session.stop()
            await holder
        version = session.channel.agent_version if session.channel is not None else ""
        return trips, opened, version

    async def _send_key(self, box: BoxRef, user: str, public_key: str) -> None:
        await self._cloud.send_ssh_key(box.account, box.target, user, public_key)

    # Memory -----------------------------------------------------------------------------------------

    def _save_forwards(self, forwards: list[Saved]) -> None:
        self._memory.forwards = forwards
        self._remember(self._memory)

    def _save_sessions(self) -> None:
        now_open = {
            s.id: s.plan.account
            for s in self.shared.sessions.running
            if s.id and s.id in self.shared.sessions.open_ids
        }
        self._memory.open_sessions = {**self._stale, **now_open}
        self._remember(self._memory)

"""The agent of one simulated box: a worker per session, and what survives the agent's own troubles."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from devboxd.simulator.agent import process
from devboxd.simulator.agent.channel import AgentChannel, HandshakeFailed, ReaderDied
from devboxd.simulator.agent.command import CommandPlugin
from devboxd.simulator.agent.port import PortPlugin
from devboxd.simulator.agent.ports import TABLE, keep_table
from devboxd.simulator.agent.shell import Place, PtyPlugin, Result
from devboxd.simulator.clock import Clock
from devboxd.simulator.gateway.gateway import Gateway
from devboxd.simulator.gateway.session import AgentLink, LinkCut, Session
from devboxd.simulator.kms import Kms
from devboxd.simulator.options import Options
from devboxd.simulator.tasks import Tasks

log = logging.getLogger(__name__)

_RECONNECTS = 6  # attempts of a worker whose link was cut; then it stays alive and deaf
_ERROR_BANNER = "----------ERROR-------\n"


class Plugin(Protocol):
    """What a session type does with its channel."""

    needs_handshake: bool
    handshake_properties: Any

    async def handle(self, payload_type: int, data: bytes) -> bool: ...

    async def run(self, channel: AgentChannel) -> Result: ...


class StartFailed(Exception):
    """The session cannot be started; the text reaches the client in ``channel_closed``."""


class Agent:
    """Runs the sessions of one box on this machine, below the box's own directory."""

    def __init__(
        self,
        target: str,
        disk: Path,
        *,
        gateway: Gateway,
        kms: Kms,
        options: Options,
        clock: Clock,
        tasks: Tasks,
        entropy: random.Random,
        env: Mapping[str, str],
        marker: str,
    ) -> None:
        self.target = target
        self.disk = disk
        self.ports: dict[int, int] = {}  # ports of the box that listen elsewhere on this machine
        self.users: set[str] = {_current_user()}  # names RunAs accepts; all of them are the current user
        self.kms_enabled = False  # encrypt shells and commands, as the account preferences would say
        self.drops = 0  # sessions that it will lose without a word, as the real one does as it starts
        self.marker = marker
        self._gateway = gateway
        self._kms = kms
        self._options = options
        self._clock = clock
        self._tasks = tasks
        self._random = entropy
        self._table = disk.with_name(f"{target}.ports")
        self._env = dict(env) | {TABLE: str(self._table)}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self.map_ports({})

    @property
    def sessions(self) -> list[str]:
        """Ids of the sessions that have a worker."""
        return list(self._workers)

    def map_ports(self, ports: Mapping[int, int]) -> None:
        """Let ports of the box be others of this machine."""
        self.ports.update(ports)
        keep_table(self._table, self.ports)

    def start(self, session: Session) -> None:
        """Take a new session from the service; or lose it, as the agent does in its first moments."""
        if self.drops:
            self.drops -= 1
            return
        worker = self._tasks.start(self._run(session), f"worker {session.id}")
        self._workers[session.id] = worker
        worker.add_done_callback(lambda _: self._workers.pop(session.id, None))

    async def kill(self) -> None:
        """The box loses power: every worker and every process on it is gone, nobody says good-bye."""
        workers = [self._workers[name] for name in self.sessions]
        for worker in workers:
            worker.cancel()
        if workers:
            await asyncio.wait(workers)
        await process.end_leftovers(self.marker)

    async def _run(self, session: Session) -> None:
        await asyncio.sleep(self._options.agent_start_delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.agent_start_wait):
                await session.client_seen.wait()
        result = Result()
        try:
            plugin = self._plugin(session)
            result = await self._work(session, plugin)
        except (StartFailed, HandshakeFailed) as error:
            result = Result(str(error), failed=True)
        except LinkCut:
            pass  # the session ended before the worker was up
        finally:
            await self._gateway.detach_agent(session)
        if result.crashed:
            await asyncio.sleep(self._options.crash_notice_delay)
        await self._gateway.task_complete(session, result.output, failed=result.failed)

    async def _work(self, session: Session, plugin: Plugin) -> Result:
        pacing = self._options.pacing if session.task.pacing is None else session.task.pacing
        channel = AgentChannel(
            session.id, session.target, handler=plugin.handle, options=self._options, clock=self._clock,
            entropy=self._random, pacing=pacing,
        )  # fmt: skip
        link = await self._reconnect(session)  # the first time, too, a real worker tries more than once
        if link is None:
            raise LinkCut("no way to the gateway")
        channel.attach(link)
        reader = self._tasks.start(self._read(session, channel, link), f"reader {session.id}")
        resender = self._tasks.start(channel.resend(), f"resender {session.id}")
        try:
            await channel.report_state("Connected")
            kms = self._kms if self.kms_enabled and session.task.session_type != "Port" else None
            if plugin.needs_handshake or kms is not None:
                if isinstance(plugin, CommandPlugin):
                    channel.separate_output = plugin.separate
                try:
                    await channel.perform_handshake(
                        session.task.session_type, plugin.handshake_properties, kms
                    )
                except HandshakeFailed as error:
                    text = f"{_ERROR_BANNER}Encountered error while initiating handshake. {error}\n"
                    raise HandshakeFailed(text) from error
            else:
                channel.skip_handshake()
            result = await plugin.run(channel)
            if not result.crashed:
                await channel.finish_handling()
                await channel.drain()
            return result
        finally:
            for task in (reader, resender):
                task.cancel()
            await asyncio.wait((reader, resender))

    async def _read(self, session: Session, channel: AgentChannel, link: AgentLink) -> None:
        """Read for as long as there is a link, reconnecting like the real worker."""
        while True:
            try:
                await channel.read(link)
            except ReaderDied as error:
                log.info("session %s: the agent's reader died: %s", session.id, error)
                return
            except LinkCut:
                reconnected = await self._reconnect(session)
                if reconnected is None:
                    log.info("session %s: the agent gave up reconnecting and is deaf now", session.id)
                    return
                link = reconnected
                channel.attach(link)

    async def _reconnect(self, session: Session) -> AgentLink | None:
        delay = 0.1
        for _ in range(_RECONNECTS):
            try:
                return await self._gateway.attach_agent(session)
            except LinkCut:
                if session.is_over:
                    return None
                await asyncio.sleep(delay)
                delay = min(5.0, delay * 2)
        return None

    # -- what to run ---------------------------------------------------------------------------------

    def _plugin(self, session: Session) -> Plugin:
        task = session.task
        if task.session_type == "Port":
            return PortPlugin(task.properties, self._options, self._local_port)
        properties = task.properties.get("linux") or {}
        if not isinstance(properties.get("runAsElevated", False), bool):
            raise StartFailed(
                f"{_ERROR_BANNER}Invalid format in session properties: cannot unmarshal string into "
                "Go struct field ShellPropertyConfig.linux.runAsElevated of type bool\n"
            )
        self._check_user(task.inputs)
        place = Place(self.disk, self._environment())
        commands = str(properties.get("commands") or "")
        if task.session_type == "Standard_Stream":
            profile = str((task.inputs.get("shellProfile") or {}).get("linux") or "")
            argv = ["sh", "-c", commands] if commands.strip() else ["sh"]
            return PtyPlugin(place, argv, profile=profile, first_read_delay=self._options.first_read_delay)
        if not commands.strip():
            raise StartFailed(f"Commands cannot be empty for session type {task.session_type}")
        if task.session_type == "InteractiveCommands":
            delay = self._options.first_read_delay
            return PtyPlugin(place, ["sh", "-c", commands], profile="", first_read_delay=delay)
        if task.session_type == "NonInteractiveCommands":
            try:
                return CommandPlugin(place, properties, self._options)
            except ValueError as error:
                raise StartFailed(f"fail to get separateOutPutStream property: {error}") from error
        raise StartFailed(
            f"Plugin with name {task.session_type} is not supported by this version of ssm agent, "
            "please update to latest version"
        )

    def _check_user(self, inputs: Mapping[str, Any]) -> None:
        if str(inputs.get("runAsEnabled", False)).lower() != "true":
            return
        user = str(inputs.get("runAsDefaultUser") or "")
        if not user.strip():
            problem = "please set the RunAs default user"
        elif user == "root":
            problem = "invalid uid and gid"
        elif user not in self.users:
            problem = f"failed to start pty since RunAs user {user} does not exist"
        else:
            return
        raise StartFailed(f"{_ERROR_BANNER}Unable to start command: {problem}\n\n")

    def _environment(self) -> dict[str, str]:
        env = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        env.setdefault("LANG", "C.UTF-8")
        return (
            env | {"TERM": "xterm-256color", "HOME": str(self.disk), process.MARKER: self.marker} | self._env
        )

    def _local_port(self, port: int) -> int:
        return self.ports.get(port, port)


def _current_user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())

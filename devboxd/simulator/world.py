"""``Simulator``: gateway, agents, EC2 and the APIs behind one loopback port, with boxes on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

from devboxd.simulator import sigv4
from devboxd.simulator.agent import disk, process
from devboxd.simulator.agent.agent import Agent
from devboxd.simulator.agent.service import BoxServices
from devboxd.simulator.api.connect import ConnectApi
from devboxd.simulator.api.documents import standard_documents
from devboxd.simulator.api.endpoint import Endpoint
from devboxd.simulator.api.kms import KmsApi
from devboxd.simulator.api.ssm import SsmApi
from devboxd.simulator.chaos import BadFault, Chaos
from devboxd.simulator.clock import Clock, RealClock
from devboxd.simulator.ec2.boxes import Change, Ec2, State
from devboxd.simulator.ec2.query import Ec2Http
from devboxd.simulator.faults import Faults
from devboxd.simulator.gateway.gateway import Gateway
from devboxd.simulator.kms import Kms
from devboxd.simulator.options import Options
from devboxd.simulator.tasks import Tasks

DEFAULT_BOXES: Final = ("api", "web", "data")
REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class Box:
    """A simulated box, for those who drive the simulator."""

    name: str
    id: str
    disk: Path


class Simulator:
    """A loopback AWS with boxes. Use as an async context manager; ``root`` should be a short path.

    ``seed`` makes ids, tokens and faults repeatable. ``stopped`` names boxes that start as stopped.
    """

    def __init__(
        self,
        root: Path,
        *,
        boxes: Iterable[str] = DEFAULT_BOXES,
        stopped: Iterable[str] = (),
        options: Options | None = None,
        seed: int = 0,
        clock: Clock | None = None,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        services: bool = True,
    ) -> None:
        self.root = root
        self.options = options or Options()
        self.clock = clock or RealClock()
        self.documents = standard_documents()
        self.agents: dict[str, Agent] = {}
        self._tasks = Tasks()
        self._ssl = ssl_context
        self._port = port
        self._has_services = services
        self._services: list[BoxServices] = []
        self._runner: web.AppRunner | None = None
        self._names = list(boxes)
        self._stopped = frozenset(stopped)
        entropy = random.Random(seed)
        self._marker = f"{os.getpid()}.{random.SystemRandom().getrandbits(64):016x}"
        self.faults = Faults(self.clock.monotonic, random.Random(entropy.getrandbits(64)))
        self.gateway = Gateway(
            options=self.options, clock=self.clock, faults=self.faults, tasks=self._tasks, entropy=entropy
        )
        self.ec2 = Ec2(self.clock, self.options, entropy, REGION)
        self.kms = Kms(entropy)
        self.connect = ConnectApi(self)
        self.chaos = Chaos(self)
        self.endpoint = Endpoint(
            ssm=SsmApi(self),
            kms=KmsApi(self.kms),
            connect=self.connect,
            ec2=Ec2Http(self.ec2),
            faults=self.faults,
            options=self.options,
            entropy=entropy,
            changed=self.boxes_changed,
        )
        self._random = entropy

    # -- life ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start listening; boxes are up when this returns."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        shims = disk.make_shims(self.root)
        for name in self._names:
            state = State.STOPPED if name in self._stopped else State.RUNNING
            instance = self.ec2.add(name, state=state)
            folder = disk.make_disk(self.root, instance.id, name, shims)
            self.agents[instance.id] = self._agent(instance.id, folder, shims)
            if self._has_services:
                services = BoxServices(name, folder)
                self.agents[instance.id].ports.update(await services.start())
                self._services.append(services)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_get("/v1/data-channel/{session}", self.gateway.data_channel)
        app.router.add_get("/_simulator/state", self._show)
        app.router.add_post("/_simulator/fault", self._fault_route)
        app.router.add_route("*", "/{path:.*}", self.endpoint.handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._ssl)
        await site.start()
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop: sockets dropped, every child process killed and reaped."""
        await self.gateway.close()
        await self._tasks.close()
        for services in self._services:
            await services.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self.endpoint.close()
        if self.gateway.sessions:
            await process.end_leftovers(self._marker)

    def _agent(self, box_id: str, folder: Path, shims: Path) -> Agent:
        return Agent(
            box_id,
            folder,
            gateway=self.gateway,
            kms=self.kms,
            options=self.options,
            clock=self.clock,
            tasks=self._tasks,
            entropy=self._random,
            env=disk.environment(folder, shims, os.environ.get("PATH", os.defpath)),
            marker=f"{self._marker}/{box_id}",
        )

    # -- for those who drive it ----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The endpoint of every API."""
        return f"{'https' if self._ssl else 'http'}://127.0.0.1:{self._port}"

    @property
    def failures(self) -> list[BaseException]:
        """Bugs of the simulator that surfaced in its tasks; tests want this empty."""
        return self._tasks.failures

    @property
    def boxes(self) -> list[Box]:
        """All boxes, in the order of their making."""
        return [
            Box(self.ec2.get(box_id).tags.get("Name", box_id), box_id, agent.disk)
            for box_id, agent in self.agents.items()
        ]

    def box(self, name: str) -> Box:
        """A box by name or instance id.

        Raises:
            KeyError: there is none.
        """
        for box in self.boxes:
            if name in (box.name, box.id):
                return box
        raise KeyError(f"no box is named {name!r}")

    def box_id(self, name: str) -> str:
        """The instance id of a box.

        Raises:
            KeyError: there is none.
        """
        return self.box(name).id

    def environment(self) -> dict[str, str]:
        """What an AWS client needs to talk to this simulator and to nothing else."""
        nowhere = str(self.root / "no-such-file")
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": sigv4.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": sigv4.SECRET_KEY,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    async def fault(self, name: str, **parameters: Any) -> int:
        """Inject a fault (see ``chaos.Chaos``); returns how many things it touched.

        Raises:
            BadFault: no such fault, or not with these parameters.
        """
        return await self.chaos.apply(name, **parameters)

    def use_kms(self, *, enabled: bool = True) -> None:
        """Encrypt new shells and commands, as account preferences with a key would."""
        for agent in self.agents.values():
            agent.kms_enabled = enabled

    def map_port(self, box: str, port: int, local: int) -> None:
        """Let ``port`` of a box be ``local`` here (a box shares this machine's ports otherwise)."""
        self.agents[self.box_id(box)].ports[port] = local

    # -- for its parts -------------------------------------------------------------------------------

    def stream_base(self, host: str) -> str:
        """The start of stream URLs, for a caller who reached us as ``host``."""
        return f"{'wss' if self._ssl else 'ws'}://{host or f'127.0.0.1:{self._port}'}"

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after a while, unless the simulator has ended by then."""

        async def wait() -> None:
            await asyncio.sleep(seconds)
            act()

        self._tasks.start(wait(), "later")

    async def power_cycle(self, box_id: str, *, silent: bool) -> None:
        """Everything on a box is gone; unless ``silent``, its sessions are closed, too."""
        await self.agents[box_id].kill()
        for session in list(self.gateway.sessions.values()):
            if session.target == box_id and not silent:
                await self.gateway.terminate(session)

    async def boxes_changed(self, changes: list[Change]) -> None:
        """Make true on the boxes what EC2 was told."""
        for change in changes:
            if change.ends_all and change.id in self.agents:
                await self.power_cycle(change.id, silent=False)

    async def _show(self, request: web.Request) -> web.Response:
        now = self.clock.wall()
        boxes = [
            {
                "name": box.name,
                "id": box.id,
                "disk": str(box.disk),
                "state": self.ec2.get(box.id).state.label,
                "connected": self.ec2.get(box.id).is_connected(now),
            }
            for box in self.boxes
        ]
        sessions = [
            {
                "id": session.id,
                "target": session.target,
                "document": session.task.document,
                "state": session.state.value,
                "counts": dict(session.counts),
            }
            for session in self.gateway.sessions.values()
        ]
        return web.json_response({"boxes": boxes, "sessions": sessions, "faults": Chaos.catalogue()})

    async def _fault_route(self, request: web.Request) -> web.Response:
        problem = 'not an object with "fault"'
        with contextlib.suppress(ValueError, RecursionError):
            fields = json.loads(await request.read())
            if isinstance(fields, dict) and isinstance(fields.get("fault"), str):
                try:
                    return web.json_response({"touched": await self.fault(fields.pop("fault"), **fields)})
                except BadFault as error:
                    problem = str(error)
        return web.json_response({"error": problem}, status=400)

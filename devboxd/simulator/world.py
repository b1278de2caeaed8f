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
from devboxd.simulator.api.connect import ConnectApi
from devboxd.simulator.api.documents import standard_documents
from devboxd.simulator.api.ec2 import Ec2Api
from devboxd.simulator.api.endpoint import Endpoint
from devboxd.simulator.api.kms import KmsApi
from devboxd.simulator.api.moto import MotoApp
from devboxd.simulator.api.parameters import ParametersApi
from devboxd.simulator.api.ssm import SsmApi
from devboxd.simulator.chaos import BadFault, Chaos
from devboxd.simulator.clock import Clock, RealClock
from devboxd.simulator.ec2.records import InstanceState
from devboxd.simulator.faults import Faults
from devboxd.simulator.gateway.gateway import Gateway
from devboxd.simulator.imds import Imds, Said
from devboxd.simulator.kms import Kms
from devboxd.simulator.machines import REGION, Machines
from devboxd.simulator.options import Options
from devboxd.simulator.tasks import Tasks

DEFAULT_BOXES: Final = ("api", "web", "data")


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
        self._tasks = Tasks()
        self._ssl = ssl_context
        self._port = port
        self._runner: web.AppRunner | None = None
        asleep = frozenset(stopped)
        self._first = {name: name not in asleep for name in boxes}
        entropy = random.Random(seed)
        self._marker = f"{os.getpid()}.{random.SystemRandom().getrandbits(64):016x}"
        self.faults = Faults(self.clock.monotonic, random.Random(entropy.getrandbits(64)))
        self.gateway = Gateway(
            options=self.options, clock=self.clock, faults=self.faults, tasks=self._tasks, entropy=entropy
        )
        self.machines = Machines(
            root,
            clock=self.clock,
            options=self.options,
            tasks=self._tasks,
            seed=entropy.getrandbits(64),
            make_agent=self._agent,
            went_down=self.power_cycle,
            has_services=services,
        )
        self.imds = Imds(self.machines.instance)
        self.kms = Kms(entropy)
        self.connect = ConnectApi(self)
        self.chaos = Chaos(self)
        moto = MotoApp()
        self.endpoint = Endpoint(
            ssm=SsmApi(self),
            parameters=ParametersApi(),
            kms=KmsApi(self.kms),
            connect=self.connect,
            ec2=Ec2Api(self.machines, moto),
            moto=moto,
            faults=self.faults,
            options=self.options,
            clock=self.clock,
            entropy=entropy,
        )
        self._random = entropy

    # -- life ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Start listening; boxes are up when this returns."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.imds.start()
        await self.machines.start(self._first)
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
        await self.machines.close()
        await self.imds.close()
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
            env=disk.environment(folder, shims, os.environ.get("PATH", os.defpath))
            | dict(self.imds.environment(box_id)),
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
        found = []
        for box_id, agent in self.machines.agents.items():
            instance = self.machines.instance(box_id)
            name = "" if instance is None else instance.tags.get("Name", "")
            found.append(Box(name or box_id, box_id, agent.disk))
        return found

    def box(self, name: str) -> Box:
        """A box by name or instance id; a living one before one that was terminated.

        Raises:
            KeyError: there is none.
        """
        named = [box for box in self.boxes if name in (box.name, box.id)]
        for box in named:
            if self.machines.state(box.id) is not InstanceState.TERMINATED:
                return box
        if named:
            return named[-1]
        raise KeyError(f"no box is named {name!r}")

    def box_id(self, name: str) -> str:
        """The instance id of a box.

        Raises:
            KeyError: there is none.
        """
        return self.box(name).id

    def state(self, box: str) -> InstanceState:
        """What EC2 says of a box.

        Raises:
            KeyError: there is none.
        """
        return self.machines.state(self.box_id(box))

    def is_connected(self, box: str) -> bool:
        """Whether Session Manager can reach a box.

        Raises:
            KeyError: there is none.
        """
        return self.machines.is_connected(self.box_id(box))

    async def console(self, operation: str, **params: Any) -> dict[str, Any]:
        """An EC2 call by the user in the console: behind our back, and spared by faults.

        Raises:
            Ec2Error: refused.
        """
        return await self.machines.console(operation, **params)

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

    def notice(self, box_id: str, seconds: float) -> None:
        """EC2 gives a spot box notice, and takes it back after so many seconds, unless that is withdrawn."""
        said = self.imds.said.setdefault(box_id, Said())
        said.taken = self.clock.wall() + seconds
        self._tasks.start(self._take_back(box_id, said, seconds), f"notice of {box_id}")

    async def _take_back(self, box_id: str, said: Said, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self.imds.said.get(box_id) is said:
            del self.imds.said[box_id]
            if self.machines.state(box_id) is InstanceState.RUNNING:
                await self.machines.happen("interrupt_spot", box_id)

    def use_kms(self, *, enabled: bool = True) -> None:
        """Encrypt new shells and commands, as account preferences with a key would."""
        for agent in self.machines.agents.values():
            agent.kms_enabled = enabled

    def map_port(self, box: str, port: int, local: int) -> None:
        """Let ``port`` of a box be ``local`` here (a box shares this machine's ports otherwise)."""
        self.machines.agents[self.box_id(box)].map_ports({port: local})

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

    async def power_cycle(self, box_id: str, *, silent: bool = False) -> None:
        """Everything on a box is gone; unless ``silent``, its sessions are closed, too."""
        await self.machines.agents[box_id].kill()
        for session in list(self.gateway.sessions.values()):
            if session.target == box_id and not silent:
                await self.gateway.terminate(session)

    async def _show(self, request: web.Request) -> web.Response:
        boxes = [
            {
                "name": box.name,
                "id": box.id,
                "disk": str(box.disk),
                "state": self.machines.state(box.id).value,
                "connected": self.machines.is_connected(box.id),
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

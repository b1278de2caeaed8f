"""Plays the machines of EC2 on this one: a volume is a directory, a snapshot a copy of it, a box its agent.

The model decides, at every call and as time passes; what it does to machines and media arrives here as
effects and is performed in their order, before the call that caused them is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from devboxd.simulator.agent import disk
from devboxd.simulator.agent.agent import Agent
from devboxd.simulator.agent.service import BoxServices
from devboxd.simulator.clock import Clock
from devboxd.simulator.ec2 import effects, place
from devboxd.simulator.ec2.delays import Delays
from devboxd.simulator.ec2.faults import CONSOLE
from devboxd.simulator.ec2.model import OPERATIONS, Ec2Model
from devboxd.simulator.ec2.records import Instance, InstanceState
from devboxd.simulator.options import Options
from devboxd.simulator.tasks import Tasks

REGION: Final = "us-east-1"
_ZONES: Final = {"us-east-1": 6, "us-west-2": 4}


class MakeAgent(Protocol):
    """How the simulator builds the agent of a box."""

    def __call__(self, box_id: str, folder: Path, shims: Path) -> Agent: ...


class GoDown(Protocol):
    """How a box loses everything that runs on it."""

    def __call__(self, box_id: str, *, silent: bool) -> Awaitable[None]: ...


class Machines:
    """All regions of the account, and what runs in them. ``went_down`` hears of boxes that lost everything."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        options: Options,
        tasks: Tasks,
        seed: int,
        make_agent: MakeAgent,
        went_down: GoDown,
        has_services: bool,
    ) -> None:
        self.agents: dict[str, Agent] = {}  # by instance id, in the order of their making
        self.regions: dict[str, Ec2Model] = {}
        self._root = root
        self._clock = clock
        self._options = options
        self._tasks = tasks
        self._seed = seed
        self._make_agent = make_agent
        self._went_down = went_down
        self._has_services = has_services
        self._services: dict[str, BoxServices] = {}
        self._away: dict[str, float] = {}  # agents whose control channel is down, until when (wall)
        self._effects: deque[tuple[Ec2Model, effects.Effect]] = deque()
        self._performing = asyncio.Lock()
        self._woken = asyncio.Event()
        self._shims = root
        self._silent: frozenset[str] = frozenset()

    @property
    def ec2(self) -> Ec2Model:
        """The region where the first boxes are."""
        return self.region(REGION)

    async def start(self, boxes: Mapping[str, bool]) -> None:
        """Make the first boxes, name to whether it runs, and let time pass."""
        self._shims = disk.make_shims(self._root)
        now = self._clock.wall()
        for name, runs in boxes.items():
            instance = place.box(self.ec2, name, runs=runs, now=now)
            self._furnish(self.ec2, instance)
            await self._perform()
            await self._equip(self.ec2, instance.id)
        self._tasks.start(self._pass_time(), "ec2")

    async def close(self) -> None:
        """Stop what listens on the boxes; their agents end with their tasks."""
        for services in list(self._services.values()):
            await services.close()

    # -- EC2 -----------------------------------------------------------------------------------------

    def region(self, name: str) -> Ec2Model:
        """EC2 in one region; made on first use."""
        if name not in self.regions:

            def keep(effect: effects.Effect) -> None:
                self._effects.append((model, effect))

            model = Ec2Model(
                now=self._clock.wall(),
                seed=self._seed,
                region=name,
                zones=_ZONES.get(name, 3),
                delays=_delays(self._options),
                is_throttled=self._options.throttle,
                on_effect=keep,
            )
            self.regions[name] = model
        return self.regions[name]

    def knows(self, operation: str) -> bool:
        """Whether a call is answered here."""
        return operation in OPERATIONS

    async def call(
        self, operation: str, params: Mapping[str, Any], *, region: str = REGION, caller: str = "us"
    ) -> dict[str, Any]:
        """Answer one call; what it does to machines is done when this returns.

        Raises:
            Ec2Error, AnswerLost: as ``Ec2Model.call``.
        """
        try:
            return self.region(region).call(operation, params, now=self._clock.wall(), caller=caller)
        finally:
            self._woken.set()
            await self._perform()

    async def console(self, operation: str, **params: Any) -> dict[str, Any]:
        """A call by the user in the console: nothing goes wrong for them.

        Raises:
            Ec2Error: refused all the same.
        """
        return await self.call(operation, params, caller=CONSOLE)

    async def happen(self, what: str, box_id: str) -> None:
        """Let something happen to a box by itself: ``power_off``, ``interrupt_spot`` or ``lose_host``.

        Raises:
            ValueError: not to this box as it is now.
        """
        for model in list(self.regions.values()):
            if box_id in model.tables.instances:
                try:
                    getattr(model, what)(box_id, now=self._clock.wall())
                finally:
                    self._woken.set()
                    await self._perform()

    @contextlib.contextmanager
    def silence(self, box_ids: Iterable[str]) -> Iterator[None]:
        """Meanwhile nobody is told when one of these goes down."""
        self._silent = frozenset(box_ids)
        try:
            yield
        finally:
            self._silent = frozenset()

    # -- boxes ---------------------------------------------------------------------------------------

    def instance(self, box_id: str) -> Instance | None:
        """The record of a box as it is now; None: there is none, or not any more."""
        for model in self.regions.values():
            model.settle(self._clock.wall())
            if (found := model.tables.instances.get(box_id)) is not None:
                return found
        return None

    def instances(self) -> list[Instance]:
        """All of them that have an agent."""
        found = [self.instance(box_id) for box_id in self.agents]
        return [one for one in found if one is not None]

    def state(self, box_id: str) -> InstanceState:
        """The state of a box; one that EC2 has forgotten is terminated."""
        instance = self.instance(box_id)
        return InstanceState.TERMINATED if instance is None else instance.state

    def is_connected(self, box_id: str) -> bool:
        """Whether Session Manager can reach the agent: long enough up, allowed to, and not away."""
        instance, now = self.instance(box_id), self._clock.wall()
        if instance is None or box_id not in self.agents or now < self._away.get(box_id, 0.0):
            return False
        if instance.state is not InstanceState.RUNNING or instance.running_since is None:
            return False
        if not instance.boots or instance.profile is None:
            return False
        up, flap = instance.running_since + self._options.agent_boot, self._options.agent_flap
        # Seen after every start: TargetNotConnected again shortly after the first success.
        return now >= up and not (flap and up + flap <= now < up + 2 * flap)

    def keep_away(self, box_id: str, seconds: float) -> None:
        """The agent's control channel is down for a while; the box runs on."""
        self._away[box_id] = self._clock.wall() + seconds

    # -- effects -------------------------------------------------------------------------------------

    async def _pass_time(self) -> None:
        """Let everything happen that is due, whether somebody looks or not."""
        while True:
            self._woken.clear()
            now = self._clock.wall()
            for model in self.regions.values():
                model.settle(now)
            await self._perform()
            due = [at for model in self.regions.values() if (at := model.next_event()) is not None]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(due) - self._clock.wall()) if due else None):
                    await self._woken.wait()

    async def _perform(self) -> None:
        async with self._performing:
            while self._effects:
                model, effect = self._effects.popleft()
                await self._do(model, effect)

    async def _do(self, model: Ec2Model, effect: effects.Effect) -> None:
        match effect:
            case effects.VolumeMade(volume, snapshot):
                await self._make(self._root / volume, None if snapshot is None else self._root / snapshot)
            case effects.SnapshotTaken(snapshot, volume):
                await asyncio.to_thread(disk.copy, self._root / volume, self._root / snapshot)
            case effects.VolumeShown(box_id):
                if box_id in self.agents and (instance := model.tables.instances.get(box_id)) is not None:
                    self._furnish(model, instance)
            case effects.VolumeGone(medium) | effects.SnapshotGone(medium):
                await asyncio.to_thread(disk.remove, self._root / medium)
            case effects.PowerOn(box_id):
                instance = model.tables.instances.get(box_id)
                if instance is not None:
                    self._furnish(model, instance)
                    await self._equip(model, box_id)
            case effects.PowerOff(box_id) | effects.Rebooted(box_id):
                if box_id in self.agents:
                    await self._went_down(box_id, silent=box_id in self._silent)

    async def _make(self, folder: Path, source: Path | None) -> None:
        """The medium of a volume. What a public image has on it comes with the first boot."""
        if source is not None and source.is_dir():
            await asyncio.to_thread(disk.copy, source, folder)
        else:
            folder.mkdir(mode=0o700, exist_ok=True)

    def _furnish(self, model: Ec2Model, instance: Instance) -> None:
        """Complete the root volume with what a shell needs; what is there stays."""
        root, others = self._volumes(model, instance)
        disk.make_disk(self._root, root, instance.tags.get("Name", instance.id), self._shims)
        disk.mount(self._root / root, {name: self._root / volume for name, volume in others.items()})

    async def _equip(self, model: Ec2Model, box_id: str) -> None:
        """Give a box its agent, and what listens on it, the first time it is seen running or stopped."""
        instance = model.tables.instances[box_id]
        if box_id in self.agents:
            return
        root, _ = self._volumes(model, instance)
        agent = self._make_agent(box_id, self._root / root, self._shims)
        self.agents[box_id] = agent
        if self._has_services:
            services = BoxServices(instance.tags.get("Name", box_id), self._root / root)
            self._services[box_id] = services
            agent.map_ports(await services.start())

    def _volumes(self, model: Ec2Model, instance: Instance) -> tuple[str, dict[str, str]]:
        """The root volume, and the others by the last part of their device's name."""
        attached = {
            volume.attachment.device: volume.id
            for volume in model.tables.volumes_of(instance.id)
            if volume.attachment is not None
        }
        root = attached.pop(instance.boot.root_device)
        return root, {device.rpartition("/")[2]: volume for device, volume in attached.items()}


def _delays(options: Options) -> Delays:
    """What the simulator's options say of EC2's pace; all of it is certain here, nothing is drawn."""

    def exactly(seconds: float) -> tuple[float, float]:
        return (seconds, seconds)

    return Delays(
        pending=exactly(options.pending),
        stopping=exactly(options.stopping),
        hanging=exactly(options.stopping * 20),
        forced=exactly(options.stopping / 2),
        shutting_down=exactly(options.stopping),
        rebooting=exactly(max(0.0, options.rebooting - options.agent_boot)),
        checks=exactly(options.pending),
        volume_created=exactly(options.pending / 2),
        attaching=exactly(options.pending / 4),
        detaching=exactly(options.stopping / 4),
        volume_deleted=exactly(options.stopping / 2),
        modifying=exactly(options.pending),
        optimizing=exactly(options.pending),
        snapshot=exactly(options.snapshot),
        image=exactly(options.image),
        registering=exactly(options.image),
        deregistered_shown=exactly(options.image),
    )

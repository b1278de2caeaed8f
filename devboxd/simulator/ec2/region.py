"""Everything of one account in one region, and its agenda. Operations change it; time moves it on."""

from __future__ import annotations

import heapq
import random
import re
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeVar

from devboxd.simulator.ec2.delays import Delays
from devboxd.simulator.ec2.effects import Effect
from devboxd.simulator.ec2.errors import malformed, not_found
from devboxd.simulator.ec2.faults import Fault, Faults
from devboxd.simulator.ec2.records import Image, Instance, SecurityGroup, Snapshot, Subnet, Volume, Vpc, Zone

ACCOUNT: Final = "123456789012"
ID: Final = re.compile(r"[a-z]+-([0-9a-f]{8}|[0-9a-f]{17})")
_VIEWS_KEPT: Final = 16

R = TypeVar("R", Instance, Volume, Snapshot, Image)
T = TypeVar("T")


@dataclass(slots=True)
class Tables:
    """All things that come and go. Records are frozen, so a copy is a view of this moment for ever."""

    instances: dict[str, Instance] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)

    def copy(self) -> Tables:
        """A view of this moment."""
        return Tables(dict(self.instances), dict(self.volumes), dict(self.snapshots), dict(self.images))

    def volumes_of(self, instance_id: str) -> list[Volume]:
        """The volumes attached to an instance, in the order of their devices."""
        return self.attached({instance_id}).get(instance_id, [])

    def attached(self, instance_ids: Container[str] | None = None) -> dict[str, list[Volume]]:
        """The volumes of these instances (of all), each in the order of their devices."""
        found: dict[str, dict[str, Volume]] = {}
        for volume in self.volumes.values():
            place = volume.attachment
            if place is not None and (instance_ids is None or place.instance in instance_ids):
                found.setdefault(place.instance, {})[place.device] = volume
        return {instance: [v for _, v in sorted(devices.items())] for instance, devices in found.items()}


class Event(NamedTuple):
    """Something that will happen by itself."""

    due: float
    number: int  # keeps the order of those due at once
    kind: str
    id: str
    serial: int  # of the instance's state when it was planned


class VolumeToken(NamedTuple):
    """What a client token of CreateVolume stands for."""

    request: str
    volume: str


class Token(NamedTuple):
    """What a client token stands for."""

    request: str  # the parameters, canonically
    reservation: str
    instances: tuple[str, ...]


@dataclass(slots=True)
class Caller:
    """Who asks what, for the time of one call."""

    operation: str = ""
    name: str = ""
    now: float = 0.0


@dataclass(slots=True)
class Networks:
    """What boxes are launched into."""

    zones: list[Zone] = field(default_factory=list)
    vpcs: dict[str, Vpc] = field(default_factory=dict)
    subnets: dict[str, Subnet] = field(default_factory=dict)
    groups: dict[str, SecurityGroup] = field(default_factory=dict)


class Region:
    """The state of one region, with its random numbers, its agenda and its faults."""

    def __init__(
        self,
        name: str,
        *,
        account: str,
        seed: int,
        delays: Delays,
        on_effect: Callable[[Effect], None] | None,
    ) -> None:
        self.name = name
        self.account = account
        self.delays = delays
        self.tables = Tables()
        self.networks = Networks()
        self.tokens: dict[tuple[str, str], Token] = {}  # (zone or region, token)
        self.volume_tokens: dict[str, VolumeToken] = {}
        self.held: set[str] = (
            set()
        )  # volumes that the system of their box has mounted: not detached while it runs
        self.ghosts: dict[str, Instance] = {}  # terminated, forgotten, and still meant by a client token
        self.profiles: set[str] | None = None  # names of instance profiles that exist; None: any
        self.vcpu_limit: int | None = None
        self.caller = Caller()
        self.on_effect = on_effect
        self.entropy = random.Random(f"{seed}/{account}/{name}")
        self.faults = Faults(random.Random(f"{seed}/{account}/{name}/faults"))
        self.content = 0  # number of the newest write of any box
        self.version = 0  # of the tables
        self.views: deque[tuple[float, Tables]] = deque(maxlen=_VIEWS_KEPT)  # when superseded, and what
        self.agenda: list[Event] = []
        self._numbers = 0
        self._seen = -1

    @property
    def now(self) -> float:
        """The time of the call or event that is being processed."""
        return self.caller.now

    # -- records -------------------------------------------------------------------------------------

    def new_id(self, prefix: str) -> str:
        """An id as EC2 makes them: ``i-0123456789abcdef0``."""
        return f"{prefix}-{self.entropy.getrandbits(68):017x}"

    def put(self, record: Instance | Volume | Snapshot | Image) -> None:
        """Keep a new record or the next version of one."""
        self.version += 1
        table: dict[str, Any] = self._table(record.id)
        table[record.id] = record

    def drop(self, resource_id: str) -> None:
        """Forget one."""
        self.version += 1
        self._table(resource_id).pop(resource_id, None)

    def instance(self, instance_id: str) -> Instance:
        """One instance by id. Raises Ec2Error, as the three below."""
        return self._find(instance_id, "i-", self.tables.instances, lambda one: one.launched)

    def volume(self, volume_id: str) -> Volume:
        """One volume by id."""
        return self._find(volume_id, "vol-", self.tables.volumes, lambda one: one.created)

    def snapshot(self, snapshot_id: str) -> Snapshot:
        """One snapshot by id."""
        return self._find(snapshot_id, "snap-", self.tables.snapshots, lambda one: one.started)

    def image(self, image_id: str) -> Image:
        """One image by id."""
        return self._find(image_id, "ami-", self.tables.images, lambda one: one.created)

    def _find(self, resource_id: str, prefix: str, table: Mapping[str, R], born: Callable[[R], float]) -> R:
        if not resource_id.startswith(prefix) or not ID.fullmatch(resource_id):
            raise malformed(resource_id, prefix)
        record = table.get(resource_id)
        if record is None:
            raise not_found(resource_id)
        if self.faults.any("not-visible"):
            fault = self.draw("not-visible", resource_id)
            if fault is not None and self.now - born(record) < fault.seconds:
                raise not_found(resource_id)
        return record

    def _table(self, resource_id: str) -> dict[str, Any]:
        prefix = resource_id.partition("-")[0]
        tables: dict[str, dict[str, Any]] = {
            "i": self.tables.instances,
            "vol": self.tables.volumes,
            "snap": self.tables.snapshots,
            "ami": self.tables.images,
        }
        return tables[prefix]

    # -- time ----------------------------------------------------------------------------------------

    def wait(self, kind: str) -> float:
        """Draw how long something takes, by the name of its range in ``Delays``."""
        least, most = getattr(self.delays, kind)
        return self.entropy.uniform(least, most)

    def plan(self, seconds: float, kind: str, resource_id: str, serial: int = 0) -> float:
        """Let something happen later; returns when."""
        self._numbers += 1
        event = Event(self.now + seconds, self._numbers, kind, resource_id, serial)
        heapq.heappush(self.agenda, event)
        return event.due

    def next_due(self, now: float) -> Event | None:
        """Take the next event that is due."""
        if self.agenda and self.agenda[0].due <= now:
            return heapq.heappop(self.agenda)
        return None

    def remember(self) -> None:
        """Keep the present tables as a view that is about to be superseded, if anybody may ask for it."""
        if self.version != self._seen and self.faults.any("stale"):
            self.views.append((self.now, self.tables.copy()))
            self._seen = self.version

    def view(self) -> Tables:
        """What a describe sees: the present, or by a fault a recent past."""
        if self.views and (fault := self.draw("stale")) is not None:
            recent = [
                view for since, view in list(self.views)[-fault.depth :] if self.now - since <= fault.seconds
            ]
            if recent:
                return self.faults.entropy.choice(recent)
        return self.tables

    # -- chance and consequence ----------------------------------------------------------------------

    def draw(self, kind: str, what: str = "") -> Fault | None:
        """The fault that acts on this call, if any."""
        return self.faults.draw(kind, self.caller.operation, self.caller.name, self.now, what)

    def emit(self, effect: Effect) -> None:
        """Tell whoever plays the machines."""
        if self.on_effect is not None:
            self.on_effect(effect)

    def next_content(self) -> int:
        """The number of another write."""
        self.content += 1
        return self.content

    def fork(self) -> Region:
        """An independent copy in the same state; nobody performs its effects."""
        copy = Region(self.name, account=self.account, seed=0, delays=self.delays, on_effect=None)
        copy.tables = self.tables.copy()
        nets = self.networks
        copy.networks = Networks(list(nets.zones), dict(nets.vpcs), dict(nets.subnets), dict(nets.groups))
        copy.tokens, copy.ghosts = dict(self.tokens), dict(self.ghosts)
        copy.volume_tokens, copy.held = dict(self.volume_tokens), set(self.held)
        copy.profiles = None if self.profiles is None else set(self.profiles)
        copy.vcpu_limit = self.vcpu_limit
        copy.entropy.setstate(self.entropy.getstate())
        copy.faults = self.faults.fork()
        copy.content, copy.version = self.content, self.version
        copy.views = deque(self.views, _VIEWS_KEPT)
        copy.agenda = list(self.agenda)
        copy._numbers, copy._seen = self._numbers, self._seen
        return copy


def each(find: Callable[[str], T], ids: Iterable[str]) -> list[T]:
    """Look several ids up, each once."""
    return [find(one) for one in dict.fromkeys(ids)]

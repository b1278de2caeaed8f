"""A strict EC2: instances with pending states, as far as boxes that exist already need one. Pure.

Time comes from a clock that may be virtual; nothing happens between calls, states are worked out when
somebody looks. Rules and error codes: the EC2 API reference.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from devboxd.simulator.clock import Clock
from devboxd.simulator.options import Options

_ID: Final = re.compile(r"i-([0-9a-f]{8}|[0-9a-f]{17})")
_TERMINATED_VISIBLE: Final = 3600.0  # seconds
_RESERVED_TAG: Final = "aws:"


class State(Enum):
    """Instance states with their codes."""

    PENDING = (0, "pending")
    RUNNING = (16, "running")
    SHUTTING_DOWN = (32, "shutting-down")
    TERMINATED = (48, "terminated")
    STOPPING = (64, "stopping")
    STOPPED = (80, "stopped")

    @property
    def code(self) -> int:
        """The number in ``InstanceState``."""
        return self.value[0]

    @property
    def label(self) -> str:
        """The name in ``InstanceState``."""
        return self.value[1]


class Ec2Error(Exception):
    """A refused call; ``code`` is EC2's error code."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


@dataclass(slots=True)
class Instance:
    """One box as EC2 knows it. Times are Unix seconds."""

    id: str
    type: str
    zone: str
    private_address: str
    launched: float
    image: str = "ami-0123456789abcdef0"
    tags: dict[str, str] = field(default_factory=dict)
    state: State = State.RUNNING
    reason: str = ""
    reason_code: str = ""
    agent_from: float = float("-inf")  # the agent is connected from then on, if the instance runs
    flap: tuple[float, float] | None = None  # and away once more in between
    protected: bool = False  # DisableApiTermination
    gone: float | None = None  # when it was terminated
    _becomes: tuple[float, State] | None = None

    def settle(self, now: float) -> None:
        """Take the state change that has become due."""
        if self._becomes is not None and now >= self._becomes[0]:
            self.state, self._becomes = self._becomes[1], None

    def turn(self, state: State, then: State, at: float) -> None:
        """Enter a passing state, and another one later."""
        self.state, self._becomes = state, (at, then)

    def is_connected(self, now: float) -> bool:
        """Whether Session Manager can reach the agent."""
        self.settle(now)
        flapping = self.flap is not None and self.flap[0] <= now < self.flap[1]
        return self.state is State.RUNNING and now >= self.agent_from and not flapping


@dataclass(frozen=True, slots=True)
class Change:
    """The answer of a state-changing call, per instance."""

    id: str
    previous: State
    current: State
    ends_all: bool = False  # everything that ran on it is gone


@dataclass(frozen=True, slots=True)
class Page:
    """Some instances, and where to go on."""

    instances: list[Instance]
    next_token: str | None = None


Filters = Sequence[tuple[str, Sequence[str]]]


class Ec2:
    """The instances of one region."""

    def __init__(
        self, clock: Clock, options: Options, entropy: random.Random, region: str = "us-east-1"
    ) -> None:
        self.region = region
        self._clock = clock
        self._options = options
        self._random = entropy
        self._instances: dict[str, Instance] = {}
        self._tokens: dict[str, tuple[Filters, int]] = {}

    def add(self, name: str, *, type_: str = "m7g.large", state: State = State.RUNNING) -> Instance:
        """Put an instance in place, as if launched an hour ago."""
        number = len(self._instances)
        instance = Instance(
            id=f"i-{self._random.getrandbits(68):017x}",
            type=type_,
            zone=f"{self.region}{'abc'[number % 3]}",
            private_address=f"10.0.{number // 200}.{number % 200 + 10}",
            launched=self._clock.wall() - 3600,
            tags={"Name": name},
            state=state,
        )
        self._instances[instance.id] = instance
        return instance

    def get(self, instance_id: str) -> Instance:
        """One instance, settled.

        Raises:
            Ec2Error: malformed or unknown id.
        """
        return self._select([instance_id])[0]

    def all(self) -> list[Instance]:
        """Every instance that is still visible, settled; terminated ones fade after an hour."""
        now = self._clock.wall()
        for instance in self._instances.values():
            instance.settle(now)
        return [i for i in self._instances.values() if i.gone is None or now < i.gone + _TERMINATED_VISIBLE]

    def is_connected(self, instance_id: str) -> bool:
        """Whether the agent of an instance is connected; False for an unknown one."""
        instance = self._instances.get(instance_id)
        return instance is not None and instance.is_connected(self._clock.wall())

    def agent_away(self, instance_id: str, seconds: float) -> None:
        """The agent's control channel is down for a while; the instance runs on."""
        self._instances[instance_id].agent_from = self._clock.wall() + seconds

    def describe(
        self,
        ids: Sequence[str] = (),
        filters: Filters = (),
        *,
        max_results: int | None = None,
        next_token: str | None = None,
    ) -> Page:
        """DescribeInstances, paged by instance.

        Raises:
            Ec2Error: bad id, filter, page size or token.
        """
        if ids and max_results is not None:
            raise Ec2Error(
                "InvalidParameterCombination",
                "The parameter instancesSet cannot be used with the parameter maxResults",
            )
        if max_results is not None and not 5 <= max_results <= 1000:
            raise Ec2Error(
                "InvalidParameterValue",
                f"Value ( {max_results} ) for parameter maxResults is invalid. Expecting 5..1000.",
            )
        start = 0
        if next_token is not None:
            if next_token not in self._tokens:
                raise Ec2Error("InvalidNextToken", "The token is invalid.")
            filters, start = self._tokens[next_token]
        selected = self._select(ids) if ids else self.all()
        found = [instance for instance in selected if all(_matches(instance, *f) for f in filters)]
        if max_results is None:
            return Page(found[start:])
        page = found[start : start + max_results]
        token = None
        if start + max_results < len(found):
            token = f"{self._random.getrandbits(128):032x}"
            self._tokens[token] = (filters, start + max_results)
        return Page(page, token)

    def start(self, ids: Sequence[str]) -> list[Change]:
        """StartInstances; a running one is left alone.

        Raises:
            Ec2Error: IncorrectInstanceState unless all are stopped, running or pending.
        """
        allowed = (State.STOPPED, State.RUNNING, State.PENDING)
        changes = []
        for instance in self._all_in(ids, allowed, "started"):
            previous = instance.state
            if previous is State.STOPPED:
                now = self._clock.wall()
                ready = now + self._options.pending
                instance.launched, instance.reason, instance.reason_code = now, "", ""
                instance.turn(State.PENDING, State.RUNNING, ready)
                self._boot(instance, ready + self._options.agent_boot)
            changes.append(Change(instance.id, previous, instance.state))
        return changes

    def stop(self, ids: Sequence[str]) -> list[Change]:
        """StopInstances; a stopped one is left alone.

        Raises:
            Ec2Error: IncorrectInstanceState when one is pending, shutting down or terminated.
        """
        allowed = (State.RUNNING, State.STOPPING, State.STOPPED)
        changes = []
        for instance in self._all_in(ids, allowed, "stopped"):
            previous = instance.state
            if previous is State.RUNNING:
                self._leave(instance, State.STOPPING, State.STOPPED)
            changes.append(Change(instance.id, previous, instance.state, previous is State.RUNNING))
        return changes

    def terminate(self, ids: Sequence[str]) -> list[Change]:
        """TerminateInstances; idempotent.

        Raises:
            Ec2Error: OperationNotPermitted when one is protected: then none is terminated.
        """
        selected = self._select(ids)
        for instance in selected:
            if instance.protected:
                raise Ec2Error(
                    "OperationNotPermitted",
                    f"The instance '{instance.id}' may not be terminated. "
                    "Modify its 'disableApiTermination' instance attribute and try again.",
                )
        changes = []
        for instance in selected:
            previous = instance.state
            if previous not in (State.SHUTTING_DOWN, State.TERMINATED):
                self._leave(instance, State.SHUTTING_DOWN, State.TERMINATED)
            changes.append(Change(instance.id, previous, instance.state, previous is not instance.state))
        return changes

    def reboot(self, ids: Sequence[str]) -> list[Change]:
        """RebootInstances: still running, but the agent is away.

        Raises:
            Ec2Error: IncorrectInstanceState unless all are running.
        """
        selected = self._all_in(ids, (State.RUNNING,), "rebooted")
        for instance in selected:
            self._boot(instance, self._clock.wall() + self._options.rebooting)
        return [Change(instance.id, State.RUNNING, State.RUNNING, ends_all=True) for instance in selected]

    def tag(self, ids: Sequence[str], tags: dict[str, str]) -> None:
        """CreateTags.

        Raises:
            Ec2Error: unknown instance or a reserved key.
        """
        if any(key.lower().startswith(_RESERVED_TAG) for key in tags):
            raise Ec2Error(
                "InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use"
            )
        for instance in self._select(ids):
            instance.tags.update(tags)

    def untag(self, ids: Sequence[str], keys: Iterable[str]) -> None:
        """DeleteTags; keys that are not there are fine.

        Raises:
            Ec2Error: unknown instance.
        """
        keys = list(keys)
        for instance in self._select(ids):
            for key in keys:
                instance.tags.pop(key, None)

    def _boot(self, instance: Instance, connected: float) -> None:
        flap = self._options.agent_flap
        instance.agent_from = connected
        # Seen after every start: TargetNotConnected again shortly after the first success.
        instance.flap = (connected + flap, connected + 2 * flap) if flap else None

    def _leave(self, instance: Instance, passing: State, final: State) -> None:
        now = self._clock.wall()
        if final is State.TERMINATED:
            instance.gone = now
        instance.reason_code = "Client.UserInitiatedShutdown"
        instance.reason = "Client.UserInitiatedShutdown: User initiated shutdown"
        # A stopped instance has nothing to shut down.
        if instance.state is State.STOPPED:
            instance.state = final
        else:
            instance.turn(passing, final, now + self._options.stopping)

    def _select(self, ids: Sequence[str]) -> list[Instance]:
        if not ids:
            raise Ec2Error("MissingParameter", "The request must contain the parameter InstanceId")
        for instance_id in ids:
            if not _ID.fullmatch(instance_id):
                raise Ec2Error("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"')
        missing = [instance_id for instance_id in ids if instance_id not in self._instances]
        if missing:
            subject, verb = ("IDs", "do") if len(missing) > 1 else ("ID", "does")
            text = f"The instance {subject} '{', '.join(missing)}' {verb} not exist"
            raise Ec2Error("InvalidInstanceID.NotFound", text)
        now = self._clock.wall()
        selected = [self._instances[instance_id] for instance_id in dict.fromkeys(ids)]
        for instance in selected:
            instance.settle(now)
        return selected

    def _all_in(self, ids: Sequence[str], allowed: tuple[State, ...], verb: str) -> list[Instance]:
        selected = self._select(ids)
        for instance in selected:
            if instance.state not in allowed:
                raise Ec2Error(
                    "IncorrectInstanceState",
                    f"The instance '{instance.id}' is not in a state from which it can be {verb}.",
                )
        return selected


def _matches(instance: Instance, name: str, wanted: Sequence[str]) -> bool:
    """Whether one filter lets an instance through; values may hold ``*`` and ``?``.

    Raises:
        Ec2Error: a filter that EC2 does not know (or that is not imitated).
    """
    if name.startswith("tag:"):
        actual = [instance.tags[name[4:]]] if name[4:] in instance.tags else []
    elif name == "tag-key":
        actual = list(instance.tags)
    else:
        known = {
            "instance-id": instance.id,
            "instance-state-name": instance.state.label,
            "instance-state-code": str(instance.state.code),
            "instance-type": instance.type,
            "availability-zone": instance.zone,
            "private-ip-address": instance.private_address,
            "image-id": instance.image,
        }
        if name not in known:
            raise Ec2Error("InvalidParameterValue", f"The filter '{name}' is invalid")
        actual = [known[name]]
    return any(fnmatchcase(value, pattern) for value in actual for pattern in wanted)

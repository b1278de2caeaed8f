"""Random histories: each seed mixes its own faults, its own user and its own hand in the console.

python -m tests.lifecycle.swarm --seed 17          replays one, with its whole trace
python -m tests.lifecycle.swarm --first 0 --count 20000 --jobs 2
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from msgspec.structs import replace

from devboxd.host.store import SqliteFile
from devboxd.model.project import Phase, Project, Want, read_token
from devboxd.simulator.ec2.faults import Fault
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.oracle import Oracle
from tests.lifecycle.test_crashes import DEADLY, watched
from tests.lifecycle.world import Daemon, Fate, Request, World, small_spec

UID: Final = "p1"
CODES: Final = (
    "InternalError",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "InvalidInstanceID.NotFound",
    "InvalidVolume.NotFound",
    "InvalidSnapshot.NotFound",
    "InvalidAMIID.NotFound",
    "IncorrectInstanceState",
    "IncorrectState",
    "VolumeInUse",
    "InvalidSnapshot.InUse",
    "OperationNotPermitted",
    "ConcurrentSnapshotLimitExceeded",
    "SnapshotCreationPerVolumeRateExceeded",
    "InsufficientInstanceCapacity",
    "ExpiredToken",
    "RequestExpired",
    "SomethingNobodyHasSeen",
)
CHAOS: Final = 3 * 3600.0  # seconds of virtual time with faults
CALM: Final = 4 * 3600.0  # at most, after them


@dataclass(slots=True)
class Swarm:
    """One history."""

    seed: int
    engine: Any = field(default_factory=MemoryStore)
    world: World = field(init=False)
    dice: random.Random = field(init=False)
    done: Counter[str] = field(default_factory=Counter)
    rebases: random.Random = field(init=False)  # of its own: other histories stay as they are
    has_rebases: bool = False
    is_calm: bool = False

    def __post_init__(self) -> None:
        self.dice = random.Random(f"swarm/{self.seed}")
        self.rebases = random.Random(f"rebases/{self.seed}")
        self.has_rebases = self.rebases.random() < 0.4
        self.world = World(self.engine, seed=self.seed)

    def run(self) -> Counter[str]:
        """Chaos, then calm, then everything must be well. Returns what happened how often."""
        world = self.world
        with watched(world, UID) as oracle:
            spot = self.dice.random() < 0.2
            world.create(UID, spec=replace(small_spec(), spot=spot, until_up=self.dice.random() < 0.2))
            for _ in range(self.dice.choice([1, 1, 2])):
                world.daemon(UID)
            self._mix()
            self._later(self._user, 300.0)
            self._later(self._worker, 60.0)
            self._later(self._console, self.dice.choice([600.0, 3000.0, 1e9]))
            world.want(UID, Want.UP)
            world.run_for(CHAOS)
            self._calm()
            self._ends(oracle)
            self._count(oracle)
        return self.done

    # The mix

    def _mix(self) -> None:
        """Which faults there are in this history, and how many of each."""
        world, dice = self.world, self.dice
        shares = {fate: dice.choice([0.0, 0.0, 0.02, 0.08]) for fate in DEADLY}
        world.restarts = lambda daemon: dice.choice([2.0, 60.0, 1800.0])
        world.naps = dice.choice([0.0, 0.0, 0.01, 0.05])
        world.unreachable = dice.choice([0.0, 0.5, 1.0])

        def fate(daemon: Daemon, request: Request) -> Fate:
            if self.is_calm:
                return Fate.ARRIVES
            return next((one for one, share in shares.items() if dice.random() < share), Fate.ARRIVES)

        world.fate = fate
        add = world.model.faults.add
        if dice.random() < 0.5:
            add(Fault("stale", share=dice.choice([0.1, 0.4]), depth=dice.choice([2, 8]), seconds=60.0))
        if dice.random() < 0.4:
            for code in dice.sample(CODES, 3):
                add(Fault("refuse", code=code, share=dice.choice([0.01, 0.05])))
        if dice.random() < 0.2:
            add(Fault("refuse-after", code="InternalError", share=0.03))
        if dice.random() < 0.3:
            zone = dice.choice(["*a/*", "*b/*", "*/*"])
            add(Fault("no-capacity", what=zone, share=dice.choice([0.3, 1.0]), until=world.now + CHAOS / 2))
        for kind in ("launch-dies", "start-dies", "stop-hangs", "image-fails", "snapshot-fails"):
            if dice.random() < 0.2:
                code = "Server.InsufficientInstanceCapacity" if "dies" in kind else "InternalError"
                add(Fault(kind, code=code, share=0.15))
        for kind in ("mapping-gap", "in-use-lingers", "not-visible"):
            if dice.random() < 0.3:
                add(Fault(kind, share=0.5, seconds=dice.choice([5.0, 40.0])))

    def _later(self, act: Callable[[], None], mean: float) -> None:
        """Do something again and again, at random times, until it is calm."""

        def again() -> None:
            if not self.is_calm:
                act()
                self._later(act, mean)

        self.world.at(self.dice.expovariate(1 / mean), again)

    # Who does what

    def _user(self) -> None:
        world, dice = self.world, self.dice
        project = world.project(UID)
        if project.phase is Phase.BROKEN:
            world.resume(UID)
            return
        if self.has_rebases and self.rebases.random() < 0.3:
            self._rebase(project)
            return
        wish = dice.choice([Want.UP, Want.UP, Want.WARM, Want.COLD, "snapshot"])
        if wish == "snapshot":
            if project.phase is Phase.RUNNING and project.snap is None:
                number = project.saves + 1
                world.ask(UID, "snapshot", saves=number, snap=number)
            return
        world.want(UID, Want(wish))

    def _rebase(self, project: Project) -> None:
        """Onto one of two images, or back to where it was."""
        rebase = project.rebase
        if rebase is not None and rebase.source is not None and self.rebases.random() < 0.2:
            source = self.world.ledger(UID)
            assert source is not None
            if any(one.number == rebase.source and one.is_ok for one in source.generations):
                self.world.ask(UID, "back", want=Want.UP, rollback=rebase.source)
                return
        self.world.rebase(UID, line=self.rebases.choice([1, 2]))
        self.done["rebases"] += 1

    def _worker(self) -> None:
        """Whatever runs writes: all of it at once or one volume, synced or not."""
        world, dice = self.world, self.dice
        for instance in list(world.model.tables.instances.values()):
            if instance.state.value == "running" and instance.boots and read_token(instance.client_token):
                for device in dice.choice([("/dev/sda1",), ("/dev/sdf",), ("/dev/sda1", "/dev/sdf")]):
                    world.model.work(instance.id, now=world.now, device=device, is_synced=dice.random() < 0.5)

    def _console(self) -> None:
        world, dice = self.world, self.dice
        ours = [
            one
            for one in world.model.tables.instances.values()
            if read_token(one.client_token) and one.state.value != "terminated"
        ]
        if not ours:
            return
        box = dice.choice(ours)
        acts = ["StopInstances", "StartInstances", "RebootInstances", "terminate", "off", "host"]
        act = dice.choice([*acts, "interrupt", "restore"] if box.spot is not None else acts)
        self.done[f"console {act}"] += 1
        if act == "terminate":
            world.console(
                "ModifyInstanceAttribute", InstanceId=box.id, DisableApiTermination={"Value": False}
            )
            world.console("TerminateInstances", InstanceIds=[box.id])
        elif act == "restore":
            if box.is_interrupted and box.spot_is_persistent and box.state.value == "stopped":
                world.restore_spot(box.id)
        elif act in ("off", "host", "interrupt"):
            if box.state.value == "running":
                world.note(f"box {box.id}: {act}")
                happens = {"off": world.model.power_off, "host": world.model.lose_host}
                happens.get(act, world.model.interrupt_spot)(box.id, now=world.now)
        else:
            world.console(act, InstanceIds=[box.id])

    # The end

    def _calm(self) -> None:
        """Faults stop, one daemon stays, and the last wish is to be down."""
        world = self.world
        world.note("-- calm --")
        self.is_calm = True
        world.naps = 0.0
        world.model.faults.clear()
        world.run_for(700.0)  # what is on its way late arrives
        for daemon in world.daemons[1:]:
            daemon.die()
            world.restarts = lambda daemon: None
        first = world.daemons[0]
        # A request that a nap held up goes out at its end, also that of a daemon that is gone by then.
        world.run_for(max(0.0, *(one.asleep - world.now for one in world.daemons)) + 1.0)
        if first.is_dead:
            first.start()

    def _ends(self, oracle: Oracle) -> None:
        world = self.world
        began = world.now
        while not self._is_down(oracle):
            project = world.project(UID)
            if project.phase is Phase.BROKEN:
                self.done["broken"] += 1
                if "shut it down from inside" in project.reason and project.instance:
                    world.note(f"user shuts down {project.instance}")
                    world.model.power_off(project.instance, now=world.now)
                world.resume(UID)
            elif project.want is not Want.COLD:
                world.want(UID, Want.COLD)
            world.run_for(60.0)
            if world.now - began > CALM:
                raise AssertionError(f"V1: still {project.phase} ({project.reason}) after {CALM:.0f} s")
        world.run_for(600.0)
        oracle.ends_well(UID)

    def _is_down(self, oracle: Oracle) -> bool:
        return oracle.settled(UID) and self.world.project(UID).phase in (Phase.READY, Phase.ABSENT)

    def _count(self, oracle: Oracle) -> None:
        ledger = self.world.ledger(UID)
        assert ledger is not None
        self.done["generations"] += ledger.project.head
        self.done["rescues"] += sum(one.quality == "rescue" for one in ledger.generations)
        self.done["changes"] += self.world.mutations


def run(seed: int, engine: str = "memory") -> Counter[str]:
    """One history. Raises AssertionError with the end of its trace."""
    if engine == "memory":
        return Swarm(seed).run()
    with tempfile.TemporaryDirectory() as folder:
        file = SqliteFile(Path(folder) / "projects.db")
        try:
            return Swarm(seed, Direct(file)).run()
        finally:
            file.close()


@dataclass(slots=True)
class Direct:
    """A SQLite file, asked at once."""

    file: SqliteFile

    def read_now(self, owner: str, ranges: Any) -> Any:
        return self.file.read(owner, ranges)

    def commit_now(self, owner: str, changes: Any) -> None:
        self.file.commit(owner, changes)


def attempt(seed: int) -> tuple[int, str, Counter[str]]:
    """One history: its seed, why it failed, and what happened in it."""
    try:
        return seed, "", run(seed)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding with a seed
        return seed, f"{type(error).__name__}: {error}", Counter()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, help="replay this one and print its trace")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()
    if asked.seed is not None:
        swarm = Swarm(asked.seed)
        try:
            swarm.run()
        finally:
            print("\n".join(swarm.world.trace))
        return 0
    began = time.monotonic()
    total: Counter[str] = Counter()
    failed = []
    seeds = range(asked.first, asked.first + asked.count)
    with ProcessPoolExecutor(asked.jobs) as pool:
        for seed, error, counts in pool.map(attempt, seeds, chunksize=5):
            total += counts
            if error:
                failed.append(seed)
                print(f"seed {seed}: {error.splitlines()[0]}", flush=True)
    print(f"{asked.count} histories in {time.monotonic() - began:.0f} s, {len(failed)} failed {failed[:20]}")
    print(dict(total))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

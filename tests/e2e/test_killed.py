"""The daemon is killed, by signal 9, at each call that changes something at AWS: what was written is there afterwards.

Real processes: the installed daemon and command line, the simulator's EC2 over HTTP, real files on the boxes' disks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.session import Session

from devboxd.model import tags
from tests.e2e.between import Between
from tests.e2e.kit import World, until

LONG = 180.0


class Watched(World):
    """A world whose daemon reaches AWS through something that kills it."""

    between: Between

    def start_simulator(self) -> None:
        """Start AWS, and what stands before it."""
        super().start_simulator()
        self.between = Between(self.url, self.daemon_pid)
        self.between.__enter__()
        self.env["AWS_ENDPOINT_URL"] = self.between.url

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        if hasattr(self, "between"):
            self.between.__exit__()


@pytest.fixture
def world() -> Iterator[Watched]:
    """A world of its own: its EC2 begins empty."""
    with Watched() as made:
        yield made


class Life:
    """A project, and what is on its disk."""

    def __init__(self, world: Watched) -> None:
        self.world = world
        self.written = b""
        world.ok("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox", timeout=LONG)
        self.write()

    def write(self) -> None:
        """More work."""
        self.written += f"run {len(self.written)}\n".encode() * 500
        done = self.world.run(
            "exec", "work", "sh", "-c", "cat > work.txt && sync", stdin=self.written, timeout=LONG
        )
        assert done.returncode == 0, done.stderr

    def is_there(self) -> bool:
        """By hash, as a command on the box sees it."""
        told = self.world.ok("exec", "work", "sha256sum", "work.txt", timeout=LONG).split()[0]
        return told == hashlib.sha256(self.written).hexdigest()

    def goes(self, verb: str, number: int, *, after: bool) -> str:
        """Down or up, and the daemon dies at this call; the command finds the next one. Says at which call it was."""
        self.world.between.arm(number, after=after)
        self.world.ensure_daemon()
        done = self.world.run(verb, "work", timeout=LONG)
        at = self.world.between.killed_at
        self.world.between.arm(None, after=False)
        assert done.returncode == 0, (
            f"{verb}, killed at {at}: {done.stderr.decode()}\n{self.world.log[-3000:]}"
        )
        phase = {"terminate": "ready", "up": "running"}[verb]
        assert self.world.json("projects", "work")["phase"] == phase
        return at

    def one_box(self) -> None:
        """Never two, and nothing was launched twice."""
        boxes = [one for one in self.world._far("state")["boxes"] if one["name"] == "work"]
        alive = [one for one in boxes if one["state"] in ("pending", "running", "stopping", "stopped")]
        assert len(alive) == 1, boxes


def test_killed_in_the_middle_of_a_save_and_of_a_launch(world: Watched) -> None:
    """A sample: after CreateImage, and after RunInstances, whose answers nobody reads."""
    life = Life(world)
    assert life.goes("terminate", 2, after=True) == "CreateImage"
    assert life.goes("up", 1, after=True) == "RunInstances"
    assert life.is_there()
    life.one_box()


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_call(world: Watched, after: bool) -> None:
    """Each call of terminate and of up in turn, before it is sent on and after it took effect, until none is left."""
    life = Life(world)
    met = []
    for number in range(1, 20):
        down = life.goes("terminate", number, after=after)
        up = life.goes("up", number, after=after)
        assert life.is_there(), f"killed at {down} and {up}"
        life.one_box()
        met += [down, up]
        if not down and not up:
            break
        life.write()
    else:
        raise AssertionError("there is no end to it")
    assert {
        "StopInstances",
        "CreateImage",
        "ModifyInstanceAttribute",
        "TerminateInstances",
        "RunInstances",
    } <= set(met)
    print(f"killed {'after' if after else 'before'}: {', '.join(filter(None, met))}")


def left(world: Watched) -> list[str]:
    """What EC2 still has of ours, by its own account: images, snapshots, volumes and boxes."""
    ec2: Any = Session().create_client(
        "ec2", "us-east-1", endpoint_url=world.url, aws_access_key_id="a", aws_secret_access_key="b"
    )
    ours = [{"Name": "tag-key", "Values": [tags.UID]}]
    found = [one["ImageId"] for one in ec2.describe_images(Filters=ours)["Images"]]
    found += [one["SnapshotId"] for one in ec2.describe_snapshots(Filters=ours)["Snapshots"]]
    found += [one["VolumeId"] for one in ec2.describe_volumes(Filters=ours)["Volumes"]]
    for one in ec2.describe_instances(Filters=ours)["Reservations"]:
        found += [box["InstanceId"] for box in one["Instances"] if box["State"]["Name"] != "terminated"]
    return found


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_call_of_a_sweep(world: Watched, after: bool) -> None:
    """A project is deleted with all its generations; whoever dies meanwhile, nothing stays that costs."""
    met = []
    for number in range(1, 20):
        life = Life(world)
        life.goes("terminate", 0, after=after)
        assert left(world), "or this test sees nothing"
        world.between.arm(number, after=after)
        done = world.run("delete", "work", "--yes", "--wait", timeout=LONG)
        at = world.between.killed_at
        world.between.arm(None, after=False)
        assert done.returncode == 0, f"killed at {at}: {done.stderr.decode()}\n{world.log[-3000:]}"
        world.ensure_daemon()
        until(lambda: not left(world), f"all is gone, killed at {at}: {left(world)}", LONG)
        assert world.json("projects")["projects"] == []
        if not at:
            break
        met.append(at)
    else:
        raise AssertionError("there is no end to it")
    assert {"DeregisterImage", "DeleteSnapshot"} <= set(met)
    print(f"killed {'after' if after else 'before'}: {', '.join(met)}")

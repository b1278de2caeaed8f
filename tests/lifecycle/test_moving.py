"""Projects that lose their rows, change their store, or come out of an export."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest

from devboxd.control.lifecycle.order import LaunchWish
from devboxd.errors import AlreadyExists, BadRequest, Unreachable
from devboxd.model.box import Account
from devboxd.model.config import ProjectSettings
from devboxd.model.ledger import Change
from devboxd.model.project import Phase, Want
from devboxd.model.states import StoreEngine
from devboxd.model.wish import ProjectNotFound
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import OWNER, Bench, bench, start, stop, with_daemon
from tests.lifecycle.memory import MemoryStore

pytestmark = pytest.mark.looptime


async def without_its_store(one: Bench) -> Bench:
    """Another machine, with nothing written down, over the same AWS."""
    await stop(one)
    return await start(bench(MemoryStore(), model=one.model, me="desktop"))


@pytest.mark.parametrize("phase", [Phase.READY, Phase.WARM, Phase.RUNNING])
async def test_rows_are_made_anew_from_tags(phase: Phase) -> None:
    """The laptop is stolen: every project is there again, with every generation, and goes on."""
    one = await start(bench())
    row = await one.launched()
    one.work(row)
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    written = one.work(row)
    if phase is Phase.WARM:
        await one.projects.stop("api")
    if phase is Phase.READY:
        await one.projects.terminate("api")
    before = await one.until("api", phase)
    if phase is Phase.READY:
        await asyncio.sleep(600)
    other = await without_its_store(one)
    ((name, left),) = await other.moves.unknown(Account(None, "us-east-1"))
    assert name == "api"
    assert {"image", "snapshot"} <= {each.kind for each in left}
    assert all(each.goes is None and "devboxctl rebuild" in each.why for each in left)
    assert all(each.usd_month for each in left if each.kind == "snapshot")
    (made,) = await other.moves.rebuild(Account())
    assert await other.moves.unknown(Account(None, "us-east-1")) == []
    assert (made.name, made.uid, made.phase) == ("api", row.uid, phase)
    assert made.saves > before.project.saves, "a number that was handed out must not be handed out again"
    known = await other.projects.get("api")
    assert [one.image for one in known.generations] == [one.image for one in before.generations]
    assert [one.stamp for one in known.generations] == [one.stamp for one in before.generations]
    assert await other.moves.rebuild(Account()) == [], "twice is once"
    if phase is Phase.READY:
        with pytest.raises(BadRequest, match="instance profile"):
            await other.projects.up("api")
        other.settings.append(ProjectSettings(type="t4g.small", instance_profile="box"))
    await other.projects.up("api")
    again = (await other.until("api", Phase.RUNNING)).project
    assert other.content(again.instance)["/dev/sda1"] >= written
    await other.projects.terminate("api")
    await other.until("api", Phase.READY)
    await asyncio.sleep(900)
    tables = other.model.tables
    assert not [v for v in tables.volumes.values() if v.state != "deleting"]
    await stop(other)


async def test_volumes_without_an_instance_are_rescued_when_rows_are_made_anew() -> None:
    """Somebody terminated the box while there was no store at all."""
    one = await start(bench())
    row = await one.launched()
    one.work(row)
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    written = one.work(row)
    await stop(one)
    for name, more in (
        ("ModifyInstanceAttribute", {"InstanceId": row.instance, "DisableApiTermination": {"Value": False}}),
        ("TerminateInstances", {"InstanceIds": [row.instance]}),
    ):
        one.model.call(name, more, now=LoopClock().wall(), caller="console")
    await asyncio.sleep(7200)
    other = await without_its_store(one)
    (made,) = await other.moves.rebuild(Account())
    assert made.phase is Phase.RESCUE
    known = await other.until("api", Phase.READY)
    head = known.generations[-1]
    assert other.model.tables.snapshots[head.disks[0].snapshot or ""].content >= written
    await stop(other)


async def test_several_living_instances_are_left_to_a_person() -> None:
    """Tags do not say which one was the project's."""
    one = await start(bench())
    row = await one.launched()
    await stop(one)
    record = one.model.tables.instances[row.instance or ""]
    other_id = "i-0123456789abcdef0"
    one.model.region.put(
        dataclasses.replace(
            record,
            id=other_id,
            client_token=f"{row.uid}-1-1",
            tags={**record.tags, "devbox:launch": f"{row.uid}-1-1"},
        )
    )
    other = await without_its_store(one)
    (made,) = await other.moves.rebuild(Account())
    assert made.phase is Phase.BROKEN
    assert other_id in made.reason
    await asyncio.sleep(600)
    assert one.model.tables.instances[other_id].state.value == "running"
    await stop(other)


# Export


@with_daemon
async def test_an_export_can_be_restored_and_goes_on_with_numbers_of_its_own(one: Bench) -> None:
    """Also one that is older than what happened since."""
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    exported = msgspec.json.decode(msgspec.json.encode(await one.moves.export("api")))
    with pytest.raises(AlreadyExists):
        await one.moves.restore(exported)
    await one.projects.up("api")
    await one.until("api", Phase.RUNNING)
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    other = await without_its_store(one)
    made = await other.moves.restore(exported)
    assert (made.name, made.head) == ("api", 1)
    await other.projects.up("api")
    again = (await other.until("api", Phase.RUNNING)).project
    assert again.run > 2
    await other.projects.terminate("api")
    known = await other.until("api", Phase.READY)
    assert known.project.head == 2
    await stop(other)


@pytest.mark.parametrize("wrong", [{}, {"format": 2}, {"format": 1}, {"format": 1, "project": {"uid": 7}}])
@with_daemon
async def test_what_is_no_export_is_refused(one: Bench, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        await one.moves.restore(wrong)


# From another tool


def item(**values: str) -> dict[str, dict[str, str]]:
    """As DynamoDB has it."""
    return {key: {"S": value} for key, value in values.items()}


@with_daemon
async def test_projects_of_another_tool_are_taken_over_as_they_stand(one: Bench) -> None:
    """Saved ones with their image, running ones with their instance; nothing of it is changed or deleted there."""
    donor = await one.launched("donor")
    written = one.work(donor)
    await one.projects.stop("donor")
    known = await one.until("donor", Phase.WARM)
    theirs = known.generations[0].image
    base = one.model.tables.instances[donor.instance or ""].image
    launch = {"ImageId": base, "InstanceType": "t4g.small", "MinCount": 1, "MaxCount": 1}
    running = one.model.call("RunInstances", launch, now=LoopClock().wall())["Instances"][0]["InstanceId"]
    await asyncio.sleep(60)
    one.account.tables["devbox-main"] = [
        item(project="saved", Status="READY", AMI=theirs, LastInstanceType="t4g.small", Architecture="arm64"),
        item(project="runs", Status="RUNNING", InstanceId=running, LastInstanceType="t4g.small"),
        item(project="busy", Status="SNAPSHOTTING", AMI=theirs),
        item(project="donor", Status="READY", AMI=theirs, LastInstanceType="t4g.small"),
        item(project="no name!", Status="READY", AMI=theirs),
        item(
            project="lost",
            Status="READY",
            AMI="ami-00000000",
            LastInstanceType="t4g.small",
            Architecture="arm64",
        ),
        item(other="x"),
    ]
    done = await one.moves.take_over("devbox-main", Account(), LaunchWish(profile="box"))
    assert {name for name, why in done.items() if not why} == {"saved", "runs"}
    assert "SNAPSHOTTING" in done["busy"]
    assert done["donor"] == "there is a project of that name"
    assert "ami-00000000" in done["lost"]
    await one.projects.up("saved")
    row = (await one.until("saved", Phase.RUNNING)).project
    assert one.content(row.instance)["/dev/sda1"] >= written
    await one.until("runs", lambda now: not now.adopted)
    for name in ("saved", "runs"):
        await one.projects.terminate(name)
        await one.until(name, Phase.READY)
    await asyncio.sleep(900)
    assert one.model.tables.images[theirs].state == "available"
    again = await one.moves.take_over("devbox-main", Account(), LaunchWish(profile="box"))
    assert not any(why == "" for why in again.values()), "twice is once"


# From one store to another


class Fragile(MemoryStore):
    """A store that can not be reached at the n-th commit."""

    def __init__(self) -> None:
        super().__init__(is_shared=True)
        self.breaks_at = -1
        self.commits = 0

    async def commit(self, owner: str, changes: Any, op: str) -> None:
        assert len(op) <= 36, "ClientRequestToken (API: TransactWriteItems)"
        self.commits += 1
        if self.commits == self.breaks_at:
            raise Unreachable("no answer")
        await super().commit(owner, changes, op)


@pytest.mark.parametrize("breaks_at", [-1, 1, 2])
async def test_a_project_moves_to_a_shared_store_whatever_breaks_on_the_way(breaks_at: int) -> None:
    """It is never acted on from both; asked again, the move goes on."""
    shared = Fragile()
    shared.breaks_at = breaks_at
    one = await start(bench(other=shared, me="m" * 29))  # its operations are named as long as can be
    await one.launched()
    for _ in range(3):
        try:
            moved = await one.moves.move("api", StoreEngine.DYNAMODB)
            break
        except Unreachable:
            row = (await one.projects.get("api")).project
            assert row.moved == "dynamodb"
    assert (await one.moves.move("api", StoreEngine.DYNAMODB)).uid == moved.uid, "twice is once"
    assert [each.name for each in await one.moves.in_store(StoreEngine.DYNAMODB)] == ["api"]
    assert await one.moves.in_store(StoreEngine.SQLITE) == []
    with pytest.raises(ProjectNotFound):
        await one.projects.get("api")
    with pytest.raises(ProjectNotFound):
        await one.moves.move("nobody", StoreEngine.DYNAMODB)
    other = await start(bench(shared, model=one.model, me="desktop", used=StoreEngine.DYNAMODB))
    known = await other.projects.get("api")
    assert (known.project.phase, known.project.moved, known.project.want) == (Phase.RUNNING, "", Want.UP)
    assert [event.what for event in await other.projects.events("api")][:2] == ["create", "L1"]
    await other.projects.terminate("api")
    await other.until("api", Phase.READY)
    assert one.fleet.statuses() == []
    await stop(one)
    await stop(other)


async def test_a_name_that_is_taken_there_stops_the_move_before_anything_arrives() -> None:
    shared = MemoryStore(is_shared=True)
    one = await start(bench(other=shared))
    await one.launched()
    await shared.commit(OWNER, [Change("N#api", 0, {"uid": "somebody"})], "x")
    with pytest.raises(AlreadyExists):
        await one.moves.move("api", StoreEngine.DYNAMODB)
    assert [key for _, key in shared.items] == ["N#api"]
    assert (await one.projects.get("api")).project.moved == ""
    await stop(one)

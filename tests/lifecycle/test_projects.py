"""The verbs, as the API will call them: on virtual time, over the real calls and the EC2 model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from devboxd.api import views
from devboxd.control.lifecycle.fleet import Status
from devboxd.control.lifecycle.order import LaunchWish
from devboxd.errors import AlreadyExists, BadRequest, LoginNeeded, Unreachable, WrongState
from devboxd.model import wish
from devboxd.model.ledger import Change, Item, Range, StoreFailed, name_key
from devboxd.model.project import Cycle, Phase, Policy, Project, Quality, Want
from devboxd.model.seen import Seen
from devboxd.model.step import Step
from devboxd.model.unsaved import NotSaved
from devboxd.model.wish import GenerationNotFound, ProjectNotFound
from devboxd.simulator.ec2.faults import Fault
from tests.control.fakes import LoopClock
from tests.lifecycle.kit import Bench, Ran, bench, start, stop, with_daemon
from tests.lifecycle.memory import MemoryStore

pytestmark = pytest.mark.looptime


# Launch


@with_daemon
async def test_launch_needs_nothing_but_a_name_and_a_profile(one: Bench) -> None:
    """Base image, type, disk and zone are chosen; the box is tagged, protected, encrypted and IMDSv2 only."""
    await one.projects.launch("api", LaunchWish(profile="box"))
    row = (await one.until("api", Phase.RUNNING)).project
    (instance,) = one.model.tables.instances.values()
    assert instance.id == row.instance
    assert (instance.type, instance.is_protected, instance.shutdown_behavior) == ("t4g.medium", True, "stop")
    assert instance.metadata["HttpTokens"] == "required"
    assert instance.tags["Name"] == "api"
    (volume,) = one.model.tables.volumes_of(instance.id)
    assert (volume.size, volume.encrypted, volume.tags["devbox:project"]) == (40, True, "api")
    assert volume.attachment is not None
    assert not volume.attachment.delete_on_termination


@with_daemon
async def test_launch_without_a_profile_says_what_is_missing(one: Bench) -> None:
    """A box without one could never be reached."""
    with pytest.raises(BadRequest, match="instance profile") as error:
        await one.projects.launch("api", LaunchWish())
    assert "--instance-profile" in (error.value.hint or "")
    assert await one.projects.all() == []


@with_daemon
async def test_a_launch_remembers_the_last_choices(one: Bench) -> None:
    """``launch api`` a second time is the same box with what was saved."""
    row = await one.launched(types=("t4g.large",), gib=50, tags={"Team": "x"}, zone="us-east-1b")
    written = one.work(row)
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    await one.projects.launch("api", LaunchWish())
    row = (await one.until("api", Phase.RUNNING)).project
    instance = one.model.tables.instances[row.instance or ""]
    assert (instance.type, instance.zone, instance.tags["Team"]) == ("t4g.large", "us-east-1b", "x")
    assert one.content(row.instance)["/dev/sda1"] >= written
    assert [v.size for v in one.model.tables.volumes_of(instance.id)] == [50]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"types": ("nope.large",)}, "no instance type nope.large in us-east-1"),
        ({"gib": 2}, "needs a disk of 8 GiB at least: 2 are too few"),
        ({"types": ("t4g.small", "t3.small")}, "architecture"),
        ({"base": "plan9"}, "plan9"),
        ({"base": "ami-00000000"}, "ami-00000000"),
        ({"zone": "us-east-1z"}, "no subnet in us-east-1z"),
        ({"subnets": ("subnet-0123456789abcdef0",)}, "no such subnet"),
        ({"groups": ("sg-0123456789abcdef0",)}, "no such security group"),
        ({"tags": {"devbox:owner": "me"}}, "not yours to set"),
        ({"tags": {"Name": "x"}}, "not yours to set"),
        ({"tags": {"team": "x" * 257}}, "too long"),
    ],
)
@with_daemon
async def test_what_can_not_be_is_refused_before_anything_is_made(
    one: Bench, asked: dict[str, Any], says: str
) -> None:
    """With the part that is wrong."""
    with pytest.raises(BadRequest, match=says):
        await one.projects.launch("api", LaunchWish(profile="box", **asked))
    assert await one.projects.all() == []


@with_daemon
async def test_going_round_until_there_is_room_spares_the_bucket_of_the_account(one: Bench) -> None:
    """Others launch out of it, too: some twenty rounds in the first two hours, and it comes up when there is room."""
    fault = one.model.faults.add(Fault("no-capacity", what="*/t4g.small"))
    await one.projects.launch("api", LaunchWish(profile="box", types=("t4g.small",), until_up=True))
    began = LoopClock().wall()
    await asyncio.sleep(7200.0)
    row = (await one.projects.get("api")).project
    places = len({place.zone for place in row.spec.places})
    assert 20 <= one.account.calls["RunInstances"] / places <= 30
    assert "no capacity anywhere" in one.projects.status(row).why
    one.model.faults.remove(fault)
    await one.until("api", Phase.RUNNING)
    assert LoopClock().wall() - began < 7200.0 + 400.0


@with_daemon
async def test_going_round_can_be_called_off_at_any_moment(one: Bench) -> None:
    """Also in the middle of a rest; and for the next launches it can be taken back."""
    one.model.faults.add(Fault("no-capacity", what="*/t4g.small"))
    await one.projects.launch("api", LaunchWish(profile="box", types=("t4g.small",), until_up=True))
    await asyncio.sleep(3600.0)
    began = LoopClock().wall()
    await one.projects.cancel("api")
    await one.until("api", Phase.ABSENT)
    assert LoopClock().wall() - began < 5.0
    await one.projects.launch("api", LaunchWish(until_up=False))
    row = (await one.until("api", lambda row: row.phase is Phase.ABSENT and row.want is Want.COLD)).project
    assert not row.spec.until_up


@with_daemon
async def test_what_was_asked_once_can_be_taken_back(one: Bench) -> None:
    """Spot, tags and what is run at the first boot."""
    script = "IyEvYmluL3NoCg=="  # as it comes to EC2
    row = await one.launched(spot=True, tags={"Team": "x"}, user_data=script)
    assert row.spec.spot
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    await one.projects.launch("api", LaunchWish(spot=False, tags={}, user_data=""))
    known = await one.until("api", Phase.RUNNING)
    assert known.run is not None
    assert (known.run.spot, known.run.tags, known.run.user_data) == (False, {}, None)
    instance = one.model.tables.instances[known.project.instance or ""]
    assert instance.spot is None
    assert "Team" not in instance.tags


@with_daemon
async def test_network_and_key_are_as_they_were_chosen(one: Bench) -> None:
    """At this launch and at the next ones, also with another type; ``any`` gives a choice back."""
    networks = one.model.region.networks
    (subnet,) = [each.id for each in networks.subnets.values() if each.zone == "us-east-1c"]
    (group,) = [each.id for each in networks.groups.values()]
    key = "arn:aws:kms:us-east-1:123456789012:key/disks"
    row = await one.launched(subnets=(subnet,), groups=(group,), kms=key)
    for types in ((), ("t4g.large",)):
        instance = one.model.tables.instances[row.instance or ""]
        assert (instance.subnet, instance.zone) == (subnet, "us-east-1c")
        assert row.spec.groups == (group,)
        assert [each.kms_key for each in one.model.tables.volumes_of(instance.id)] == [key]
        await one.projects.terminate("api")
        await one.until("api", Phase.READY)
        await one.projects.launch("api", LaunchWish(types=types))
        row = (await one.until("api", Phase.RUNNING)).project
    assert {place.type for place in row.spec.places} == {"t4g.large"}
    row = await one.projects.launch("api", LaunchWish(subnets=("any",), groups=("any",)))
    assert len({place.zone for place in row.spec.places}) > 1
    assert row.spec.groups == ()
    with pytest.raises(BadRequest, match="key already"):
        await one.projects.launch("api", LaunchWish(kms=key))


@with_daemon
async def test_a_named_profile_stays_with_another_type(one: Bench) -> None:
    """What was said once is not forgotten for what the account would offer."""
    await one.launched(profile="special")
    row = await one.projects.launch("api", LaunchWish(types=("t4g.large",)))
    assert row.spec.profile == "special"


@with_daemon
async def test_what_was_saved_on_arm_is_not_launched_on_intel(one: Bench) -> None:
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    with pytest.raises(BadRequest, match="arm64"):
        await one.projects.launch("api", LaunchWish(types=("t3.small",)))
    with pytest.raises(BadRequest, match="api needs a disk of 40 GiB at least"):
        await one.projects.launch("api", LaunchWish(gib=20))
    with pytest.raises(BadRequest, match="saved already"):
        await one.projects.launch("api", LaunchWish(base="debian-12"))


@with_daemon
async def test_another_type_for_a_box_that_runs_is_for_its_next_start(one: Bench) -> None:
    """Nothing is taken down for it, and until then the project is shown as its box is."""
    row = await one.launched()
    row = await one.projects.launch("api", LaunchWish(types=("t4g.large",), zone="us-east-1b"))
    instance = one.model.tables.instances[row.instance or ""]
    shown = views.project(Status(row))
    assert (shown.type, shown.zone, shown.next_type) == ("t4g.small", instance.zone, "t4g.large")
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    shown = views.project(Status(row))
    assert (shown.type, shown.zone, shown.next_type) == ("t4g.large", instance.zone, None)
    assert one.model.tables.instances[row.instance or ""].type == "t4g.large"


@with_daemon
async def test_while_it_is_launched_a_project_is_shown_where_that_is_tried(one: Bench) -> None:
    """The zone of the box of before comes first, whatever the order of those that are wanted."""
    row = await one.launched(zone="us-east-1c")
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    row = await one.projects.launch("api", LaunchWish(zone="any"))
    assert row.spec.places[0].zone != "us-east-1c"
    row = (await one.until("api", Phase.LAUNCHING)).project
    shown = views.project(Status(row)).zone
    row = (await one.until("api", Phase.RUNNING)).project
    assert shown == "us-east-1c" == one.model.tables.instances[row.instance or ""].zone


@pytest.mark.parametrize("base", ["ubuntu-22.04", "debian-12", "al2023", "nixos-25.05"])
@with_daemon
async def test_base_images_are_found_by_name_for_both_architectures(one: Bench, base: str) -> None:
    """Through public parameters or by owner and name; the attributes are EC2's, never guessed."""
    for kind, architecture in (("t4g.small", "arm64"), ("t3.small", "x86_64")):
        name = f"{base.replace('.', '-')}-{architecture.replace('_', '-')}"
        row = await one.launched(name, base=base, types=(kind,))
        instance = one.model.tables.instances[row.instance or ""]
        assert instance.boots, f"{base} does not boot on {kind}"
        assert instance.boot.architecture == architecture


@with_daemon
async def test_a_dry_run_shows_the_call_and_changes_nothing(one: Bench) -> None:
    """Every parameter of it."""
    plan = await one.projects.plan("api", LaunchWish(profile="box", types=("t4g.small",), gib=30))
    ((operation, parameters),) = plan.calls
    assert operation == "run_instances"
    assert parameters["InstanceType"] == "t4g.small"
    assert parameters["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 30
    assert await one.projects.all() == []
    assert "RunInstances" not in one.account.calls
    await one.launched()
    await one.projects.terminate("api")
    head = (await one.until("api", Phase.READY)).generations[0]
    plan = await one.projects.plan("api", LaunchWish())
    assert plan.calls[0][1]["ImageId"] == head.image


@with_daemon
async def test_a_dry_run_from_a_generation_shows_what_is_done_for_it(one: Bench) -> None:
    """What runs is saved and let go first; what is stopped is let go; then it is launched from that image."""
    await one.launched()
    await one.projects.snapshot("api")
    await one.until("api", lambda row: row.head == 1)
    await one.projects.snapshot("api")
    known = await one.until("api", lambda row: row.head == 2)
    first = wish.generation(known, 1)
    back = LaunchWish(generation=1)
    with pytest.raises(GenerationNotFound):
        await one.projects.plan("api", LaunchWish(generation=7))
    with pytest.raises(BadRequest, match="arm64"):
        await one.projects.plan("api", LaunchWish(generation=1, types=("t3.small",)))
    save = ["stop_instances", "create_image"]
    end = ["modify_instance_attribute", "terminate_instances"]
    plan = await one.projects.plan("api", back)
    assert [operation for operation, _ in plan.calls] == [*save, *end, "run_instances"]
    assert plan.calls[-1][1]["ImageId"] == first.image
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    plan = await one.projects.plan("api", back)
    assert [operation for operation, _ in plan.calls] == [*end, "run_instances"]
    assert plan.calls[-1][1]["ImageId"] == first.image
    assert one.account.calls["TerminateInstances"] == 0
    await one.projects.launch("api", back)
    row = (await one.until("api", Phase.RUNNING)).project
    assert one.model.tables.instances[row.instance or ""].image == first.image


@with_daemon
async def test_a_dry_run_calls_only_what_the_phase_needs(one: Bench) -> None:
    """Nothing for a box that runs; the stopped one is started, as another type where that is wanted."""
    row = await one.launched()
    other = LaunchWish(types=("t4g.large",))
    plan = await one.projects.plan("api", other)
    assert (plan.calls, plan.project.next_type) == ((), "t4g.large")
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    assert [operation for operation, _ in (await one.projects.plan("api", LaunchWish())).calls] == [
        "start_instances"
    ]
    changed, started = (await one.projects.plan("api", other)).calls
    assert changed[1] == {"InstanceId": row.instance, "InstanceType": {"Value": "t4g.large"}}
    assert started[0] == "start_instances"


@with_daemon
async def test_a_base_image_is_for_what_was_never_launched(one: Bench) -> None:
    """It would be the name of what the next generation is not from. The same again is no other."""
    for phase, hint in ((Phase.LAUNCHING, "ops cancel api"), (Phase.RUNNING, "rebase api --onto debian-13")):
        await one.projects.launch("api", LaunchWish(profile="box", base="debian-12"))
        row = (await one.until("api", phase)).project
        with pytest.raises(BadRequest, match="from debian-12 already") as error:
            await one.projects.launch("api", LaunchWish(base="debian-13"))
        assert hint in (error.value.hint or "")
        again = await one.projects.launch("api", LaunchWish(base="debian-12"))
        assert (again.spec.base, again.spec.image) == ("debian-12", row.spec.image)
    await one.projects.snapshot("api")
    await one.until("api", lambda row: row.head == 1)
    await one.projects.fork("api", "other")
    with pytest.raises(BadRequest, match="already"):
        await one.projects.launch("other", LaunchWish(base="debian-13"))


@with_daemon
async def test_ready_is_a_session_that_answers(one: Bench) -> None:
    """Running is not enough: the agent comes up later."""
    row = await one.launched()
    began = LoopClock().wall()
    assert await one.ready("api")
    assert LoopClock().wall() - (row.launched or 0) >= one.runner.agent_after
    assert LoopClock().wall() - began < 60
    await one.projects.terminate("api")
    await one.until("api", Phase.SAVING)
    assert not await one.ready("api")


@with_daemon
async def test_following_a_launch_tells_each_step_and_ends_when_it_runs(one: Bench) -> None:
    """And whoever leaves early leaves the work to the daemon."""
    await one.projects.launch("api", LaunchWish(profile="box", types=("t4g.small",)))
    phases = [status.project.phase async for status in one.projects.follow("api")]
    assert phases[-1] is Phase.RUNNING
    assert Phase.LAUNCHING in phases
    await one.projects.terminate("api")
    async for status in one.projects.follow("api"):
        if status.project.phase is Phase.SAVING:
            break
    await one.until("api", Phase.READY)


# Down


@with_daemon
async def test_terminate_ends_ready_and_stop_ends_warm(one: Bench) -> None:
    """Both with everything in a generation."""
    row = await one.launched()
    written = one.work(row)
    await one.projects.stop("api")
    known = await one.until("api", Phase.WARM)
    (made,) = known.generations
    assert made.quality is Quality.CLEAN
    snapshot = one.model.tables.snapshots[made.disks[0].snapshot or ""]
    assert snapshot.content >= written  # it writes a last time as it shuts down
    await one.projects.terminate("api")
    known = await one.until("api", Phase.READY)
    assert len(known.generations) == 1, "nothing changed, nothing was saved twice"
    assert one.model.tables.instances[row.instance or ""].state.value == "terminated"


@with_daemon
async def test_up_while_it_is_going_down_cancels_that(one: Bench) -> None:
    """The same instance, no generation, no wait."""
    row = await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.SAVING)
    await one.projects.up("api")
    again = (await one.until("api", Phase.RUNNING)).project
    assert (again.instance, again.head) == (row.instance, 0)


@with_daemon
async def test_the_hook_runs_before_the_stop_and_its_failure_does_not_hold_it_up(one: Bench) -> None:
    """Unless the policy gives it a veto."""
    await one.launched()
    await one.ready("api")
    one.runner.answers["pre-stop.d"] = Ran(3, "backup exited with 3\n")
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    assert any("pre-stop.d" in script for script in one.runner.ran)
    await one.projects.up("api")
    await one.until("api", Phase.RUNNING)
    await one.ready("api")
    await one.projects.settle("api", lambda known: Policy(hook_may_veto=True))
    await one.projects.stop("api")
    known = await one.until("api", lambda row: row.phase is Phase.RUNNING and row.want is Want.UP)
    assert known.project.instance is not None
    texts = [event.text for event in await one.projects.events("api")]
    assert any("backup exited with 3" in text for text in texts)


@with_daemon
async def test_an_image_of_a_box_that_runs_has_what_was_written_and_its_own_hooks(one: Bench) -> None:
    """A box that can not be asked, and a hook that fails, keep none from being made, also where one may veto a stop."""
    await one.launched()
    assert one.runner.ran == []
    await one.projects.snapshot("api")
    await one.until("api", lambda row: row.head == 1)
    await one.ready("api")
    await one.projects.settle("api", lambda known: Policy(hook_may_veto=True))
    for number, answer in ((2, Ran(0)), (3, Ran(3, "dump exited with 3\n"))):
        one.runner.ran.clear()
        one.runner.given.clear()
        one.runner.answers["sync"] = answer
        await one.projects.snapshot("api")
        row = (await one.until("api", _has(number))).project
        assert (row.phase, row.want) == (Phase.RUNNING, Want.UP)
        asked = [
            given for script, given in zip(one.runner.ran, one.runner.given, strict=True) if "sync" in script
        ]
        assert asked == [("60", "pre-snapshot.d")]


@with_daemon
async def test_a_clean_box_can_be_required(one: Bench) -> None:
    """Work that is nowhere else is listed, and nothing is stopped."""
    await one.launched()
    await one.ready("api")
    one.runner.answers["rev-list"] = Ran(0, "/home/u/api\t2\t1\t0\nnoise\n/home/u/web\t0\t0\t3\n")
    with pytest.raises(NotSaved) as error:
        await one.projects.terminate("api", require_clean=True)
    assert "/home/u/api: 2 uncommitted, 1 unpushed; /home/u/web: 3 stashed" in error.value.message
    assert (await one.projects.get("api")).project.want is Want.UP
    one.runner.answers["rev-list"] = Ran(0, "")
    await one.projects.terminate("api", require_clean=True)
    await one.until("api", Phase.READY)


@with_daemon
async def test_reboot_is_for_what_runs(one: Bench) -> None:
    await one.launched()
    await one.projects.reboot("api")
    assert one.account.calls["RebootInstances"] == 1
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    with pytest.raises(WrongState, match="warm"):
        await one.projects.reboot("api")


@with_daemon
async def test_delete_leaves_nothing_at_aws_and_no_row(one: Bench) -> None:
    """And the name is free again."""
    row = await one.launched()
    await one.projects.snapshot("api", "x")
    await one.until("api", lambda now: now.head == 1)
    await one.projects.delete("api")
    async with asyncio.timeout(3600):
        while await one.projects.all():
            await asyncio.sleep(10)
    tables = one.model.tables
    own = [v for v in tables.volumes.values() if v.state != "deleting"]
    assert own == []
    assert not [s for s in tables.snapshots.values() if s.tags and not s.is_deleted]
    assert not [i for i in tables.images.values() if i.tags and i.state != "deregistered"]
    with pytest.raises(ProjectNotFound):
        await one.projects.get("api")
    assert one.fleet.statuses() == []
    again = await one.launched()
    assert again.uid != row.uid


# Generations


@with_daemon
async def test_rollback_saves_the_present_and_brings_the_past_up(one: Bench) -> None:
    """And can be undone the same way."""
    row = await one.launched()
    first = one.work(row)
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    second = one.work(row)
    await one.projects.rollback("api", 1)
    known = await one.until("api", lambda now: now.phase is Phase.RUNNING and now.run == 2)
    assert first <= one.content(known.project.instance)["/dev/sda1"] < second
    assert [(one.number, one.parent) for one in known.generations] == [(1, 0), (2, 1), (3, 1)]
    await one.projects.rollback("api", -1)
    known = await one.until("api", lambda now: now.phase is Phase.RUNNING and now.run == 3)
    assert one.content(known.project.instance)["/dev/sda1"] >= second
    with pytest.raises(GenerationNotFound):
        await one.projects.rollback("api", 99)


@with_daemon
async def test_a_snapshot_of_a_running_box_does_not_disturb_it(one: Bench) -> None:
    row = await one.launched()
    written = one.work(row)
    await one.projects.snapshot("api", "before the upgrade")
    known = await one.until("api", lambda now: now.head == 1)
    assert known.project.phase is Phase.RUNNING
    (made,) = known.generations
    assert (made.label, made.quality) == ("before the upgrade", Quality.CRASH)
    assert one.model.tables.snapshots[made.disks[0].snapshot or ""].content == written


@with_daemon
async def test_pins_outlive_retention(one: Bench) -> None:
    """Six generations of one day, the first one pinned."""
    await one.launched()
    for number in range(1, 7):
        await one.projects.snapshot("api", f"n{number}")
        await one.until("api", _has(number))
        if number == 1:
            await one.projects.describe("api", 1, pinned=True)
    await asyncio.sleep(900)
    assert [one.number for one in await one.projects.generations("api")] == [6, 5, 4, 1]
    assert len([i for i in one.model.tables.images.values() if i.tags and i.state == "available"]) == 4
    with pytest.raises(WrongState, match="pinned"):
        await one.projects.drop("api", 1)
    await one.projects.describe("api", 1, pinned=False)
    await asyncio.sleep(900)
    assert [one.number for one in await one.projects.generations("api")] == [6, 5, 4]


@with_daemon
async def test_a_fork_goes_its_own_way(one: Bench) -> None:
    """It begins with the origin's content, and holds on to it until it has a generation of its own."""
    row = await one.launched()
    written = one.work(row)
    with pytest.raises(WrongState, match="no generation"):
        await one.projects.fork("api", "web")
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    made = await one.projects.fork("api", "web")
    assert (await one.projects.fork("api", "web")).uid == made.uid, "asking twice is asking once"
    assert (await one.projects.fork("api", "web", 1)).uid == made.uid
    with pytest.raises(AlreadyExists):
        await one.projects.fork("api", "api")
    await one.launched("other")
    with pytest.raises(AlreadyExists):
        await one.projects.fork("api", "other")
    assert (await one.projects.generations("api"))[0].pins == (f"fork:{made.uid}",)
    assert (await one.projects.generations("api"))[0].pins != ()
    with pytest.raises(WrongState, match="fork"):
        await one.projects.delete("api")
    await one.projects.up("web")
    other = (await one.until("web", Phase.RUNNING)).project
    assert one.content(other.instance)["/dev/sda1"] >= written
    await one.projects.terminate("web")
    await one.until("web", Phase.READY)
    await asyncio.sleep(60)
    assert (await one.projects.generations("api"))[0].pins == ()


@with_daemon
async def test_a_fork_that_never_ran_lets_go_of_its_origin_when_it_is_deleted(one: Bench) -> None:
    """Else the generation would be kept for ever, and its origin could not be deleted."""
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    await one.projects.fork("api", "web")
    await one.projects.describe("api", 1, pinned=False)
    assert (await one.projects.generations("api"))[0].pins != (), "the fork is there"
    await one.projects.delete("web")
    async with asyncio.timeout(900):
        while await one.projects.find("web") is not None:
            await one.fleet.changed(5.0)
    assert (await one.projects.generations("api"))[0].pins == ()
    await one.projects.delete("api")


@with_daemon
async def test_a_fork_and_its_pin_are_one_commit(one: Bench) -> None:
    """A daemon that dies in between leaves no pin; one that an older daemon left goes with ``unpin``."""
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    commit = one.store.commit

    async def dies(owner: str, changes: Sequence[Change], op: str) -> None:
        if any(change.key == name_key("web") for change in changes):
            raise Unreachable("the daemon has died")
        await commit(owner, changes, op)

    one.store.commit = dies  # type: ignore[method-assign]
    with pytest.raises(Unreachable):
        await one.projects.fork("api", "web")
    one.store.commit = commit  # type: ignore[method-assign]
    assert (await one.projects.generations("api"))[0].pins == ()
    known = await one.projects.get("api")
    await one.book.write(known, wish.pinned_for(known, 1, "fork:nobody"))
    (other,) = [book for book in one.projects._books if book is not one.book]
    there = other.store
    assert isinstance(there, MemoryStore)

    async def fails(owner: str, *ranges: Range) -> list[Item]:
        raise broken

    broken = StoreFailed("the other store does not answer")
    there.read = fails  # type: ignore[method-assign]
    await one.projects.describe("api", 1, pinned=False)
    assert (await one.projects.generations("api"))[0].pins != (), "the fork may be in the other store"
    broken.is_absent = True
    await one.projects.describe("api", 1, pinned=False)
    assert (await one.projects.generations("api"))[0].pins == ()


def _has(number: int) -> Callable[[Project], bool]:
    return lambda row: row.head == number and row.snap is None


# Identity


@with_daemon
async def test_a_renamed_project_is_the_same_project(one: Bench) -> None:
    """Everything made under the old name stays its own."""
    row = await one.launched()
    with pytest.raises(BadRequest):
        await one.projects.rename("api", "no good")
    renamed = await one.projects.rename("api", "web")
    assert (renamed.uid, renamed.name) == (row.uid, "web")
    with pytest.raises(ProjectNotFound):
        await one.projects.get("api")
    await one.projects.terminate("web")
    await one.until("web", Phase.READY)
    await one.launched("api")
    with pytest.raises(AlreadyExists):
        await one.projects.rename("api", "web")


@with_daemon
async def test_resize_of_a_running_box_keeps_its_volumes(one: Bench) -> None:
    row = await one.launched()
    await one.ready("api")
    written = one.work(row)
    await one.projects.resize("api", types=("m8g.xlarge",), gib=60)
    known = await one.until(
        "api",
        lambda now: now.phase is Phase.RUNNING and now.launched != row.launched and now.cycle is Cycle.NONE,
    )
    instance = one.model.tables.instances[row.instance or ""]
    assert (known.project.instance, instance.type) == (row.instance, "m8g.xlarge")
    assert one.content(row.instance)["/dev/sda1"] >= written
    known = await one.until("api", lambda now: any("resize2fs" in script for script in one.runner.ran))
    assert [v.size for v in one.model.tables.volumes_of(row.instance or "")] == [60]
    with pytest.raises(BadRequest, match="smaller"):
        await one.projects.resize("api", gib=20)


@with_daemon
async def test_an_adopted_instance_is_tagged_protected_and_saved_like_any_other(one: Bench) -> None:
    """It was made by hand, with a volume that would die with it."""
    row = await one.launched("donor")
    image = one.model.tables.instances[row.instance or ""].image
    answer = await one.account.call(
        "ec2",
        "run_instances",
        ImageId=image,
        InstanceType="t4g.small",
        MinCount=1,
        MaxCount=1,
        InstanceInitiatedShutdownBehavior="terminate",
    )
    instance = answer["Instances"][0]["InstanceId"]
    await asyncio.sleep(60)
    with pytest.raises(BadRequest) as unknown:
        await one.projects.adopt("i-00000000", "api")
    assert "devboxctl ls" in (unknown.value.hint or "")
    with pytest.raises(WrongState, match="donor"):
        await one.projects.adopt(row.instance or "", "api")
    await one.projects.adopt(instance, "api")
    await one.until("api", lambda now: not now.adopted and not now.unprotected)
    await asyncio.sleep(400)
    record = one.model.tables.instances[instance]
    assert (record.is_protected, record.shutdown_behavior) == (True, "stop")
    assert record.tags["devbox:project"] == "api"
    volumes = one.model.tables.volumes_of(instance)
    assert all(v.attachment and not v.attachment.delete_on_termination for v in volumes)
    written = one.model.work(instance, now=LoopClock().wall())
    await one.projects.terminate("api")
    known = await one.until("api", Phase.READY)
    assert one.model.tables.snapshots[known.generations[0].disks[0].snapshot or ""].content >= written
    await asyncio.sleep(600)
    assert one.model.tables.volumes_of(instance) == []


@with_daemon
async def test_the_next_box_of_an_adopted_one_goes_where_that_was(one: Bench) -> None:
    """Its network, its role and its own tags: without them nobody would reach it."""
    row = await one.launched("donor")
    image = one.model.tables.instances[row.instance or ""].image
    answer = await one.account.call(
        "ec2", "run_instances", ImageId=image, InstanceType="t4g.small", MinCount=1, MaxCount=1,
        IamInstanceProfile={"Name": "of-its-own"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "x"}]}],
    )  # fmt: skip
    found = answer["Instances"][0]
    await asyncio.sleep(60)
    await one.projects.adopt(found["InstanceId"], "api")
    await one.until("api", lambda now: not now.adopted and not now.unprotected)
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    await one.projects.up("api")
    again = (await one.until("api", Phase.RUNNING)).project
    old, new = (one.model.tables.instances[each or ""] for each in (found["InstanceId"], again.instance))
    assert new.id != old.id
    assert (new.subnet, new.groups, new.profile) == (old.subnet, old.groups, old.profile)
    assert (new.tags["team"], new.tags["devbox:project"]) == ("x", "api")


@with_daemon
async def test_leftovers_say_what_they_cost_and_when_they_go(one: Bench) -> None:
    await one.launched(gib=100)
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    (left,) = await one.projects.leftovers("api")
    assert (left.kind, left.gib, left.usd_month) == ("volume", 100, Decimal("8.00"))
    assert left.goes is not None
    assert 0 < left.goes - LoopClock().wall() <= 60
    await asyncio.sleep(200)
    assert await one.projects.leftovers("api") == []


@pytest.mark.parametrize(
    ("operation", "code", "says", "hint"),
    [
        ("DeleteVolume", "UnauthorizedOperation", "does not allow", "permission ec2:DeleteVolume"),
        ("DeregisterImage", "OperationNotPermitted", "protected", "only a person"),
        ("DeleteSnapshot", "InvalidSnapshot.InUse", "in use", "tried again"),
    ],
)
@with_daemon
async def test_what_aws_does_not_delete_is_said_until_it_does(
    one: Bench, operation: str, code: str, says: str, hint: str
) -> None:
    """In ``ops``, in ``gc`` and while it is waited for; what is in use only after some tries. Nothing else waits."""
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    fault = one.model.faults.add(Fault("refuse", operation=operation, code=code))
    if operation != "DeleteVolume":
        await one.projects.delete("api")
    await asyncio.sleep(700)
    (left,) = [found for found in await one.projects.leftovers("api") if found.goes is None]
    assert says in left.why
    (status,) = one.projects.operations()
    assert status.problem.startswith(f"{left.id} can not be deleted: ")
    assert says in status.problem
    assert hint in (status.hint or "")
    (told,) = [found for found in one.shared.news.conditions() if found.code == "project-refused"]
    assert left.id in told.text
    one.model.faults.remove(fault)
    await asyncio.sleep(400)
    assert one.shared.news.conditions() == []
    assert one.projects.operations() == []


# Trouble


def end_in_console(one: Bench, instance: str) -> None:
    """Protection off, and terminate."""
    off = {"InstanceId": instance, "DisableApiTermination": {"Value": False}}
    one.model.call("ModifyInstanceAttribute", off, now=LoopClock().wall(), caller="console")
    one.model.call(
        "TerminateInstances", {"InstanceIds": [instance]}, now=LoopClock().wall(), caller="console"
    )


@with_daemon
async def test_a_login_that_ended_stops_everything_and_goes_on_by_itself(one: Bench) -> None:
    """Nothing is called with credentials that are known to be bad."""
    await one.launched()
    one.account.broken = LoginNeeded("the login has ended", hint="devboxctl login")
    await one.projects.terminate("api")
    await asyncio.sleep(120)
    before = one.account.calls.total()
    assert [(one.problem, one.hint) for one in one.projects.operations()] == [
        ("the login has ended", "devboxctl login")
    ]
    await asyncio.sleep(60)
    assert one.account.calls.total() == before
    one.account.broken = None
    one.shared.logins.renewed()
    await one.until("api", Phase.READY)
    assert one.shared.news.conditions() == []


@with_daemon
async def test_a_project_that_needs_a_person_says_so_until_it_does_not(one: Bench) -> None:
    """Three images in a row came to nothing; the box is kept, stopped."""
    await one.launched()
    fault = one.model.faults.add(Fault("image-fails"))
    await one.projects.terminate("api")
    known = await one.until("api", Phase.BROKEN)
    assert "3 times" in known.project.reason
    (said,) = one.shared.news.conditions()
    assert (said.code, said.hint) == ("project-broken", "mend it and run: devboxctl ops resume api"), (
        "nothing is saved that one could go back to"
    )
    one.model.faults.remove(fault)
    await one.projects.resume("api")
    await one.until("api", Phase.READY)
    assert one.shared.news.conditions() == []


@with_daemon
async def test_a_project_whose_root_volume_was_deleted_goes_back_to_what_was_saved(one: Bench) -> None:
    """Terminated in the console, its root volume deleted: resumed it is broken again, and abandoned it launches."""
    row = await one.launched()
    saved = one.work(row)
    await one.projects.stop("api")
    await one.until("api", Phase.WARM)
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    instance, call = row.instance or "", one.model.call
    await asyncio.sleep(400)  # the list of its volumes is written down
    with pytest.raises(WrongState, match="api is running: there is nothing to abandon"):
        await one.projects.abandon("api")
    (root,) = one.model.tables.volumes_of(instance)
    end_in_console(one, instance)
    await one.until("api", Phase.RESCUE)
    call("DeleteVolume", {"VolumeId": root.id}, now=LoopClock().wall(), caller="console")
    await one.until("api", Phase.BROKEN)
    await one.projects.resume("api")
    assert "newest generation is 1" in (await one.until("api", Phase.BROKEN)).project.reason
    known, left = await one.projects.to_abandon("api")
    assert (known.project.head, left) == (1, [])
    assert "is lost: devboxctl ops abandon api" in wish.way_out(known.project)
    row = await one.projects.abandon("api")
    assert one.projects.status(row).why == "", (
        "what a broken one waited for is not said of one that is given up"
    )
    row = (await one.until("api", Phase.READY)).project
    assert row.want is Want.COLD
    await one.projects.up("api")
    row = (await one.until("api", Phase.RUNNING)).project
    assert one.content(row.instance)["/dev/sda1"] >= saved
    assert one.shared.news.conditions() == []


async def test_after_an_unexpected_error_a_project_has_one_loop_again() -> None:
    """It goes on by itself and soon, and nobody begins another one beside it."""
    one = bench()
    decide, failed = one.fleet._decide, asyncio.Event()

    def fails(seen: Seen) -> Step:
        if failed.is_set():
            return decide(seen)
        failed.set()
        raise RuntimeError("a bug")

    one.fleet._decide = fails
    await start(one)
    await one.projects.launch("api", LaunchWish(profile="box"))
    await failed.wait()
    await asyncio.sleep(5.0)
    assert (await one.projects.get("api")).project.phase is not Phase.READY, "it has gone on"
    await one.until("api", Phase.RUNNING)
    await asyncio.sleep(300)
    row = (await one.projects.get("api")).project
    loops = [task.get_name() for task in one.shared.tasks._tasks if row.uid in task.get_name()]
    assert len(loops) == 1
    await stop(one)


async def test_two_machines_share_projects_and_take_turns() -> None:
    """What one is asked, the other sees; who acts is agreed, and nothing is done twice."""
    store = MemoryStore(is_shared=True)
    one = await start(bench(store))
    other = await start(bench(store, model=one.model, me="desktop"))
    row = await one.launched()
    await asyncio.sleep(300)
    await other.projects.terminate("api")
    await other.until("api", Phase.READY)
    assert one.account.calls["CreateImage"] + other.account.calls["CreateImage"] == 1
    await stop(one)
    await other.projects.up("api")
    again = (await other.until("api", Phase.RUNNING)).project
    assert again.run == row.run + 1
    await stop(other)


async def test_a_machine_that_dies_while_it_acts_is_followed_by_another() -> None:
    """After the time of the lease, watched on its own clock."""
    store = MemoryStore(is_shared=True)
    one = await start(bench(store))
    await one.launched()
    await one.projects.terminate("api")
    await one.until("api", Phase.SAVING)
    await stop(one)
    other = await start(bench(store, model=one.model, me="desktop"))
    began = LoopClock().wall()
    await other.until("api", Phase.READY)
    assert LoopClock().wall() - began < 400
    await stop(other)


async def test_a_thousand_projects_cost_a_handful_of_calls_a_minute() -> None:
    """Describes do not grow with the number of boxes but by one for every two hundred, and rows by one query."""
    one = bench()
    await one.projects.launch("p0", LaunchWish(profile="box", types=("t4g.small",)))
    known = await one.projects.get("p0")
    for number in range(1, 1000):
        row = replace(known.project, uid=f"uid{number:07d}", name=f"p{number}", want=Want.COLD)
        await one.book.create(row, "made")
    await start(one)
    await one.until("p0", Phase.RUNNING)
    await asyncio.sleep(600)
    one.account.calls.clear()
    assert isinstance(one.store, MemoryStore)
    reads = one.store.reads
    await asyncio.sleep(1500)
    assert one.account.calls.total() <= 5 * 4 * 6, "twenty describes each five minutes"
    assert one.store.reads - reads <= 6 + 1500 / 120 + 1, "one query for all rows each time, and the list"
    assert len(one.fleet.statuses()) == 1000
    await stop(one)


async def test_a_look_reads_the_rows_after_ec2() -> None:
    """R2: the row is never the older of the two."""
    one = bench()
    await one.book.create(Project("uid0000001", "api", "me"), "made")
    order: list[str] = []
    calls, rows = one.account.call, one.book.store.read

    async def call(*arguments: Any, **parameters: Any) -> dict[str, Any]:
        answer = await calls(*arguments, **parameters)
        order.append("EC2")
        return answer

    async def read(*arguments: Any) -> Any:
        order.append("row")
        return await rows(*arguments)

    one.account.call = call  # type: ignore[method-assign]  # the order is all that counts here
    one.book.store.read = read  # type: ignore[method-assign, assignment]
    one_pass = one.fleet.reconciler("uid0000001")
    await one_pass.once()
    order.clear()
    await one_pass.once()
    looked = [what for what in order if what == "EC2"]
    assert order[: len(looked)] == looked, order
    assert (len(looked), "row" in order) == (4, True)
    await stop(one)

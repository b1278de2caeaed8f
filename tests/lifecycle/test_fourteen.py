"""The fourteen failures of a Lambda that saves boxes on events (omsf-eco-infra/devbox), each played against ours.

There, a terminated instance raised an event, which made snapshots, which raised events, which made an image under a
fixed name. What went wrong is told at each test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec.structs import replace

from devboxd.aws import look
from devboxd.model import tags, wish
from devboxd.model.project import GenerationState, Phase, Quality, Want
from devboxd.simulator.ec2.faults import Fault
from tests.lifecycle.memory import MemoryStore
from tests.lifecycle.scenarios import box, fate_of, up
from tests.lifecycle.scenarios_by_hand import attach, data_volume, end_in_console
from tests.lifecycle.test_crashes import UID, phase, watched, work
from tests.lifecycle.world import DISKS, Daemon, Fate, Request, World, small_spec

HOUR: Final = 3600.0


def save(world: World, want: Want = Want.COLD) -> None:
    """Down, and saved."""
    world.want(UID, want)
    world.run_until(phase(world, Phase.READY if want is Want.COLD else Phase.WARM))


def again(world: World) -> None:
    """Up, and there is work."""
    world.want(UID, Want.UP)
    world.run_until(phase(world, Phase.RUNNING))
    work(world)


def contents(world: World) -> dict[str, int]:
    """What is on each volume of the box, by device: the number of the last write."""
    found = world.model.tables.volumes_of(box(world))
    return {one.attachment.device: one.content for one in found if one.attachment is not None}


def of_head(world: World) -> dict[str, Any]:
    """The snapshots of the newest generation, by device."""
    ledger = world.ledger(UID)
    assert ledger is not None
    head = next(one for one in ledger.generations if one.number == ledger.project.head)
    return {disk.device: world.model.tables.snapshots[disk.snapshot or ""] for disk in head.disks}


def our_images(world: World) -> list[str]:
    """Every image of the project that could be launched now."""
    images = world.model.tables.images.values()
    return [one.id for one in images if one.tags.get(tags.UID) == UID and one.state == "available"]


@pytest.mark.parametrize("away", [60.0, 2 * HOUR, 30 * HOUR])
def test_1_nobody_was_there_when_the_box_was_terminated(away: float) -> None:
    """Its volumes died with it, the late event found none, and that counted as success: everything was lost."""
    world = World(MemoryStore(), seed=21)
    with watched(world) as oracle:
        up(world)
        instance, written = box(world), contents(world)
        assert not any(
            v.attachment.delete_on_termination
            for v in world.model.tables.volumes_of(instance)
            if v.attachment
        )
        world.daemons[0].nap(away)
        end_in_console(world, instance)
        world.run_for(away)
        world.run_until(phase(world, Phase.READY))
        assert {d: one.content >= written[d] for d, one in of_head(world).items()} == dict.fromkeys(
            written, True
        )
        again(world)
        world.run_for(600)
        oracle.ends_well(UID)


def test_1_volumes_that_would_die_with_the_box_are_mended_before_anybody_terminates_it() -> None:
    """The flag may come from an image or a hand."""
    world = World(MemoryStore(), seed=21)
    with watched(world):
        up(world)
        mortal = [{"DeviceName": d.device, "Ebs": {"DeleteOnTermination": True}} for d in DISKS]
        world.console("ModifyInstanceAttribute", InstanceId=box(world), BlockDeviceMappings=mortal)
        world.run_for(400)
        held = world.model.tables.volumes_of(box(world))
        assert [v.attachment.delete_on_termination for v in held if v.attachment] == [False, False]


def test_2_what_is_saved_is_what_was_written_before_the_power_went() -> None:
    """Snapshots were taken while the system still shut down, one volume after the other."""
    world = World(MemoryStore(), seed=22)
    with watched(world):
        up(world)
        instance = box(world)
        world.want(UID, Want.COLD)
        world.run_until(lambda: world.model.tables.instances[instance].state.value == "stopped")
        stopped, last = world.now, contents(world)
        world.run_until(phase(world, Phase.READY))
        taken = of_head(world)
        assert {device: one.content for device, one in taken.items()} == last
        assert all(one.clean and one.started >= stopped for one in taken.values())
        assert len({one.started for one in taken.values()}) == 1, "not of one moment"


@pytest.mark.parametrize("operation", ["CreateImage", "DeregisterImage", "DeleteSnapshot", "CreateTags"])
def test_3_there_is_a_bootable_image_at_every_moment(operation: str) -> None:
    """The old one was deleted before the new one was made, as they had one name: a throttle there left none."""
    world = World(MemoryStore(), seed=23)
    with watched(world) as oracle:
        up(world)
        save(world)
        check = world.after_event

        def looks() -> None:
            check()
            assert our_images(world), "there is no image to come back from"

        world.after_event = looks
        for _ in range(5):
            world.model.faults.add(Fault("refuse", operation=operation, code="RequestLimitExceeded", times=3))
            again(world)
            save(world)
            world.run_for(900)
        oracle.ends_well(UID)
        assert len(our_images(world)) <= 4


@pytest.mark.parametrize("daemons", [1, 2])
def test_4_whatever_is_told_or_done_twice_takes_nothing_away(daemons: int) -> None:
    """A repeated event met the new image, took it for the old one and deleted it with its snapshots: total loss."""
    world = World(MemoryStore(), seed=24)
    seen: set[tuple[str, int]] = set()

    def fate(daemon: Daemon, request: Request) -> Fate:
        key = (request.name, len(seen) // 2)
        seen.add(key)
        return Fate.ANSWER_LOST if len(seen) % 2 else Fate.ARRIVES

    world.fate = fate
    with watched(world) as oracle:
        up(world)
        for _ in range(daemons - 1):
            world.daemon(UID)
        for _ in range(3):
            save(world)
            for second in range(60):  # everybody is woken, again and again
                for daemon in world.daemons:
                    daemon.wake()
                world.run_for(1.0 + second % 3)
            again(world)
        save(world)
        world.run_for(900)
        oracle.ends_well(UID)
        ledger = world.ledger(UID)
        assert ledger is not None
        assert {one.image for one in ledger.generations if one.is_ok} == set(our_images(world))


@pytest.mark.parametrize("operation", ["CreateImage", "RegisterImage"])
@pytest.mark.parametrize("fate", [Fate.DIES_AFTER, Fate.ANSWER_LOST, Fate.ARRIVES_LATE])
def test_5_an_image_that_nobody_wrote_down_is_found_again(operation: str, fate: Fate) -> None:
    """A crash before the row was written: the name was taken then, and the project stuck for ever."""
    world = World(MemoryStore(), seed=25)
    with watched(world) as oracle:
        up(world)
        fate_of(world, operation, fate)
        if operation == "RegisterImage":
            end_in_console(world, box(world))
            world.run_until(phase(world, Phase.READY))
        else:
            save(world)
        assert world.project(UID).head == 1
        world.run_for(1500)
        oracle.ends_well(UID)
        assert len(our_images(world)) == 1


def test_6_an_image_that_was_ready_before_anybody_looked_counts() -> None:
    """Its event came before its id was in the table, and was dropped."""
    world = World(MemoryStore(), seed=26)
    world.restarts = lambda daemon: 6 * HOUR
    with watched(world):
        up(world)
        fate_of(world, "CreateImage", Fate.DIES_AFTER)
        world.want(UID, Want.COLD)
        world.run_for(3 * HOUR)
        assert (world.project(UID).phase, len(our_images(world))) == (Phase.SAVING, 1)
        world.run_until(phase(world, Phase.READY), most=8 * HOUR)
        assert world.project(UID).saves == 1


def test_6_what_is_on_the_next_page_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan without paging saw the first page only."""
    monkeypatch.setattr(look, "PAGE", {"PageSize": 5})
    world = World(MemoryStore(), seed=26)
    with watched(world) as oracle:
        spec = small_spec()
        more = tuple(replace(spec.disks[1], device=f"/dev/sd{letter}") for letter in "ghijklmn")
        world.create(UID, spec=replace(spec, disks=(*spec.disks, *more)))
        world.daemon(UID)
        again(world)
        for _ in range(3):
            save(world, Want.WARM)
            again(world)
        save(world)
        assert len(of_head(world)) == 10
        world.run_for(900)
        oracle.ends_well(UID)


@pytest.mark.parametrize("depth", [3, 8])
def test_7_two_that_look_at_old_views_make_one_generation_of_all(depth: int) -> None:
    """Each asked an index that lags whether it was the last one: nobody went on, or two did."""
    world = World(MemoryStore(), seed=27)
    with watched(world) as oracle:
        up(world)
        world.daemon(UID)
        instance = box(world)
        world.model.faults.add(Fault("stale", share=0.6, depth=depth, seconds=90.0))
        end_in_console(world, instance)
        world.run_until(phase(world, Phase.READY))
        assert (world.project(UID).head, len(of_head(world))) == (1, 2)
        again(world)
        save(world)
        assert (world.project(UID).head, len(of_head(world))) == (2, 2)
        world.model.faults.clear()
        world.run_for(1200)
        oracle.ends_well(UID)


def test_8_nothing_of_an_earlier_run_gets_into_a_generation() -> None:
    """Rows of the last run counted as done, and went into the image."""
    world = World(MemoryStore(), seed=28)
    with watched(world, lenient=("V2", "V3")):
        up(world)
        save(world)
        again(world)
        held = data_volume(world)
        attach(world, held, None)  # the second run has one volume less
        world.run_for(400)
        save(world)
        assert list(of_head(world)) == ["/dev/sda1"]
        again(world)
        end_in_console(world, box(world))
        world.run_until(phase(world, Phase.READY))
        ledger = world.ledger(UID)
        assert ledger is not None
        assert [len(one.disks) for one in ledger.generations] == [2, 1, 1]
        for one in ledger.generations:
            for disk in one.disks:
                snapshot = world.model.tables.snapshots[disk.snapshot or ""]
                assert (snapshot.tags[tags.SAVE], snapshot.tags[tags.RUN]) == (str(one.save), str(one.run))


@pytest.mark.parametrize("code", ["VolumeInUse", "IncorrectState", "InternalError", "UnauthorizedOperation"])
def test_9_volumes_go_in_whatever_order_things_become_known(code: str) -> None:
    """They went only if their event came last, else the project was in error and they were paid for."""
    world = World(MemoryStore(), seed=29)
    with watched(world) as oracle:
        up(world)
        world.model.faults.add(Fault("refuse", operation="DeleteVolume", code=code, times=5))
        save(world)
        world.run_for(2 * HOUR)
        assert not world.model.tables.volumes or all(
            one.state == "deleting" or not one.tags for one in world.model.tables.volumes.values()
        )
        assert world.project(UID).phase is Phase.READY
        oracle.ends_well(UID)


@pytest.mark.parametrize("how", ["save", "rescue"])
def test_10_what_comes_up_is_the_same_machine(how: str) -> None:
    """No ENA, boot mode or TPM, and every volume gp3: it did not boot, or was slow."""
    world = World(MemoryStore(), seed=30)
    with watched(world):
        up(world)
        first = world.model.tables.instances[box(world)]
        disks = {
            v.size: (v.type, v.iops, v.throughput, v.encrypted)
            for v in world.model.tables.volumes_of(first.id)
        }
        if how == "save":
            save(world)
        else:
            end_in_console(world, first.id)
            world.run_until(phase(world, Phase.READY))
        again(world)
        second = world.model.tables.instances[box(world)]
        assert second.id != first.id
        assert second.boots
        assert second.boot == first.boot
        assert {
            v.size: (v.type, v.iops, v.throughput, v.encrypted)
            for v in world.model.tables.volumes_of(second.id)
        } == disks


def test_11_a_save_forgets_nothing_of_the_project() -> None:
    """The row was replaced as a whole, and what others needed of it was gone."""
    world = World(MemoryStore(), seed=31)
    with watched(world) as oracle:
        up(world)
        save(world, Want.WARM)
        ledger = world.ledger(UID)
        assert ledger is not None
        pinned = wish.describe(ledger, 1, label="before", pinned=True)
        assert pinned is not None
        world.commit("me", _written(world, pinned))
        before = world.project(UID)
        again(world)
        save(world)
        world.run_for(900)
        after = world.project(UID)
        for name in ("uid", "name", "owner", "account", "spec", "policy", "bound"):
            assert getattr(after, name) == getattr(before, name), name
        ledger = world.ledger(UID)
        assert ledger is not None
        first = ledger.generations[0]
        assert (first.label, first.pins, first.state) == ("before", ("user",), GenerationState.OK)
        oracle.ends_well(UID)


def _written(world: World, step: Any) -> Any:
    from devboxd.model.ledger import Event, written

    ledger = world.ledger(UID)
    assert ledger is not None
    return written(ledger, step, "pin-1", Event(world.now, "describe", "user", step.event))


@pytest.mark.parametrize("fate", [Fate.ARRIVES, Fate.DIES_AFTER, Fate.ANSWER_LOST, Fate.ARRIVES_LATE])
def test_12_two_laptops_that_launch_at_once_get_one_box(fate: Fate) -> None:
    """No lock and no token, and the row was written when the instance ran: two boxes, and the last save won."""
    world = World(MemoryStore(), seed=32)
    fate_of(world, "RunInstances", fate)
    with watched(world) as oracle:
        world.create(UID)
        world.daemon(UID)
        world.daemon(UID)
        world.want(UID, Want.UP)
        world.run_until(phase(world, Phase.RUNNING))
        work(world)
        world.run_for(1500)
        alive = [one.id for one in world.model.tables.instances.values() if one.state.value == "running"]
        assert alive == [box(world)]
        save(world)
        world.run_for(900)
        oracle.ends_well(UID)


def _save_began(world: World) -> None:
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.SAVING))


def _imaging(world: World) -> None:
    _save_began(world)
    world.run_until(lambda: world.project(UID).stamp is not None)


def _releasing(world: World) -> None:
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.RELEASING))


def _rescue(world: World) -> None:
    end_in_console(world, box(world))
    world.run_until(phase(world, Phase.RESCUE))


def _broken(world: World) -> None:
    world.model.faults.add(Fault("image-fails", times=3))
    world.want(UID, Want.COLD)
    world.run_until(phase(world, Phase.BROKEN))
    world.resume(UID)


@pytest.mark.parametrize("comes_to", [_save_began, _imaging, _releasing, _rescue, _broken])
def test_13_there_is_a_way_up_out_of_every_state(comes_to: Callable[[World], None]) -> None:
    """Whatever was not READY was a dead end: delete the project and begin anew."""
    world = World(MemoryStore(), seed=33)
    with watched(world) as oracle:
        up(world)
        written = contents(world)
        comes_to(world)
        world.want(UID, Want.UP)
        world.run_until(lambda: phase(world, Phase.RUNNING)() and world.project(UID).want is Want.UP)
        now = contents(world)
        assert all(now[device] >= written[device] for device in written)
        world.run_for(900)
        oracle.ends_well(UID)


def test_13_there_is_a_way_back_to_an_older_generation_and_forth_again() -> None:
    """There was one generation only."""
    world = World(MemoryStore(), seed=33)
    with watched(world, lenient=("V2",)):
        up(world)
        save(world)
        then = {device: one.content for device, one in of_head(world).items()}
        again(world)
        save(world)
        later = {device: one.content for device, one in of_head(world).items()}
        for number, expected in ((1, then), (2, later)):
            world.ask(UID, "rollback", rollback=number, want=Want.UP)
            world.run_until(lambda: phase(world, Phase.RUNNING)() and world.project(UID).rollback is None)
            assert {one.content for one in of_head(world).values()} == set(expected.values())
            save(world)


@pytest.mark.parametrize(
    "operation", ["StopInstances", "CreateImage", "TerminateInstances", "CreateSnapshot", "RegisterImage"]
)
def test_14_no_event_has_to_be_heard(operation: str) -> None:
    """Every step waited for an event that may never come; nothing looked again."""
    world = World(MemoryStore(), seed=34)
    world.restarts = lambda daemon: 12 * HOUR
    with watched(world) as oracle:
        up(world)
        fate_of(world, operation, Fate.DIES_AFTER)
        if operation in ("CreateSnapshot", "RegisterImage"):
            end_in_console(world, box(world))
        else:
            world.want(UID, Want.COLD)
        world.run_until(phase(world, Phase.READY), most=60 * HOUR)
        ledger = world.ledger(UID)
        assert ledger is not None
        assert ledger.generations[-1].quality in (Quality.CLEAN, Quality.RESCUE)
        world.run_for(HOUR)
        oracle.ends_well(UID)

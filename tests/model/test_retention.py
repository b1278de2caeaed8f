"""What may go, and what may not: retention, two-phase deletion, and the end of a project."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from devboxd.model.cost import DAY
from devboxd.model.project import GenerationState, Phase, Policy, Quality, Want
from devboxd.model.retention import kept
from devboxd.model.step import DropImage, DropSnapshot, DropVolume, Erase, Release, Tag, Wait, Write
from tests.model.scenes import (
    AT,
    RUN,
    box,
    decide,
    generation,
    image,
    project,
    saved,
    snapshots,
    volumes,
)
from tests.model.test_save import write

OLD = AT - 600.0  # marked longer ago than the grace


# Retention


def test_the_last_three_the_newest_of_each_day_and_pins_are_kept() -> None:
    """Eleven saves: three on each of the last two days, then one a day."""
    ages = [9.2, 8.2, 6.3, 5.3, 4.3, 1.4, 1.3, 1.2, 0.05, 0.03, 0.01]  # days, oldest first
    all_of_them = [
        generation(number, created=AT - AT % DAY + 0.9 * DAY - age * DAY)
        for number, age in enumerate(ages, 1)
    ]
    all_of_them[0] = replace(all_of_them[0], pins=("user",))
    at = AT - AT % DAY + 0.9 * DAY
    assert kept(all_of_them, Policy(), at) == {1, 3, 4, 5, 8, 9, 10, 11}


@given(
    ages=st.lists(st.floats(0, 100 * DAY), min_size=1, max_size=30),
    last=st.integers(0, 5),
    days=st.integers(0, 10),
)
def test_never_fewer_than_two_and_never_without_the_newest(ages: list[float], last: int, days: int) -> None:
    """Whatever somebody sets."""
    ages = sorted(ages, reverse=True)
    some = [generation(number, created=AT - age) for number, age in enumerate(ages, 1)]
    keep = kept(some, Policy(keep_last=last, keep_days=days), AT)
    assert len(ages) in keep
    assert len(keep) >= min(2, len(ages))


def test_a_rescue_is_kept_for_a_month() -> None:
    """Nobody asked for it, so nobody may know yet that it is needed."""
    some = [generation(n, created=AT - 20 * DAY) for n in range(1, 9)]
    some[0] = replace(some[0], quality=Quality.RESCUE)
    assert 1 in kept(some, Policy(), AT)
    assert 1 not in kept([replace(one, created=AT - 40 * DAY) for one in some], Policy(), AT)


def many(count: int) -> dict[str, Any]:
    """So many generations of a month ago, rows and EC2."""
    numbers = range(1, count + 1)
    return {
        "generations": tuple(generation(n, created=AT - 30 * DAY) for n in numbers),
        "images": tuple(image(save=n) for n in numbers),
        "snapshots": tuple(s for n in numbers for s in snapshots(save=n)),
    }


def test_row_16_one_too_many_is_retired_in_the_row_first() -> None:
    """A launch from it holds the row, so one of the two loses and looks again."""
    row = project(Phase.READY, head=4, saves=4)
    step = write(decide(row, **many(4)), "16")
    assert [(one.number, one.state) for one in step.generations] == [(1, GenerationState.DELETING)]
    assert not isinstance(decide(replace(row, rollback=None, head=3, saves=3), **many(3)), Write)


def test_what_is_being_launched_from_is_not_retired() -> None:
    """Nor what will be gone back to."""
    row = project(Phase.LAUNCHING, head=4, saves=4)
    step = decide(row, run=replace(RUN, source=1, token=""), boxes=box("pending"), **many(4))
    assert isinstance(step, Wait)
    row = project(Phase.RUNNING, head=4, saves=4, rollback=1, want=Want.COLD)
    step = decide(row, boxes=box("shutting-down"), volumes=volumes(), **many(4))
    assert isinstance(step, Wait)


def test_row_17_image_then_snapshots_then_the_row() -> None:
    """Each marked on one pass and deleted on a later one."""
    row = project(Phase.READY, head=2, saves=2)
    over = generation(1, state=GenerationState.DELETING)
    head: dict[str, Any] = {"generations": (over, generation(2))}
    step = decide(row, images=(image(), image(save=2)), snapshots=(*snapshots(), *snapshots(save=2)), **head)
    assert isinstance(step, Tag)
    assert step.resources == ("ami-1", "snap-1-xvda", "snap-1-sdf")
    assert list(step.tags) == ["devbox:gc"]
    images = (image(garbage=OLD), image(save=2))
    left = (*(replace(s, garbage=OLD) for s in snapshots()), *snapshots(save=2))
    assert decide(row, images=images, snapshots=left, **head) == DropImage("ami-1")
    assert decide(row, images=image(save=2), snapshots=left, **head) == DropSnapshot("snap-1-xvda")
    step = write(decide(row, images=image(save=2), snapshots=snapshots(save=2), **head), "17")
    assert step.erased == (1,)


def test_an_image_that_two_generations_share_stays_with_the_other() -> None:
    """Going back made a second generation of the same image."""
    row = project(Phase.READY, head=3, saves=2)
    over = generation(1, state=GenerationState.DELETING)
    back = replace(generation(1), number=3, parent=1)
    seen: dict[str, Any] = {
        "generations": (over, generation(2), back),
        "images": (image(garbage=OLD), image(save=2)),
        "snapshots": (*(replace(s, garbage=OLD) for s in snapshots()), *snapshots(save=2)),
    }
    assert write(decide(row, **seen), "17").erased == (1,)
    seen["generations"] = (generation(2), back)
    assert isinstance(decide(row, **seen), Wait)


@pytest.mark.parametrize(
    ("changes", "goes"),
    [
        ({}, True),  # saves 1 to 9 were handed out, 5 is in no generation
        ({"save": 5}, False),
        ({"snap": 5}, False),
        ({"saves": 4}, False),  # not ours to judge: the row may be older than the image
    ],
)
def test_what_is_left_of_a_save_that_came_to_nothing_goes(changes: dict[str, Any], goes: bool) -> None:
    """A late CreateImage makes an image that nobody will adopt."""
    row = project(Phase.READY, **{"saves": 9, "head": 1, **changes})
    head = saved()
    head["images"] = (head["images"], image(save=5, garbage=OLD))
    head["snapshots"] = (*snapshots(), *(replace(s, garbage=OLD) for s in snapshots(save=5)))
    assert (decide(row, **head) == DropImage("ami-5")) is goes
    head["images"] = head["images"][0]
    assert (decide(row, **head) == DropSnapshot("snap-5-xvda")) is goes


def test_a_second_snapshot_of_a_rescue_goes_and_the_first_stays() -> None:
    """A lost answer made two of them."""
    row = project(Phase.READY)
    twin = replace(snapshots()[0], id="snap-twin", garbage=OLD)
    seen = saved()
    seen["snapshots"] = (*seen["snapshots"], twin)
    assert decide(row, **seen) == DropSnapshot("snap-twin")


def test_an_image_without_its_snapshots_named_does_not_let_them_go() -> None:
    """EC2 may not name them for a while after the registration."""
    row = project(Phase.READY, saves=5)
    seen = saved()
    nameless = image("pending", save=5, snapshots={"/dev/xvda": None, "/dev/sdf": None})
    seen["images"] = (seen["images"], nameless)
    seen["snapshots"] = (*seen["snapshots"], *(replace(s, garbage=OLD) for s in snapshots(save=5)))
    assert isinstance(decide(row, **seen), Wait)


# Volumes


def test_rows_14_and_15_volumes_of_a_closed_run_are_marked_and_then_deleted() -> None:
    """In two passes, with the grace between."""
    row = project(Phase.READY)
    step = decide(row, volumes=volumes("available"), **saved())
    assert isinstance(step, Tag)
    assert step.resources == ("vol-root", "vol-data")
    fresh = volumes("available", garbage=AT - 100)
    step = decide(row, volumes=fresh, **saved())
    assert isinstance(step, Wait)
    assert step.seconds == pytest.approx(200)
    assert decide(row, volumes=volumes("available", garbage=OLD), **saved()) == DropVolume("vol-root")


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"closed": 0}, {}),
        ({}, {"images": ()}),
        ({}, {"snapshots": snapshots()[:1]}),
        ({}, {"volumes": volumes(garbage=OLD)}),
        ({}, {"volumes": volumes("creating", garbage=OLD)}),
        ({}, {"volumes": volumes("available", garbage=OLD, token=None)}),
        ({}, {"volumes": volumes("available", garbage=OLD, token="other-1-0")}),
        ({}, {"volumes": volumes("available", garbage=OLD, token="uid-2-0")}),
        ({}, {"volumes": (replace(volumes("available", garbage=OLD)[0], id="vol-detached"),)}),
        ({}, {"generations": generation(run=2)}),
    ],
    ids=[
        "open run",
        "head not there",
        "head not whole",
        "in use",
        "creating",
        "no token",
        "foreign",
        "later run",
        "not in the last generation of its run",
        "no generation of its run",
    ],
)
def test_no_other_volume_is_deleted(changes: dict[str, Any], seen: dict[str, Any]) -> None:
    """It may hold the last copy, or be somebody else's."""
    row = project(Phase.READY, **changes)
    everything = {"volumes": volumes("available", garbage=OLD), **saved(), **seen}
    assert isinstance(decide(row, **everything), Wait)


def test_an_older_generation_does_not_vouch_for_a_volume_that_the_last_one_lacks() -> None:
    """It was detached in between, and what was written in between is on it only."""
    last = generation(2, disks=generation(2).disks[:1])
    row = project(Phase.READY, head=2, saves=2)
    seen = {
        "images": (image(), image(save=2)),
        "snapshots": (*snapshots(), *snapshots(save=2)[:1]),
        "generations": (generation(), last),
    }
    step = decide(row, volumes=volumes("available", garbage=OLD), **seen)
    assert step == DropVolume("vol-root")
    assert isinstance(decide(row, volumes=volumes("available", garbage=OLD)[1:], **seen), Wait)


def test_a_generation_stays_in_the_books_as_long_as_it_is_needed_to_judge_volumes() -> None:
    """Else what it held would be kept for ever."""
    old = generation(1, state=GenerationState.DELETING)
    row = project(Phase.READY, head=2, saves=2, run=2, closed=2)
    seen = {
        "images": image(save=2),
        "snapshots": snapshots(save=2),
        "generations": (old, generation(2, run=2)),
    }
    busy = volumes("deleting")
    assert write(decide(row, volumes=busy, **seen), "17").erased == (1,)
    assert isinstance(decide(row, volumes=volumes("in-use"), **seen), Wait)
    assert decide(row, volumes=volumes("available", garbage=OLD), **seen) == DropVolume("vol-root")


def test_volumes_that_a_person_has_given_up_go() -> None:
    """``abandon`` says so of the run."""
    row = project(Phase.READY, given_up=(1,))
    seen = {**saved(), "generations": generation(run=0)}
    assert decide(row, volumes=volumes("available", garbage=OLD), **seen) == DropVolume("vol-root")


def test_volumes_of_a_launch_that_was_given_up_go_whatever_the_head() -> None:
    """Nobody ever worked on them."""
    row = project(Phase.RUNNING, attempt=1, bound=("uid-1-1",))
    run = replace(RUN, token="uid-1-1")
    own = volumes(token="uid-1-1")
    stray = tuple(replace(v, id=f"{v.id}-0") for v in volumes("available", garbage=OLD))
    step = decide(row, boxes=box(token="uid-1-1"), volumes=(*own, *stray), run=run)
    assert step == DropVolume("vol-root-0")


def test_one_that_can_not_go_does_not_hold_up_the_others() -> None:
    """A snapshot that somebody's image uses is refused again and again."""
    row = project(Phase.READY)
    left = volumes("available", garbage=OLD)
    step = decide(row, volumes=left, put_off=frozenset({"vol-root"}), **saved())
    assert step == DropVolume("vol-data")
    step = decide(row, volumes=left, put_off=frozenset({"vol-root", "vol-data"}), **saved())
    assert isinstance(step, Wait)


def test_a_broken_project_is_left_exactly_as_it_is() -> None:
    """A person decides."""
    row = project(Phase.BROKEN, head=1, saves=9, closed=1)
    stray = box(id="i-stray", token="uid-1-9")
    seen = saved() | {"volumes": volumes("available", garbage=OLD), "boxes": (stray,)}
    assert isinstance(decide(row, **seen), Wait)


# DELETING


def test_an_image_that_somebody_has_disabled_is_deleted_with_its_project() -> None:
    """It can not be launched, and can be deregistered."""
    row = project(Phase.DELETING, want=Want.GONE, instance=None)
    disabled = image(state="disabled", garbage=OLD)
    held = tuple(replace(one, garbage=OLD) for one in snapshots())
    assert decide(row, images=disabled, snapshots=held) == DropImage("ami-1")


def test_delete_begins_in_every_phase_with_the_row() -> None:
    """And there is no way back."""
    for phase in set(Phase) - {Phase.DELETING}:
        step = write(decide(project(phase, want=Want.GONE), boxes=box(), **saved()), "delete")
        assert step.project.phase is Phase.DELETING
        assert [one.state for one in step.generations] == [GenerationState.DELETING]


def test_delete_takes_boxes_volumes_images_snapshots_and_then_the_rows() -> None:
    """Nothing of it is left, and nothing else is touched."""
    row = project(Phase.DELETING, want=Want.GONE)
    over = {"generations": generation(state=GenerationState.DELETING)}
    everything: dict[str, Any] = {"images": image(), "snapshots": snapshots(), **over}
    assert decide(row, boxes=box(), volumes=volumes(), **everything) == Release("i-1")
    gone = box("terminated")
    step = decide(row, boxes=gone, volumes=volumes("available"), **everything)
    assert isinstance(step, Tag)
    assert step.resources == ("vol-root", "vol-data", "ami-1", "snap-1-xvda", "snap-1-sdf")
    left = tuple(replace(one, garbage=AT - 2) for one in snapshots())
    everything |= {"images": image(garbage=AT - 2), "snapshots": left}
    step = decide(row, boxes=gone, volumes=volumes("available", garbage=AT - 2), **everything)
    assert step == DropVolume("vol-root")
    step = decide(row, boxes=gone, **everything)
    assert step == DropImage("ami-1")
    assert decide(row, boxes=gone, snapshots=left, **over) == DropSnapshot("snap-1-xvda")
    step = decide(row, boxes=gone, **over)
    assert isinstance(step, Wait)
    assert isinstance(decide(row, boxes=gone, waited=(step.why, 61.0), **over), Erase)

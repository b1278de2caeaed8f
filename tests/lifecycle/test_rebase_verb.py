"""``rebase`` as the API asks for it: what it checks, what it plans, and what a daemon makes of it."""

from __future__ import annotations

import pytest

from devboxd.control.lifecycle.order import LaunchWish
from devboxd.control.lifecycle.projects import is_at_rest
from devboxd.errors import BadRequest, DevboxError, WrongState
from devboxd.model import tags
from devboxd.model.project import Phase, Project, Want
from devboxd.simulator.ec2 import catalogue
from devboxd.simulator.ec2.shapes import check
from tests.lifecycle.kit import Bench, Ran, bench, start, stop, with_daemon

DONE = '{"done": true, "files": 12, "bytes": 3145728, "kept": "/var/lib/devbox/rebase/replaced-x", "notes": []}\n'
COPYING = '{"done": false, "files": 7, "bytes": 4096}\n'
SCRIPT = "it is what copies the homes"  # a part of rebase.sh


async def refused(one: Bench, onto: str, name: str = "api") -> DevboxError:
    with pytest.raises(DevboxError) as error:
        await one.projects.rebases.rebase(name, onto)
    with pytest.raises(type(error.value)):
        await one.projects.rebases.plan(name, onto)
    return error.value


def is_done(project: Project) -> bool:
    return project.rebase is not None and bool(project.rebase.done)


@pytest.mark.looptime
@with_daemon
async def test_a_project_is_put_onto_another_image(one: Bench) -> None:
    """Waited for until the homes are there; told how far it is; the generation of before is pinned."""
    one.runner.answers[SCRIPT] = Ran(0, COPYING)
    before = await one.launched(base="ubuntu-24.04")
    asked = await one.projects.rebases.rebase("api", "debian-13")
    assert (asked.want, asked.rebase is not None and asked.rebase.source) == (Want.UP, None)
    texts: list[str] = []
    async for status in one.projects.follow("api"):
        texts.append(status.why)
        if "copying the homes: 7 files, 4.0 KiB" in texts:
            one.runner.answers[SCRIPT] = Ran(0, DONE)
    known = await one.projects.get("api")
    row = known.project
    assert is_at_rest(row)
    assert row.spec.base == "debian-13"
    assert row.instance != before.instance
    instance = one.model.tables.instances[row.instance or ""]
    assert instance.image == catalogue.newest("us-east-1", 4, "arm64")
    assert row.rebase is not None
    assert (
        row.rebase.done
        == "12 files, 3.0 MiB; what was in their place is in /var/lib/devbox/rebase/replaced-x"
    )
    assert [(one.number, one.pins, one.base) for one in known.generations] == [(1, ("user",), "ubuntu-24.04")]
    root = next(disk for disk in known.run.disks if disk.device == "/dev/xvda") if known.run else None
    assert root is not None
    assert root.size_gib == 40, "it is as large as before"


@pytest.mark.looptime
@with_daemon
async def test_going_back_is_a_launch_from_the_generation_of_before(one: Bench) -> None:
    one.runner.answers[SCRIPT] = Ran(0, DONE)
    await one.launched(base="ubuntu-24.04")
    await one.projects.rebases.rebase("api", "debian-13")
    await one.until("api", is_done)
    await one.projects.launch("api", LaunchWish(generation=1))
    known = await one.until("api", lambda row: row.head == 3 and row.phase is Phase.RUNNING)
    assert (known.project.spec.base, known.project.rebase) == ("ubuntu-24.04", None)
    assert [one.base for one in known.generations] == ["ubuntu-24.04", "debian-13", "ubuntu-24.04"]
    disks = known.run.disks if known.run is not None else ()
    assert [disk.device for disk in disks] == ["/dev/sda1"]


@pytest.mark.looptime
@with_daemon
async def test_what_fails_on_the_box_is_told_and_the_same_command_goes_on(one: Bench) -> None:
    """Also by the name of an image that is a newer one by now: it goes on with the one that it began with."""
    one.runner.answers[SCRIPT] = Ran(0, '{"problem": "the old root is encrypted"}\n')
    await one.launched()
    await one.projects.rebases.rebase("api", "debian-13")
    known = await one.until("api", lambda row: bool(row.rebase and row.rebase.problem))
    assert "the homes of generation 1 are not copied: the old root is encrypted" in known.project.reason
    assert is_at_rest(known.project)
    other = await refused(one, "al2023")
    assert isinstance(other, WrongState)
    assert other.hint == "devboxctl launch api --from 1 goes back first"
    image = known.project.spec.image
    again = await one.projects.rebases.plan("api", "debian-13")
    assert not again.is_running, "nothing has to go down for it"
    assert [name for name, _ in again.calls][:2] == ["create_volume", "attach_volume"]
    assert dict(again.calls)["attach_volume"]["InstanceId"] == known.project.instance
    one.runner.answers[SCRIPT] = Ran(0, DONE)
    await one.projects.rebases.rebase("api", "debian-13")
    row = (await one.until("api", is_done)).project
    assert (row.spec.image, row.reason) == (image, "")


@pytest.mark.looptime
@with_daemon
async def test_what_can_not_be_is_refused_before_anything_is_done(one: Bench) -> None:
    """Image, architecture, boot mode; and a project that has nothing to keep."""
    await one.launched()
    calls = one.account.calls.copy()
    assert isinstance(await refused(one, "no-such-image"), BadRequest)
    assert isinstance(await refused(one, "ami-00000000"), BadRequest)
    intel = catalogue.newest("us-east-1", 1, "x86_64")
    assert "is for x86_64" in (await refused(one, intel)).message
    changed = one.account.calls - calls
    assert not [name for name in changed if not name.startswith(("Describe", "Get"))]
    assert (await one.projects.get("api")).project.rebase is None


@pytest.mark.looptime
@with_daemon
async def test_the_plan_says_every_call_and_makes_none(one: Bench) -> None:
    """In order; each valid by botocore's model but for ids that are not there yet."""
    row = await one.launched(base="ubuntu-24.04")
    calls = one.account.calls.copy()
    found = await one.projects.rebases.plan("api", "debian-13")
    assert found.is_running
    assert found.project.spec.base == "debian-13"
    names = [name for name, _ in found.calls]
    assert names == [
        "stop_instances",
        "create_image",
        "modify_instance_attribute",
        "terminate_instances",
        "run_instances",
        "create_volume",
        "attach_volume",
        "detach_volume",
        "create_tags",
        "delete_volume",
    ]
    for name, parameters in found.calls:
        check("".join(part.capitalize() for part in name.split("_")), parameters)
    launch = dict(found.calls)["run_instances"]
    assert launch["ImageId"] == catalogue.newest("us-east-1", 4, "arm64")
    changed = one.account.calls - calls
    assert not [name for name in changed if not name.startswith(("Describe", "Get"))]
    assert (await one.projects.get("api")).project == (await one.until("api", Phase.RUNNING)).project
    assert (await one.projects.get("api")).project.instance == row.instance


@pytest.mark.looptime
@with_daemon
async def test_a_saved_project_comes_up_for_it_and_its_plan_has_no_stop(one: Bench) -> None:
    one.runner.answers[SCRIPT] = Ran(0, DONE)
    await one.launched(base="ubuntu-24.04")
    await one.projects.terminate("api")
    await one.until("api", Phase.READY)
    found = await one.projects.rebases.plan("api", "debian-13")
    assert not found.is_running
    assert next(iter(found.calls))[0] == "run_instances"
    await one.projects.rebases.rebase("api", "debian-13")
    assert (await one.until("api", is_done)).project.head == 1


@pytest.mark.looptime
@with_daemon
async def test_no_reboot_while_the_old_root_is_there(one: Bench) -> None:
    one.runner.answers[SCRIPT] = Ran(0, COPYING)
    await one.launched()
    await one.projects.rebases.rebase("api", "debian-13")
    await one.until("api", lambda row: row.is_moving and row.phase is Phase.RUNNING)
    with pytest.raises(WrongState, match="old root"):
        await one.projects.reboot("api")


@pytest.mark.looptime
async def test_another_daemon_goes_on_with_it() -> None:
    """The first one dies while the homes are being copied."""
    first = await start(bench())
    first.runner.answers[SCRIPT] = Ran(0, COPYING)
    await first.launched()
    await first.projects.rebases.rebase("api", "debian-13")
    await first.until("api", lambda row: row.is_moving and row.phase is Phase.RUNNING)
    while not any(tags.REBASE in v.tags and v.attachment for v in first.model.tables.volumes.values()):
        await first.fleet.changed(5.0)
    await stop(first)
    second = await start(bench(first.store, model=first.model, me="laptop2"))
    second.runner.answers[SCRIPT] = Ran(0, DONE)
    await second.until("api", is_done)
    made = [one for one in second.model.history if one.operation == "CreateVolume"]
    assert len(made) == 1
    await stop(second)


@pytest.mark.looptime
@with_daemon
async def test_a_wish_that_comes_before_it_began_takes_its_place(one: Bench) -> None:
    """Stop, or cancel, while it is being saved for it."""
    await one.launched()
    await one.projects.rebases.rebase("api", "debian-13")
    row = await one.projects.cancel("api")
    assert row.rebase is None
    await one.until("api", Phase.RUNNING)
    await one.projects.rebases.rebase("api", "debian-13")
    row = await one.projects.terminate("api")
    assert row.rebase is None
    known = await one.until("api", Phase.READY)
    assert known.project.want is Want.COLD

"""Faults of the EC2 model: what a caller sees, and what is really so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error
from devboxd.simulator.ec2.faults import CONSOLE, KINDS, Fault
from devboxd.simulator.ec2.model import Ec2Model
from tests.simulator.ec2.kit import START, Account


@pytest.fixture
def ec2() -> Account:
    return Account()


def test_a_lost_answer_is_an_effect_that_the_caller_never_hears_of(ec2: Account) -> None:
    """The most dangerous moment of a save: it is done and looks as if it was not."""
    box = ec2.launch()
    ec2.model.faults.add(Fault("lose-answer", operation="StopInstances", times=1))
    with pytest.raises(AnswerLost) as lost:
        ec2.call("StopInstances", InstanceIds=[box])
    assert lost.value.took_effect
    assert ec2.state(box) == "stopping"
    ec2.call("StopInstances", InstanceIds=[box])


def test_a_lost_request_has_no_effect(ec2: Account) -> None:
    box = ec2.launch()
    ec2.model.faults.add(Fault("lose-request", operation="Stop*", times=1))
    with pytest.raises(AnswerLost) as lost:
        ec2.call("StopInstances", InstanceIds=[box])
    assert not lost.value.took_effect
    assert ec2.state(box) == "running"


def test_a_server_error_may_come_after_the_effect(ec2: Account) -> None:
    box = ec2.launch()
    ec2.model.faults.add(Fault("refuse-after", operation="StopInstances", code="InternalError"))
    with pytest.raises(Ec2Error) as error:
        ec2.call("StopInstances", InstanceIds=[box])
    assert (error.value.code, error.value.http_status) == ("InternalError", 500)
    assert ec2.state(box) == "stopping"


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("RequestLimitExceeded", 503),
        ("InternalError", 500),
        ("UnauthorizedOperation", 403),
        ("Whatever", 400),
    ],
)
def test_a_refused_call_has_no_effect_and_its_status_fits(ec2: Account, code: str, status: int) -> None:
    ec2.model.faults.add(Fault("refuse", operation="RunInstances", code=code, times=1))
    assert ec2.refused_launch(code) == status
    assert not ec2.model.tables.instances
    ec2.pending()


def test_a_stale_describe_shows_the_past_for_a_while(ec2: Account) -> None:
    """A box that is not in the answer may well be there: absence is no evidence."""
    ec2.model.faults.add(Fault("stale", operation="Describe*", seconds=5, depth=2))
    box = ec2.pending()
    answers = {len(ec2.call("DescribeInstances")["Reservations"]) for _ in range(20)}
    assert answers == {0}, "every describe is stale, and the only past is without the box"
    ec2.wait(6)
    assert len(ec2.call("DescribeInstances")["Reservations"]) == 1
    ec2.until(lambda: ec2.state(box) == "running")
    shown = ec2.call("DescribeInstances")["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert shown == "pending"


def test_what_was_just_made_may_not_be_found_yet(ec2: Account) -> None:
    box = ec2.pending()
    ec2.model.faults.add(Fault("not-visible", seconds=3))
    tags = [{"Key": "a", "Value": "1"}]
    assert ec2.refused("CreateTags", Resources=[box], Tags=tags) == "InvalidInstanceID.NotFound"
    ec2.wait(4)
    ec2.call("CreateTags", Resources=[box], Tags=tags)


def test_the_mapping_of_a_new_image_may_lack_its_snapshots(ec2: Account) -> None:
    """Available, and still without snapshot ids: nothing may be verified or deleted by them."""
    box = ec2.stopped()
    ec2.model.faults.add(Fault("mapping-gap", seconds=30))
    made = ec2.image(box)

    def has_snapshots() -> bool:
        shown = ec2.call("DescribeImages", ImageIds=[made])["Images"][0]
        return any("SnapshotId" in one["Ebs"] for one in shown["BlockDeviceMappings"])

    assert not has_snapshots()
    ec2.wait(31)
    assert has_snapshots()


def test_starting_a_box_may_spoil_the_image_that_is_being_made_of_it(ec2: Account) -> None:
    """Nobody could say what the real one does; so it must not matter."""
    box = ec2.stopped()
    ec2.model.faults.add(Fault("start-spoils-image"))
    made = ec2.call("CreateImage", InstanceId=box, Name="devbox/x", NoReboot=True)["ImageId"]
    ec2.call("StartInstances", InstanceIds=[box])
    assert ec2.model.tables.images[made].state == "failed"


def test_the_name_of_a_deregistered_image_may_stay_taken(ec2: Account) -> None:
    """Why every attempt at a save has a name of its own."""
    box = ec2.stopped()
    made = ec2.image(box)
    ec2.model.region.delays = replace(ec2.model.region.delays, deregistered_shown=(100.0, 100.0))
    ec2.model.faults.add(Fault("name-lingers", seconds=60))
    ec2.call("DeregisterImage", ImageId=made)
    again = {"InstanceId": box, "Name": "devbox/demo/1"}
    assert ec2.refused("CreateImage", **again) == "InvalidAMIName.Duplicate"
    ec2.wait(61)
    ec2.call("CreateImage", **again)


def test_the_console_is_spared_and_callers_can_be_singled_out(ec2: Account) -> None:
    ec2.model.faults.add(Fault("refuse", caller="laptop-2", code="Blocked"))
    ec2.call("DescribeRegions")
    with pytest.raises(Ec2Error):
        ec2.model.call("DescribeRegions", {}, now=ec2.now, caller="laptop-2")
    ec2.model.faults.add(Fault("refuse", code="Blocked"))
    ec2.model.call("DescribeRegions", {}, now=ec2.now, caller=CONSOLE)
    assert ec2.refused("DescribeRegions") == "Blocked"


def test_a_dead_host_cuts_the_power(ec2: Account) -> None:
    box = ec2.launch()
    synced = ec2.model.work(box, now=ec2.now)
    ec2.model.work(box, now=ec2.now, is_synced=False)
    ec2.model.lose_host(box, now=ec2.now)
    ec2.until(lambda: ec2.state(box) == "stopped")
    assert {one.content for one in ec2.volumes(box).values()} == {synced}


def test_an_unknown_kind_is_named() -> None:
    with pytest.raises(ValueError, match="no EC2 fault is named 'earthquake'; there are: refuse, "):
        Account().model.faults.add(Fault("earthquake"))


def test_every_kind_is_drawn_somewhere() -> None:
    """A documented fault that nothing draws would be a test that cannot fail."""
    model = Ec2Model(now=START, is_throttled=False)
    for kind in KINDS:
        model.faults.add(Fault(kind, share=0.3, seconds=20))
    # A deregistered image must still be known when its name is wanted again.
    model.region.delays = replace(model.region.delays, deregistered_shown=(100.0, 100.0))
    ec2 = Account(model)
    for number in range(400):
        steps: list[tuple[str, dict[str, Any]]] = []
        for one in list(model.tables.instances.values())[-4:]:
            steps += [(call, {"InstanceIds": [one.id]}) for call in ("StartInstances", "StopInstances")]
            steps.append(
                ("CreateImage", {"InstanceId": one.id, "Name": f"image {number % 3}", "NoReboot": True})
            )
        ours = [one.id for one in model.tables.images.values() if one.owner == model.region.account]
        steps += [("DeregisterImage", {"ImageId": one}) for one in ours[:: 1 + number % 40]]
        steps += [("DeleteSnapshot", {"SnapshotId": one.id}) for one in ec2.snapshots()[-2:]]
        steps.append(("DescribeInstances", {}))
        for operation, params in steps:
            try:
                ec2.call(operation, **params)
            except (Ec2Error, AnswerLost):
                pass  # some are meant to be
        try:
            ec2.pending()
        except (Ec2Error, AnswerLost):
            pass
        ec2.wait(40)
        if set(KINDS) <= set(model.faults.counts):
            return
    raise AssertionError(f"never drawn: {sorted(set(KINDS) - set(model.faults.counts))}")


# -- limits ------------------------------------------------------------------------------------------


def test_launches_are_throttled_after_a_burst_and_the_bucket_refills() -> None:
    ec2 = Account(Ec2Model(now=START))
    for _ in range(5):
        ec2.pending()
    assert ec2.refused_launch("RequestLimitExceeded") == 503
    ec2.wait(1)
    ec2.pending()
    ec2.pending()
    ec2.refused_launch("RequestLimitExceeded")
    ec2.call("DescribeRegions")


def test_describes_without_filter_or_paging_have_half_the_budget() -> None:
    """Why one page over all boxes is asked for, and not each box by itself."""
    ec2 = Account(Ec2Model(now=START))
    for _ in range(50):
        ec2.call("DescribeInstances")
    assert ec2.refused("DescribeInstances") == "RequestLimitExceeded"
    for _ in range(100):
        ec2.call("DescribeInstances", MaxResults=100)
    assert ec2.refused("DescribeInstances", MaxResults=100) == "RequestLimitExceeded"


# -- the same again ----------------------------------------------------------------------------------


def story(model: Ec2Model) -> list[str]:
    """Two cycles of a box, as a list of what was really so after each step."""
    ec2 = Account(model)
    for number in range(2):
        box = ec2.stopped()
        ec2.image(box, f"devbox/{number}")
        ec2.terminate(box)
    tables = model.tables
    return [
        repr(one) for table in (tables.instances, tables.volumes, tables.snapshots) for one in table.values()
    ]


def test_the_same_seed_tells_the_same_story() -> None:
    """A failing seed that cannot be replayed is worth nothing."""
    stories = [story(Ec2Model(now=START, seed=seed)) for seed in (7, 7, 8)]
    assert stories[0] == stories[1] != stories[2]


def test_a_fork_goes_its_own_way_from_the_same_point() -> None:
    """Trying every crash point costs a fork each, not a replay each."""
    ec2 = Account()
    box = ec2.launch()
    ec2.call("StopInstances", InstanceIds=[box])
    before = ec2.model.fork()
    ec2.until(lambda: ec2.state(box) == "stopped")
    assert before.tables.instances[box].state == "stopping"
    twin = Account(before, ec2.now)
    twin.wait(0)
    assert twin.model.tables.instances == ec2.model.tables.instances
    assert twin.launch() == ec2.launch(), "the same chance, too"
    twin.model.faults.add(Fault("refuse"))
    ec2.call("DescribeRegions")


def test_the_history_names_callers_and_outcomes(ec2: Account) -> None:
    box = ec2.launch()
    ec2.refused("StartInstances", InstanceIds=["i-0123456789abcdef0"])
    ec2.model.call("TerminateInstances", {"InstanceIds": [box]}, now=ec2.now, caller=CONSOLE)
    assert [(one.caller, one.operation, one.error) for one in ec2.model.history] == [
        ("us", "RunInstances", None),
        ("us", "StartInstances", "InvalidInstanceID.NotFound"),
        (CONSOLE, "TerminateInstances", None),
    ]


def test_a_dry_run_says_so_and_does_nothing(ec2: Account) -> None:
    assert ec2.refused_launch("DryRunOperation", DryRun=True) == 412
    assert not ec2.model.tables.instances


def test_what_is_not_imitated_is_refused_and_not_ignored(ec2: Account) -> None:
    """A parameter that is silently dropped makes a test pass that the account will fail."""
    assert ec2.refused("AllocateHosts") == "InvalidAction"
    assert ec2.refused("NoSuchCall") == "InvalidAction"
    assert ec2.refused("DescribeInstances", Colour="red") == "InvalidParameterValue"
    assert ec2.refused("DescribeImages", ExecutableUsers=["self"]) == "UnsupportedOperation"

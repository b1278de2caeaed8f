"""The EC2 model by itself, on virtual time: states, errors, filters, paging, connection."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from devboxd.simulator.clock import ManualClock
from devboxd.simulator.ec2.boxes import Change, Ec2, Ec2Error, State
from devboxd.simulator.options import Options


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def ec2(clock: ManualClock) -> Ec2:
    return Ec2(clock, replace(Options(), pending=4, stopping=4, agent_boot=5, agent_flap=2), random.Random(1))


def test_a_stopped_box_starts_through_pending_and_connects_late_with_a_flap(
    ec2: Ec2, clock: ManualClock
) -> None:
    """TargetNotConnected comes back shortly after the first success: seen after every real start."""
    box = ec2.add("api", state=State.STOPPED)
    launched = box.launched
    assert ec2.start([box.id]) == [Change(box.id, State.STOPPED, State.PENDING)]
    assert box.launched > launched
    seen = []
    for _ in range(15):
        seen.append((ec2.get(box.id).state.label, ec2.is_connected(box.id)))
        clock.advance(1)
    assert [state for state, _ in seen] == ["pending"] * 4 + ["running"] * 11
    assert [connected for _, connected in seen] == [False] * 9 + [True] * 2 + [False] * 2 + [True] * 2


def test_stopping_takes_time_and_ends_all(ec2: Ec2, clock: ManualClock) -> None:
    box = ec2.add("api")
    assert ec2.is_connected(box.id)
    assert ec2.stop([box.id]) == [Change(box.id, State.RUNNING, State.STOPPING, ends_all=True)]
    assert not ec2.is_connected(box.id)
    with pytest.raises(Ec2Error) as error:
        ec2.start([box.id])
    assert error.value.code == "IncorrectInstanceState"
    clock.advance(4)
    assert ec2.get(box.id).state is State.STOPPED
    assert ec2.stop([box.id]) == [Change(box.id, State.STOPPED, State.STOPPED)]


def test_termination_is_idempotent_protected_and_visible_for_an_hour(ec2: Ec2, clock: ManualClock) -> None:
    box, other = ec2.add("api"), ec2.add("web")
    other.protected = True
    with pytest.raises(Ec2Error) as error:
        ec2.terminate([box.id, other.id])
    assert error.value.code == "OperationNotPermitted"
    assert ec2.get(box.id).state is State.RUNNING
    assert ec2.terminate([box.id])[0].current is State.SHUTTING_DOWN
    assert not ec2.terminate([box.id])[0].ends_all
    clock.advance(4)
    assert ec2.terminate([box.id]) == [Change(box.id, State.TERMINATED, State.TERMINATED)]
    for call in (ec2.start, ec2.stop, ec2.reboot):
        with pytest.raises(Ec2Error) as error:
            call([box.id])
        assert error.value.code == "IncorrectInstanceState"
    assert box in ec2.all()
    clock.advance(3600)
    assert box not in ec2.all()


def test_a_reboot_keeps_it_running_with_the_agent_away(ec2: Ec2, clock: ManualClock) -> None:
    box = ec2.add("api")
    assert ec2.reboot([box.id])[0].ends_all
    assert ec2.get(box.id).state is State.RUNNING
    assert not ec2.is_connected(box.id)
    clock.advance(60)
    assert ec2.is_connected(box.id)


@pytest.mark.parametrize(
    ("ids", "code"),
    [
        (["nonsense"], "InvalidInstanceID.Malformed"),
        (["i-0123456789abcdef0"], "InvalidInstanceID.NotFound"),
        ([], "MissingParameter"),
    ],
)
def test_ids_are_checked(ec2: Ec2, ids: list[str], code: str) -> None:
    ec2.add("api")
    with pytest.raises(Ec2Error) as error:
        ec2.stop(ids)
    assert error.value.code == code


def test_one_bad_id_spoils_the_whole_call(ec2: Ec2) -> None:
    box = ec2.add("api")
    with pytest.raises(Ec2Error):
        ec2.stop([box.id, "i-0123456789abcdef0"])
    assert ec2.get(box.id).state is State.RUNNING


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        ("tag:Name", ["api"], ["api"]),
        ("tag:Name", ["a*", "w?b"], ["api", "web"]),
        ("tag-key", ["owner"], ["web"]),
        ("instance-state-name", ["stopped"], ["data"]),
        ("instance-state-name", ["running", "pending"], ["api", "web"]),
        ("tag:none", ["x"], []),
    ],
)
def test_filters(ec2: Ec2, name: str, values: list[str], found: list[str]) -> None:
    boxes = [ec2.add("api"), ec2.add("web"), ec2.add("data", state=State.STOPPED)]
    ec2.tag([boxes[1].id], {"owner": "me"})
    assert [box.tags["Name"] for box in ec2.describe(filters=[(name, values)]).instances] == found


def test_an_unknown_filter_is_an_error(ec2: Ec2) -> None:
    ec2.add("api")
    with pytest.raises(Ec2Error) as error:
        ec2.describe(filters=[("colour", ["red"])])
    assert error.value.code == "InvalidParameterValue"


def test_pages_and_their_tokens(ec2: Ec2) -> None:
    names = [ec2.add(f"box{n}").id for n in range(12)]
    found: list[str] = []
    token = None
    for _ in range(3):
        page = ec2.describe(max_results=5, next_token=token)
        found += [box.id for box in page.instances]
        token = page.next_token
    assert (found, token) == (names, None)
    with pytest.raises(Ec2Error) as error:
        ec2.describe(next_token="made up")
    assert error.value.code == "InvalidNextToken"
    with pytest.raises(Ec2Error) as error:
        ec2.describe(names[:1], max_results=5)
    assert error.value.code == "InvalidParameterCombination"


def test_tags_come_and_go(ec2: Ec2) -> None:
    box = ec2.add("api")
    ec2.tag([box.id], {"a": "1", "b": "2"})
    ec2.untag([box.id], ["a", "never"])
    assert box.tags == {"Name": "api", "b": "2"}
    with pytest.raises(Ec2Error):
        ec2.tag([box.id], {"aws:mine": "no"})

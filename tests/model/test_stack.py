"""Deploying the account's stack: a table of what is seen and what follows."""

from __future__ import annotations

import ipaddress

import pytest

from devboxd.errors import BadRequest
from devboxd.model.stack import (
    ChangeSet,
    Discard,
    Done,
    Execute,
    Failed,
    Prepare,
    Remove,
    StackSeen,
    Step,
    Wait,
    kept,
    missing_permission,
    network,
    next_step,
)

MADE = ChangeSet("CREATE_COMPLETE", "AVAILABLE")
SAME = ChangeSet(
    "FAILED", reason="The submitted information didn't contain changes. Submit different information."
)
BAD = ChangeSet("FAILED", reason="Template error: unresolved dependency")


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        (StackSeen(None), Prepare(creates=True)),
        (StackSeen("REVIEW_IN_PROGRESS"), Prepare(creates=True)),
        (StackSeen("DELETE_COMPLETE"), Prepare(creates=True)),
        (StackSeen("CREATE_COMPLETE"), Prepare(creates=False)),
        (StackSeen("UPDATE_ROLLBACK_COMPLETE"), Prepare(creates=False)),
        (StackSeen("REVIEW_IN_PROGRESS", change_set=ChangeSet("CREATE_IN_PROGRESS")), Wait),
        (StackSeen("REVIEW_IN_PROGRESS", change_set=MADE), Execute()),
        (StackSeen("UPDATE_COMPLETE", change_set=MADE), Execute()),
        (StackSeen("UPDATE_COMPLETE", change_set=ChangeSet("CREATE_COMPLETE", "OBSOLETE")), Discard()),
        (StackSeen("UPDATE_COMPLETE", change_set=SAME), Done(changed=False)),
        (StackSeen("CREATE_COMPLETE", change_set=BAD), Failed(BAD.reason)),
        (StackSeen("UPDATE_IN_PROGRESS"), Wait),
        (StackSeen("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", executed=True), Wait),
        (StackSeen("REVIEW_IN_PROGRESS", executed=True), Wait),
        (StackSeen("CREATE_COMPLETE", executed=True), Done(changed=True)),
        (StackSeen("UPDATE_COMPLETE", executed=True), Done(changed=True)),
        (StackSeen("ROLLBACK_COMPLETE", "no role for you", executed=True), Failed("no role for you")),
        (StackSeen("UPDATE_ROLLBACK_COMPLETE", executed=True), Failed("the stack ended at UPDATE_ROLLBACK_COMPLETE")),
        (StackSeen("ROLLBACK_COMPLETE"), Remove()),
        (StackSeen("CREATE_FAILED"), Remove()),
    ],
)  # fmt: skip
def test_what_follows(seen: StackSeen, step: Step | type[Wait]) -> None:
    """An update done by somebody else, a first try that failed, a crash in the middle: each goes on from there."""
    found = next_step(seen)
    assert (type(found) if isinstance(step, type) else found) == step


@pytest.mark.parametrize("status", [None, "CREATE_COMPLETE", "ROLLBACK_COMPLETE"])
def test_a_dry_run_changes_nothing(status: str | None) -> None:
    """It makes its change set and takes it away; it removes no stack and carries nothing out."""
    for change_set in (None, MADE, SAME, BAD):
        step = next_step(StackSeen(status, change_set=change_set), dry_run=True)
        assert not isinstance(step, Execute | Remove)


def test_a_refusal_names_the_permission() -> None:
    """ "CREATE_FAILED" sends people through forty events in the console."""
    reason = (
        "Resource handler returned message: User: arn:aws:iam::1:user/ann is not authorized to perform: "
        "iam:CreateRole on resource: arn:aws:iam::1:role/devbox-box because no identity-based policy allows it"
    )
    assert missing_permission(reason) == ("iam:CreateRole", "arn:aws:iam::1:role/devbox-box")
    assert missing_permission("You are not authorized to perform: ec2:CreateVpc") == ("ec2:CreateVpc", None)
    assert missing_permission("The CIDR is invalid") is None


@pytest.mark.parametrize(
    ("cidr", "zones"), [("10.219.0.0/16", 3), ("172.20.0.0/20", 6), ("192.168.7.0/24", 9)]
)
def test_a_network_is_cut_into_subnets_that_fit(cidr: str, zones: int) -> None:
    """AWS takes subnets down to /28."""
    found = network(cidr, [f"z{n}" for n in range(zones)])
    nets = [
        ipaddress.IPv4Network(one)
        for key in ("SubnetCidrs", "PrivateSubnetCidrs")
        for one in found[key].split(",")
    ]
    assert len(nets) == 12
    assert all(one.subnet_of(ipaddress.IPv4Network(cidr)) and one.prefixlen <= 28 for one in nets)
    assert not any(a.overlaps(b) for i, a in enumerate(nets) for b in nets[:i])
    assert found["ZoneNames"].split(",") == [f"z{n}" for n in range(min(zones, 6))]
    assert int(found["ZoneCount"]) == min(zones, 6)


@pytest.mark.parametrize(
    "cidr", ["10.0.0.0/8", "10.0.0.0/28", "10.0.0.1/16", "fd00::/48", "", "ten", "10.219.0.0"]
)
def test_a_network_that_can_not_be_is_refused(cidr: str) -> None:
    with pytest.raises(BadRequest):
        network(cidr, ["z"])


def test_an_update_keeps_what_it_does_not_name() -> None:
    """An update without parameters once put a network back to its default, and every box out of reach."""
    known = ["Prefix", "VpcCidr", "New"]
    assert kept(known, {"Prefix": "x", "VpcCidr": "10.0.0.0/16", "Gone": "1"}, {"Prefix": "x"}) == {
        "Prefix": "x",
        "VpcCidr": None,
    }
    assert kept(known, {}, {"New": "1"}) == {"New": "1"}
    with pytest.raises(BadRequest, match="no parameter Old"):
        kept(known, {}, {"Old": "1"})

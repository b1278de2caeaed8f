"""Deploying the account's stack: against a CloudFormation that fails, is raced, and dies under us."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from devboxd.aws.stack import StackEvent
from devboxd.control.base.time import Time
from devboxd.control.lifecycle.account import Progress, SetUp
from devboxd.errors import BadRequest, Denied, DevboxError, WrongState
from devboxd.model.stack import Change, ChangeSet, StackSeen
from tests.control.fakes import LoopClock

pytestmark = pytest.mark.looptime

ROLE = Change("Add", "BoxRole", "AWS::IAM::Role")


@dataclass
class FakeStack:
    """A stack that takes two looks for everything. ``fails``: the reason of the first failing event, if any."""

    name: str = "devbox"
    status: str | None = None
    values: dict[str, str] = field(default_factory=dict)
    changes: tuple[Change, ...] = (ROLE,)
    fails: str = ""
    obsolete: int = 0  # so many change sets are overtaken by somebody else's deployment
    sets: dict[str, int] = field(default_factory=dict)  # by name: looks until it is ready
    calls: list[str] = field(default_factory=list)
    under_way: int = 0
    given: Mapping[str, str | None] = field(default_factory=dict)
    happened: list[StackEvent] = field(default_factory=list)

    def event(self, resource: str, status: str, reason: str = "") -> None:
        number = len(self.happened)
        clock = LoopClock().wall()
        self.happened.append(
            StackEvent(str(number), clock + number, resource, "AWS::IAM::Role", status, reason)
        )

    async def look(self, change_set: str, *, executed: bool = False) -> StackSeen:
        if self.under_way:
            self.under_way -= 1
            if not self.under_way:
                creating = self.status == "CREATE_IN_PROGRESS"
                if self.fails:
                    self.event("BoxRole", "CREATE_FAILED", self.fails)
                    self.event("Table", "CREATE_FAILED", "Resource creation cancelled")
                    self.status = "ROLLBACK_COMPLETE" if creating else "UPDATE_ROLLBACK_COMPLETE"
                else:
                    self.event("BoxRole", "CREATE_COMPLETE")
                    self.status = "CREATE_COMPLETE" if creating else "UPDATE_COMPLETE"
        found = None
        if change_set in self.sets and not executed:
            left = self.sets[change_set] = self.sets[change_set] - 1
            if left > 0:
                found = ChangeSet("CREATE_IN_PROGRESS")
            elif not self.changes:
                found = ChangeSet("FAILED", reason="The submitted information didn't contain changes.")
            elif self.obsolete:
                self.obsolete -= 1
                found = ChangeSet("CREATE_COMPLETE", "OBSOLETE", changes=self.changes)
            else:
                found = ChangeSet("CREATE_COMPLETE", "AVAILABLE", changes=self.changes)
        return StackSeen(self.status, "", found, executed)

    async def parameters(self) -> dict[str, str]:
        return self.values

    async def outputs(self) -> dict[str, str]:
        return {}

    async def prepare(
        self,
        change_set: str,
        template: str,
        parameters: Mapping[str, str | None],
        *,
        creates: bool,
        tags: Mapping[str, str],
    ) -> None:
        self.calls.append("prepare")
        assert creates == (self.status in (None, "REVIEW_IN_PROGRESS"))
        self.given = parameters
        self.status = self.status or "REVIEW_IN_PROGRESS"
        self.sets[change_set] = 2

    async def execute(self, change_set: str) -> None:
        self.calls.append("execute")
        del self.sets[change_set]
        creating = self.status == "REVIEW_IN_PROGRESS"
        self.status = "CREATE_IN_PROGRESS" if creating else "UPDATE_IN_PROGRESS"
        self.under_way = 3

    async def discard(self, change_set: str) -> None:
        self.calls.append("discard")
        del self.sets[change_set]

    async def remove(self) -> None:
        self.calls.append("remove")
        self.status = None

    async def events(self, since: float) -> Sequence[StackEvent]:
        return [one for one in self.happened if one.time > since]


async def deploy(stack: FakeStack, *, dry_run: bool = False, **asked: str) -> list[Progress]:
    made = SetUp(
        stack,
        Time(LoopClock()),
        template="Resources: {}",
        known=["Prefix", "VpcCidr"],
        asked=asked,
        tags={},
        dry_run=dry_run,
    )
    return [line async for line in made.run()]


async def test_a_new_stack_is_deployed_and_told_step_by_step() -> None:
    """Three minutes without a word look like a hang."""
    stack = FakeStack()
    lines = await deploy(stack, Prefix="devbox")
    assert stack.calls == ["prepare", "execute"]
    assert [line.resource for line in lines if line.state == "change"] == ["BoxRole"]
    assert ("step", "BoxRole", "CREATE_COMPLETE") in [(x.state, x.resource, x.action) for x in lines]
    assert (lines[-1].state, lines[-1].text) == ("done", "deployed")


async def test_an_update_keeps_the_parameters_it_does_not_name() -> None:
    stack = FakeStack(status="CREATE_COMPLETE", values={"Prefix": "x", "VpcCidr": "10.1.0.0/16"})
    await deploy(stack, Prefix="x")
    assert stack.given == {"Prefix": "x", "VpcCidr": None}
    assert stack.status == "UPDATE_COMPLETE"


async def test_an_update_that_changes_nothing_says_so_and_leaves_nothing() -> None:
    stack = FakeStack(status="CREATE_COMPLETE", changes=())
    lines = await deploy(stack)
    assert lines[-1].text == "nothing had to change"
    assert stack.calls == ["prepare", "discard"]


@pytest.mark.parametrize("status", [None, "CREATE_COMPLETE"])
async def test_a_dry_run_lists_the_changes_and_leaves_nothing(status: str | None) -> None:
    """Not even the empty stack that a change set for a new one makes."""
    stack = FakeStack(status=status)
    lines = await deploy(stack, dry_run=True)
    assert "execute" not in stack.calls
    assert not stack.sets
    assert stack.status == status
    assert [line.resource for line in lines if line.state == "change"] == ["BoxRole"]


async def test_a_missing_permission_is_named() -> None:
    """The first failure is the cause; "cancelled" is what it took along."""
    stack = FakeStack(
        fails="User: x is not authorized to perform: iam:CreateRole on resource: arn:aws:iam::1:role/y"
    )
    with pytest.raises(Denied, match="iam:CreateRole on arn:aws:iam::1:role/y"):
        await deploy(stack)


async def test_what_failed_before_is_removed_and_tried_again() -> None:
    """CloudFormation lets nothing be done with a stack that never came to be."""
    stack = FakeStack(fails="a role called so exists")
    with pytest.raises(WrongState, match="BoxRole: a role called so exists"):
        await deploy(stack)
    assert stack.status == "ROLLBACK_COMPLETE"
    stack.fails = ""
    await deploy(stack)
    assert stack.status == "CREATE_COMPLETE"
    assert stack.calls.count("remove") == 1


async def test_a_second_deployer_is_waited_for() -> None:
    stack = FakeStack(status="CREATE_COMPLETE", obsolete=2)
    await deploy(stack)
    assert stack.calls == ["prepare", "discard", "prepare", "discard", "prepare", "execute"]
    stack = FakeStack(status="CREATE_COMPLETE", obsolete=99)
    with pytest.raises(WrongState, match="somebody else keeps deploying"):
        await deploy(stack)


@pytest.mark.parametrize("dies_at", range(5))
async def test_killed_anywhere_the_same_call_takes_up_again(dies_at: int) -> None:
    """The laptop closes in the middle of three minutes."""
    stack = FakeStack()
    made = SetUp(stack, Time(LoopClock()), template="T", known=["Prefix"], asked={}, tags={})
    lines = made.run()
    for _ in range(dies_at):
        if await anext(lines, None) is None:
            break
    await lines.aclose()  # type: ignore[attr-defined]  # an async generator, as it is written
    again = SetUp(stack, Time(LoopClock()), template="T", known=["Prefix"], asked={}, tags={})
    last = [line async for line in again.run()][-1]
    assert last.state == "done"
    assert stack.status in ("CREATE_COMPLETE", "UPDATE_COMPLETE")


async def test_an_unknown_parameter_is_refused_before_anything_is_made() -> None:
    stack = FakeStack()
    with pytest.raises(BadRequest, match="no parameter Colour"):
        await deploy(stack, Colour="red")
    assert stack.calls == []


async def test_a_template_that_can_not_be_says_why() -> None:
    stack = FakeStack(status="CREATE_COMPLETE")

    async def refused(change_set: str, *, executed: bool = False) -> StackSeen:
        found = (
            ChangeSet("FAILED", reason="Template format error: unsupported structure")
            if stack.calls
            else None
        )
        return StackSeen(stack.status, "", found)

    stack.look = refused  # type: ignore[method-assign]  # this one look is the test
    with pytest.raises(DevboxError, match="unsupported structure"):
        await deploy(stack)

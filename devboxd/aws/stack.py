"""CloudFormation, as far as one stack needs it: look, prepare a change set, carry it out, read its events.

Source: the service model of ``cloudformation``. A stack that is not there is a ValidationError there, with a text;
DescribeStacks is the only call for which that is an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from devboxd.aws.clients import Caller
from devboxd.errors import BadRequest, Missing
from devboxd.model.stack import Change, ChangeSet, StackSeen

CAPABILITIES: Final = ["CAPABILITY_NAMED_IAM"]  # the template gives roles names
_NO_STACK: Final = "does not exist"
_FAILED: Final = ("_FAILED",)


class StackEvent(msgspec.Struct, frozen=True):
    """One event of a stack. ``time`` is Unix seconds."""

    id: str
    time: float
    resource: str
    kind: str
    status: str
    reason: str = ""

    @property
    def failed(self) -> bool:
        """Say whether this is why a deployment fails."""
        return self.status.endswith(_FAILED)


@dataclass(frozen=True, slots=True)
class StackApi:
    """One stack of one account and region. Errors as ``Caller.call``."""

    caller: Caller
    name: str

    async def look(self, change_set: str, *, executed: bool = False) -> StackSeen:
        """What is there: the stack, and the change set of this name."""
        stack = await self._stack()
        if stack is None:
            return StackSeen(None, executed=executed)
        found = None if executed else await self._change_set(change_set)
        return StackSeen(str(stack["StackStatus"]), str(stack.get("StackStatusReason", "")), found, executed)

    async def parameters(self) -> dict[str, str]:
        """What the stack was deployed with; empty where there is none."""
        stack = await self._stack() or {}
        found = stack.get("Parameters", [])
        return {str(one["ParameterKey"]): str(one.get("ParameterValue", "")) for one in found}

    async def outputs(self) -> dict[str, str]:
        """What the stack puts out; empty where there is none."""
        stack = await self._stack() or {}
        return {str(one["OutputKey"]): str(one["OutputValue"]) for one in stack.get("Outputs", [])}

    async def prepare(
        self,
        change_set: str,
        template: str,
        parameters: Mapping[str, str | None],
        *,
        creates: bool,
        tags: Mapping[str, str],
    ) -> None:
        """Make a change set. A parameter of None keeps the value that the stack has."""
        await self.caller.call(
            "cloudformation",
            "create_change_set",
            StackName=self.name,
            ChangeSetName=change_set,
            ChangeSetType="CREATE" if creates else "UPDATE",
            TemplateBody=template,
            Capabilities=CAPABILITIES,
            Parameters=[_parameter(name, value) for name, value in parameters.items()],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )

    async def execute(self, change_set: str) -> None:
        """Carry the change set out. Repeating it while it is under way is refused by AWS and harmless."""
        await self.caller.call(
            "cloudformation", "execute_change_set", StackName=self.name, ChangeSetName=change_set
        )

    async def discard(self, change_set: str) -> None:
        """Take the change set away."""
        await self.caller.call(
            "cloudformation", "delete_change_set", StackName=self.name, ChangeSetName=change_set
        )

    async def remove(self) -> None:
        """Delete the stack. What it retains stays."""
        await self.caller.call("cloudformation", "delete_stack", StackName=self.name)

    async def events(self, since: float) -> list[StackEvent]:
        """Events after a Unix time, oldest first."""
        pages = await self.caller.pages(
            "cloudformation", "describe_stack_events", "StackEvents", limit=1000, StackName=self.name
        )
        found = [_event(one) for one in pages]
        return sorted((one for one in found if one.time > since), key=lambda one: one.time)

    async def zones(self) -> Sequence[str]:
        """Names of the zones that every account of the region has."""
        answer = await self.caller.call(
            "ec2",
            "describe_availability_zones",
            Filters=[
                {"Name": "opt-in-status", "Values": ["opt-in-not-required"]},
                {"Name": "zone-type", "Values": ["availability-zone"]},
            ],
        )
        return sorted(str(zone["ZoneName"]) for zone in answer.get("AvailabilityZones", []))

    async def _stack(self) -> dict[str, Any] | None:
        try:
            answer = await self.caller.call("cloudformation", "describe_stacks", StackName=self.name)
        except BadRequest as error:  # ValidationError: only its text says which
            if _NO_STACK in error.message:
                return None
            raise
        stacks: list[dict[str, Any]] = answer.get("Stacks", [])
        return stacks[0] if stacks else None

    async def _change_set(self, name: str) -> ChangeSet | None:
        try:
            answer = await self.caller.call(
                "cloudformation", "describe_change_set", StackName=self.name, ChangeSetName=name
            )
        except Missing:
            return None
        except BadRequest as error:
            if _NO_STACK in error.message:
                return None
            raise
        changes = [one["ResourceChange"] for one in answer.get("Changes", []) if "ResourceChange" in one]
        return ChangeSet(
            str(answer["Status"]),
            str(answer.get("ExecutionStatus", "UNAVAILABLE")),
            str(answer.get("StatusReason", "")),
            tuple(
                Change(
                    str(one["Action"]),
                    str(one["LogicalResourceId"]),
                    str(one["ResourceType"]),
                    one.get("Replacement") == "True",
                )
                for one in changes
            ),
        )


def _parameter(name: str, value: str | None) -> dict[str, Any]:
    if value is None:
        return {"ParameterKey": name, "UsePreviousValue": True}
    return {"ParameterKey": name, "ParameterValue": value}


def _event(one: Mapping[str, Any]) -> StackEvent:
    time = one["Timestamp"]
    assert isinstance(time, datetime)
    return StackEvent(
        str(one["EventId"]),
        time.replace(tzinfo=time.tzinfo or UTC).timestamp(),
        str(one["LogicalResourceId"]),
        str(one["ResourceType"]),
        str(one["ResourceStatus"]),
        str(one.get("ResourceStatusReason", "")),
    )

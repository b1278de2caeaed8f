"""EventBridge Scheduler: one one-time StopInstances for each box, for the time when no daemon is there any more.

Sources: Scheduler API Reference (CreateSchedule, UpdateSchedule replaces all fields, DeleteSchedule); User Guide,
"universal targets" and "deleting a schedule" (``ActionAfterCompletion``). A schedule is invoked at least once, within
the minute; StopInstances tolerates repeats. It never terminates anything: its role may only stop.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from devboxd.aws.calls import Calls
from devboxd.errors import AlreadyExists, BadRequest, Missing
from devboxd.model.deadman import expression, name_of
from devboxd.model.identity import Identity
from devboxd.model.stack import PREFIX

RETRY_FOR = 86400  # seconds, the most that Scheduler tries (API: MaximumEventAgeInSeconds)
RETRIES = 185  # the most that it allows


@dataclass(frozen=True, slots=True)
class SchedulerApi:
    """Scheduler of one account and region. ``prefix``: that of ``init account``, which made group and role."""

    caller: Calls
    identity: Callable[[], Awaitable[Identity]]
    prefix: str = PREFIX

    async def stop_at(self, instance: str, at: float) -> None:
        """Have the instance stopped then; replaces what was said before.

        Raises:
            BadRequest: the account is not set up for it.
        """
        wanted = await self._schedule(instance, at)
        try:
            await self.caller.call("scheduler", "update_schedule", **wanted)
        except Missing:
            try:
                await self.caller.call("scheduler", "create_schedule", **wanted)
            except AlreadyExists:
                await self.caller.call("scheduler", "update_schedule", **wanted)
            except Missing as error:
                raise BadRequest(
                    f"there is no schedule group {self.prefix} in this account and region",
                    hint="devboxctl init account makes it",
                ) from error

    async def forget(self, instance: str) -> None:
        """Take the schedule away; it may be gone already."""
        try:
            await self.caller.call(
                "scheduler", "delete_schedule", Name=name_of(instance), GroupName=self.prefix
            )
        except Missing:
            return

    async def _schedule(self, instance: str, at: float) -> dict[str, Any]:
        who = await self.identity()
        role = f"arn:{who.partition}:iam::{who.number}:role/{self.prefix}-{who.region}-deadman"
        return {
            "Name": name_of(instance),
            "GroupName": self.prefix,
            "ScheduleExpression": expression(at),
            "ScheduleExpressionTimezone": "UTC",
            "FlexibleTimeWindow": {"Mode": "OFF"},
            "ActionAfterCompletion": "DELETE",
            "Target": {
                "Arn": f"arn:{who.partition}:scheduler:::aws-sdk:ec2:stopInstances",
                "RoleArn": role,
                "Input": json.dumps({"InstanceIds": [instance]}),
                "RetryPolicy": {"MaximumEventAgeInSeconds": RETRY_FOR, "MaximumRetryAttempts": RETRIES},
            },
        }

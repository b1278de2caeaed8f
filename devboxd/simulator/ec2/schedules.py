"""EventBridge Scheduler, as far as one-time schedules go: named in groups, replaced whole, invoked at least once.

What it does at AWS and here: an ``at()`` is invoked in the minute that follows; a target that fails is tried again; a
schedule with ``ActionAfterCompletion=DELETE`` is gone afterwards; an update replaces all fields. Sources: Scheduler API
Reference and User Guide. Only the universal target of StopInstances is known.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from devboxd.simulator.ec2.errors import Ec2Error

NAME = re.compile(r"[0-9a-zA-Z_.-]{1,64}\Z")
AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)\Z")
TARGET = ":scheduler:::aws-sdk:ec2:stopInstances"
RETRY_AFTER = 60.0  # seconds


@dataclass
class Schedule:
    """One of them; ``at``: when it is invoked next."""

    name: str
    group: str
    parameters: dict[str, Any]
    at: float
    tries: int = 0


@dataclass
class Schedules:
    """All schedules of an account and region. ``stop`` calls EC2 as the role of the schedule; it raises ``Ec2Error``."""

    stop: Callable[[list[str], float], None]
    groups: set[str] = field(default_factory=lambda: {"default", "devbox"}, init=False)
    found: dict[tuple[str, str], Schedule] = field(default_factory=dict, init=False)
    invoked: list[tuple[float, str]] = field(default_factory=list, init=False)
    _dice: random.Random = field(default_factory=lambda: random.Random(1), init=False)

    def call(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Answer one call. Raises ``Ec2Error`` with the code of Scheduler."""
        name, group = str(parameters.get("Name")), str(parameters.get("GroupName", "default"))
        if NAME.match(name) is None:
            raise Ec2Error("ValidationException", f"{name} is not a valid name", 400)
        if group not in self.groups:
            raise Ec2Error("ResourceNotFoundException", f"Schedule group {group} does not exist.", 404)
        key = (group, name)
        match operation:
            case "CreateSchedule":
                if key in self.found:
                    raise Ec2Error("ConflictException", f"Schedule {name} already exists.", 409)
                self.found[key] = self._read(name, group, parameters)
            case "UpdateSchedule":
                self._needs(key)
                self.found[key] = self._read(name, group, parameters)
            case "DeleteSchedule":
                self._needs(key)
                del self.found[key]
                return {}
            case _:
                raise Ec2Error("ValidationException", f"{operation} is not known here", 400)
        return {"ScheduleArn": f"arn:aws:scheduler:us-east-1:123456789012:schedule/{group}/{name}"}

    def tick(self, now: float) -> None:
        """Invoke what is due. Now and then one is invoked twice: at least once is all that is promised."""
        for key, one in list(self.found.items()):
            if one.at > now:
                continue
            instances = json.loads(one.parameters["Target"]["Input"])["InstanceIds"]
            for _ in range(2 if self._dice.random() < 0.2 else 1):
                self.invoked.append((now, one.name))
                try:
                    self.stop(instances, now)
                except Ec2Error:
                    one.tries += 1
                    one.at = now + RETRY_AFTER
                    break
            else:
                one.tries = 0
            retries = one.parameters["Target"].get("RetryPolicy", {}).get("MaximumRetryAttempts", 185)
            if not one.tries or one.tries > retries:
                if one.parameters.get("ActionAfterCompletion") == "DELETE":
                    del self.found[key]
                else:
                    one.at = float("inf")

    def _needs(self, key: tuple[str, str]) -> None:
        if key not in self.found:
            raise Ec2Error("ResourceNotFoundException", f"Schedule {key[1]} does not exist.", 404)

    def _read(self, name: str, group: str, parameters: dict[str, Any]) -> Schedule:
        missing = {"ScheduleExpression", "FlexibleTimeWindow", "Target"} - parameters.keys()
        if missing:
            raise Ec2Error("ValidationException", f"missing: {', '.join(sorted(missing))}", 400)
        match = AT.match(parameters["ScheduleExpression"])
        target = parameters["Target"]
        if match is None or parameters.get("ScheduleExpressionTimezone", "UTC") != "UTC":
            raise Ec2Error("ValidationException", "Invalid Schedule Expression", 400)
        if not target["Arn"].endswith(TARGET) or ":role/" not in target["RoleArn"]:
            raise Ec2Error("ValidationException", "the target is not supported", 400)
        at = datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp()
        at += self._dice.random() * 60.0  # within the minute
        return Schedule(name, group, {**parameters, "Name": name, "GroupName": group}, at)

"""What a user's own set-up asks of AWS: an instance profile, made where that is asked for, and a launch as a rehearsal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from devboxd.aws.calls import Calls
from devboxd.aws.codes import Rehearsed
from devboxd.errors import AlreadyExists, Missing
from devboxd.model.stack import PREFIX

_TRUST: Final = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}


@dataclass(frozen=True, slots=True)
class UserApi:
    """One account. ``prefix`` is that of ``init account``. Errors are those of ``Calls``."""

    calls: Calls
    prefix: str = PREFIX

    async def rehearse(self, request: Mapping[str, Any]) -> None:
        """Ask EC2 whether it would launch this. Raises what it would refuse it with."""
        with contextlib.suppress(Rehearsed):
            await self.calls.call("ec2", "run_instances", **request, DryRun=True)

    async def roles_of(self, profile: str) -> list[str] | None:
        """The roles in an instance profile; None where there is no such profile."""
        try:
            answer = await self.calls.call("iam", "get_instance_profile", InstanceProfileName=profile)
        except Missing:
            return None
        return [str(role["RoleName"]) for role in answer["InstanceProfile"]["Roles"]]

    async def make_profile(self, name: str, policy: Mapping[str, Any]) -> None:
        """Make an instance profile and a role of the same name with this policy, or what is missing of them."""
        tags = [{"Key": "devbox:managed", "Value": self.prefix}]
        with contextlib.suppress(AlreadyExists):
            await self.calls.call(
                "iam",
                "create_role",
                RoleName=name,
                AssumeRolePolicyDocument=json.dumps(_TRUST),
                Description="boxes of devbox: sessions through Session Manager, and nothing else",
                Tags=tags,
            )
        await self.calls.call(
            "iam", "put_role_policy", RoleName=name, PolicyName="sessions", PolicyDocument=json.dumps(policy)
        )
        with contextlib.suppress(AlreadyExists):
            await self.calls.call("iam", "create_instance_profile", InstanceProfileName=name, Tags=tags)
        if not await self.roles_of(name):
            await self.calls.call(
                "iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name
            )

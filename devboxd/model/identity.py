"""Who we are for AWS: what an ARN says of it."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devboxd.model.login import Source

_IDENTITY_CENTER: Final = re.compile(r"AWSReservedSSO_(.+)_[0-9a-f]{16}")


class Identity(msgspec.Struct, frozen=True):
    """The identity that calls are made with."""

    profile: str
    region: str
    number: str  # of the AWS account
    arn: str
    source: Source  # where the credentials come from, and how long their login lasts
    expires_in: float | None = None  # seconds that the credentials have left; None: they do not end
    user_id: str = ""  # IAM's ``aws:userid``: what the policies know an owner by

    @property
    def partition(self) -> str:
        """The AWS that the account is in: ``aws``, ``aws-cn``. An emulator may name none."""
        parts = self.arn.split(":")
        return parts[1] if len(parts) > 2 else "aws"


class Principal(msgspec.Struct, frozen=True):
    """A role, a user, or root; ``session`` tells who uses a role."""

    kind: str  # role, user, root, federated-user; empty where the ARN is of a form that we do not know
    name: str
    session: str = ""


def principal(arn: str) -> Principal:
    """Read the ARN of an identity.

    Source: IAM User Guide, "IAM identifiers": ``arn:P:sts::N:assumed-role/ROLE/SESSION``,
    ``arn:P:iam::N:user/PATH/NAME``, ``arn:P:iam::N:root``, ``arn:P:sts::N:federated-user/NAME``. Roles of
    Identity Center are named ``AWSReservedSSO_SET_SUFFIX`` and shown as the permission set that they stand for.
    """
    resource = arn.split(":", 5)[-1]
    kind, _, rest = resource.partition("/")
    if kind == "assumed-role":
        role, _, session = rest.partition("/")
        if (permission_set := _IDENTITY_CENTER.fullmatch(role)) is not None:
            role = permission_set[1]
        return Principal("role", role, session)
    if kind in ("user", "federated-user"):
        return Principal(kind, rest.rpartition("/")[2])
    if kind == "root":
        return Principal("root", "root")
    return Principal("", resource)

"""STS: who the credentials of an account belong to, and until when they hold."""

from __future__ import annotations

from devboxd.aws.clients import Caller
from devboxd.model.identity import Identity


async def identity(caller: Caller) -> Identity:
    """Ask who we are. Needs no permission.

    Raises: LoginNeeded and the rest of ``Caller.call``.
    """
    answer = await caller.call("sts", "get_caller_identity")
    left = await caller.credentials_expire_in()
    return Identity(
        profile=caller.profile_name,
        region=caller.region,
        number=str(answer.get("Account", "")),
        arn=str(answer.get("Arn", "")),
        source=caller.source(),
        expires_in=left,
        user_id=str(answer.get("UserId", "")),
    )

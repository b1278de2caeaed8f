"""STS: who the credentials of an account belong to, and until when they hold."""

from __future__ import annotations

from devboxd.aws.clients import Account
from devboxd.model.identity import Identity


async def identity(account: Account) -> Identity:
    """Ask who we are. Needs no permission.

    Raises: LoginNeeded and the rest of ``Account.call``.
    """
    answer = await account.call("sts", "get_caller_identity")
    left = await account.credentials_expire_in()
    return Identity(
        profile=account.profile_name,
        region=account.region,
        number=str(answer.get("Account", "")),
        arn=str(answer.get("Arn", "")),
        source=account.source(),
        expires_in=left,
        user_id=str(answer.get("UserId", "")),
    )

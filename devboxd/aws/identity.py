"""STS: who the credentials of an account belong to, and until when they hold."""

from __future__ import annotations

from devboxd.aws.clients import Account
from devboxd.model import box
from devboxd.model.identity import Identity


async def identity(account: Account) -> Identity:
    """Ask who we are. Needs no permission.

    Raises: LoginNeeded and the rest of ``Account.call``.
    """
    answer = await account.call("sts", "get_caller_identity")
    left = await account.credentials_expire_in()
    login = account.login_expires_in()
    now = account.clock.wall()
    return Identity(
        account=box.Account(account.profile, account.asked_region),
        region=account.region,
        number=str(answer.get("Account", "")),
        arn=str(answer.get("Arn", "")),
        expires=None if left is None else now + left,
        login_ends=None if login is None else now + login,
        login_renews=account.login_refreshable(),
    )

"""Which KMS keys a session may be encrypted with.

The key is named by the box, in its handshake. It should be the one of the account's session preferences, and
the box can name any other. With a key of a foreign account, GenerateDataKey would tell that account who we
are and which session it is, and whoever owns the key could open what the session carries. So a key has to
belong to the account that the session is in, or to one that the configuration names.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from devboxd.errors import DevboxError, Kind

# Source: the resource types of KMS in the service authorization reference; key ids as CreateKey makes them.
_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:kms:[a-z0-9-]{1,32}:(?P<account>\d{12}):(key/[A-Za-z0-9-]{1,128}|alias/[A-Za-z0-9/_-]{1,250})\Z"
)
# An id or an alias without an account: KMS looks in the caller's own.
_OWN: Final = re.compile(r"[A-Za-z0-9/_-]{1,256}\Z")


class KeyRefused(DevboxError):
    """The box wants its session encrypted with a key that is not accepted."""

    code = "key-refused"
    kind = Kind.POLICY


def account_of(key_id: str) -> str | None:
    """The account whose key this is, as the key says; None for the caller's own.

    Raises:
        KeyRefused: it cannot be a key.
    """
    if (arn := _ARN.match(key_id)) is not None:
        return arn["account"]
    if _OWN.match(key_id) is None:
        raise KeyRefused("the box asks for encryption with something that cannot be a KMS key")
    return None


def check_key(key_id: str, own: str | None, allowed: Collection[str]) -> None:
    """Accept a key, or not.

    Args:
        own: the account that the session is in; None where that cannot be told.
        allowed: other accounts, of the configuration.

    Raises:
        KeyRefused: it belongs to another account, or nobody can tell.
    """
    account = account_of(key_id)
    if account is None or account == own or account in allowed:
        return
    whose = (
        "the session is in another" if own is not None else "it cannot be told which one the session is in"
    )
    raise KeyRefused(
        f"the box asks for encryption with a KMS key of account {account}, and {whose}",
        hint=f'if that is meant: link.kms_accounts = ["{account}"] in config.toml',
    )

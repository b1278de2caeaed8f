"""Notices: sending one to try, and the secrets that some ways of them need."""

from __future__ import annotations

from devboxd.api import routes, wire
from devboxd.api.handlers.context import Context
from devboxd.api.handlers.table import answers
from devboxd.errors import BadRequest
from devboxd.model.notice import SECRETS, Way


@answers(routes.TRY_NOTICE)
async def try_notice(context: Context, asked: wire.Nothing) -> wire.Notices:
    """One on every way that is set up."""
    told = await context.tell("devbox", "this is how devbox tells you something")
    return wire.Notices(
        [
            wire.Notice(way.value, error.message if error else None, error.hint if error else None)
            for way, error in told.items()
        ]
    )


@answers(routes.KEEP_SECRET)
async def keep_secret(context: Context, asked: wire.NoticeSecret) -> wire.Kept:
    """In the keyring: it is never shown again."""
    if asked.way not in {way.value for way in SECRETS}:
        raise BadRequest(f"{asked.way!r} has no secret", hint=f"these have: {', '.join(SECRETS)}")
    await context.keep_secret(Way(asked.way), asked.value)
    return wire.Kept()

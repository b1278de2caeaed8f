"""End what a daemon before this one left open: nobody can resume it without that daemon's memory."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from devboxd.control.connect.lost import end_session
from devboxd.control.connect.sessions import Sessions
from devboxd.errors import DevboxError
from devboxd.model.box import Account

log = logging.getLogger(__name__)


async def sweep(sessions: Sessions, left: Mapping[str, Account], accounts: Collection[Account]) -> None:
    """End sessions that no daemon holds any more, once.

    Args:
        left: ids that an earlier daemon has written down, and whose they are. What cannot be ended now stays
            written down, for the next daemon.
        accounts: to look through for sessions of ours that nobody has written down.
    """
    ended = 0
    for id_, account in left.items():
        was_open = await _end(sessions, account, id_)
        ended += was_open is True
        if was_open is not None:
            sessions.ledger.session_over(id_)
    for account in accounts:
        try:
            found = await sessions.api(account).active(reason_prefix=sessions.reason_prefix)
        except DevboxError as error:
            log.info("no sweep of %s: %s", account, error)
            continue
        for session in found:
            # One of ours may be listed before the answer to its StartSession has reached us.
            if session.id not in left and not sessions.is_ours(session.reason):
                ended += await _end(sessions, account, session.id) is True
    if ended:
        text = f"ended {ended} sessions that an earlier daemon had left open"
        sessions.shared.news.tell("sweep.ended", text)


async def _end(sessions: Sessions, account: Account, id_: str) -> bool | None:
    """Say whether the session was open; None where it could not be ended."""
    try:
        return await end_session(sessions.api(account), id_)
    except DevboxError as error:
        log.warning("stale session %s could not be ended: %s", id_, error)
        return None

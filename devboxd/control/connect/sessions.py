"""The sessions of one daemon: made here, and known here while they run."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from devboxd.control.base.needs import Dialer, Ledger, SessionApi
from devboxd.control.base.shared import Shared
from devboxd.control.connect.lost import LostStarts
from devboxd.control.connect.plan import Plan, Sink
from devboxd.control.connect.service import Service
from devboxd.control.connect.session import HeldSession
from devboxd.errors import BadRequest, BoxNotFound
from devboxd.model.box import Account
from devboxd.model.config import LinkSettings
from devboxd.model.hold import BEAT
from devboxd.model.names import owner_reason, session_reason
from devboxd.model.session import SessionEnd


class Sessions:
    """Makes sessions out of what the daemon has for all of them, and knows those that run."""

    def __init__(
        self,
        shared: Shared,
        api: Callable[[Account], SessionApi],
        dialer: Dialer,
        ledger: Ledger,
        *,
        owner: str,
    ) -> None:
        """Make one.

        Args:
            api: Session Manager of an account; the same object for the same account.
            owner: this machine and user, in the Reason of each session; the sweep finds them by it.
        """
        self.shared = shared
        self.api = api
        self.ledger = ledger
        self._dialer = dialer
        self._owner = owner
        self._run = secrets.token_hex(4)  # this life of the daemon
        self._held: dict[HeldSession, None] = {}  # oldest first
        self._lost = LostStarts(
            shared,
            api,
            reason_prefix=owner_reason(owner),
            is_ours=self.is_ours,
            held=lambda: {session.id for session in self._held if session.id is not None},
        )

    def open(self, plan: Plan, sink: Sink, settings: LinkSettings) -> HeldSession:
        """Make a session that is not started yet: ``hold`` it."""
        reason = session_reason(self._owner, plan.kind, self._run)
        service = Service(
            self.shared,
            self.api(plan.account),
            self._dialer,
            self.ledger,
            plan,
            reason=reason,
            heartbeat=settings.heartbeat,
            kms_accounts=settings.kms_accounts,
            lost=self._lost.suspect,
        )
        # A limit of ours, 0 for none; the service is said to cut at 1000.
        return HeldSession(
            self.shared, service, plan, sink, frames_per_second=float(settings.frames_per_second)
        )

    async def hold(self, session: HeldSession) -> SessionEnd:
        """Start a session and hold it until it ends. Cancelling ends it at AWS's side, too."""
        self._held[session] = None
        try:
            return await session.run()
        finally:
            del self._held[session]

    @property
    def running(self) -> list[HeldSession]:
        """The sessions that are held and have not ended, oldest first."""
        return [session for session in self._held if session.end is None]

    def find(self, start: str) -> HeldSession:
        """The running session whose id begins so.

        Raises:
            BoxNotFound: none does.
            BadRequest: several do.
        """
        found = [session for session in self.running if session.id and session.id.startswith(start)]
        found = [session for session in found if session.id == start] or found
        if len(found) > 1:
            ids = ", ".join(sorted(str(session.id) for session in found))
            raise BadRequest(f"{start!r} is the beginning of {len(found)} sessions: {ids}")
        if not found:
            raise BoxNotFound(f"no session is called {start!r}", hint="devboxctl status lists them")
        return found[0]

    async def beat(self) -> None:
        """The heart: one timer for all sessions. Never returns."""
        while True:
            await asyncio.sleep(BEAT)
            for session in self.running:
                session.beat()

    @property
    def reason_prefix(self) -> str:
        """How the Reason of every session of this machine and user begins, whichever daemon started it."""
        return owner_reason(self._owner)

    def is_ours(self, reason: str) -> bool:
        """Say whether this life of the daemon has started the session of that Reason."""
        return reason.startswith(self.reason_prefix) and reason.endswith(f"/{self._run}")

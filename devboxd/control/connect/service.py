"""Session Manager and its gateway, as one session needs them: each call made once, and what came of it.

Nothing is tried again here and nothing is decided: that is ``model.hold``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Final

import msgspec

from devboxd.control.base.needs import Dialer, Grant, Ledger, Link, SessionApi
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.lost import SLOW
from devboxd.control.connect.plan import Plan
from devboxd.errors import DevboxError, LinkRefused, NotConnected, Unreachable
from devboxd.model.box import Account
from devboxd.model.hold import Happened, link_over, resume_refused, start_refused
from devboxd.model.sealing import account_of, check_key

log = logging.getLogger(__name__)

API_END_TIMEOUT: Final = 4.0  # seconds for TerminateSession when we stop
START_ANSWER: Final = 2.0  # seconds for the answer to StartSession when we are cancelled meanwhile
FIRST_OF_ALL: Final = -1.0  # priority of TerminateSession at the gate: it lets others in


class Outcome(msgspec.Struct, frozen=True):
    """What a step of a session came to. ``text`` is for people."""

    happened: Happened
    text: str = ""
    error: DevboxError | None = None
    grant: Grant | None = None
    rang: bool = False  # the network changed meanwhile


class Service:
    """One session at the service's side: ``id`` once there is one."""

    def __init__(
        self,
        shared: Shared,
        api: SessionApi,
        dialer: Dialer,
        ledger: Ledger,
        plan: Plan,
        *,
        reason: str,
        heartbeat: float,
        kms_accounts: Collection[str] = (),
        lost: Callable[[Account], None] = lambda _: None,
    ) -> None:
        """Make one. ``lost``: is told where a start may have left a session that we do not know."""
        self.id: str | None = None
        self._shared = shared
        self._api = api
        self._dialer = dialer
        self._ledger = ledger
        self._plan = plan
        self._reason = reason
        self._heartbeat = heartbeat
        self._kms_accounts = kms_accounts
        self._lost = lost
        self._asking = Supervisor(f"start of a session to {plan.box}")

    async def start(self) -> Outcome:
        """StartSession."""
        plan = self._plan
        async with self._shared.gates.of(self._api).enter(plan.priority):
            answer = await self._ask_start()
        if isinstance(answer, NotConnected):
            text = f"{plan.box} is not connected to Session Manager yet"  # its client says for how long
            return Outcome(start_refused(answer), text, answer)
        if isinstance(answer, DevboxError):
            return Outcome(start_refused(answer), answer.message, answer)
        self._note_started(answer)
        return Outcome(Happened.STARTED, grant=answer)

    async def _ask_start(self) -> Grant | DevboxError:
        """Whoever is cancelled while AWS answers must still learn what there is to end."""
        asking: asyncio.Task[Grant | DevboxError] = self._asking.spawn("ask", self._answer_to_start())
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await asyncio.wait({asking}, timeout=START_ANSWER)
            answered = asking.done() and not asking.cancelled() and asking.exception() is None
            if answered and not isinstance(answer := asking.result(), DevboxError):
                self._note_started(answer)
            if not answered:
                self._lost(self._plan.account)
            asking.cancel()
            raise

    async def _answer_to_start(self) -> Grant | DevboxError:
        plan, began = self._plan, self._shared.time.monotonic()
        answer: Grant | DevboxError
        try:
            answer = await self._api.start(plan.target, plan.document, plan.parameters, reason=self._reason)
        except DevboxError as error:
            answer = error
        if isinstance(answer, Unreachable) or self._shared.time.monotonic() - began > SLOW:
            self._lost(plan.account)
        return answer

    def _note_started(self, grant: Grant) -> None:
        self.id = grant.session_id
        self._ledger.session_opened(self.id, self._plan.account)

    async def resume(self, priority: float) -> Outcome:
        """ResumeSession. ``priority``: lower goes first when many sessions come back at once."""
        assert self.id is not None
        try:
            async with self._shared.gates.of(self._api).enter(priority):
                return Outcome(Happened.RESUMED, grant=await self._api.resume(self.id))
        except DevboxError as error:
            return Outcome(resume_refused(error), error.message, error)

    async def look(self, text: str) -> Outcome:
        """Ask whether the session exists, whose links die without a frame. ``text`` says how the last one did.

        Only a plain no is one: many accounts may not ask.
        """
        assert self.id is not None
        try:
            exists = await self._api.is_active(self.id, self._plan.target)
        except DevboxError:
            exists = None
        if exists is False:
            return Outcome(Happened.EXISTS_NOT, "the session no longer exists")
        return Outcome(Happened.EXISTS, text)

    async def dial(self, url: str, *, signed: bool) -> Link | Outcome:
        """Open a link; an outcome where there is none."""
        headers: Mapping[str, str] = {}
        if signed:
            try:
                headers = await self._api.sign_upgrade(url)
            except DevboxError as error:
                log.info("session %s: dialling unsigned: %s", self.id, error.message)
        try:
            link = await self._dialer.dial(
                url, headers=headers, heartbeat=self._heartbeat, ca_bundle=self._api.ca_bundle()
            )
        except DevboxError as error:
            happened = link_over(
                lived=0.0, heard=False, status=error.status if isinstance(error, LinkRefused) else None
            )
            if happened is Happened.LINK_PROXY:
                self._shared.news.raise_condition("proxy-denied", problem=error.message, hint=error.hint)
            return Outcome(happened, error.message, error)
        self._shared.news.clear_condition("proxy-denied")
        return link

    def silent(self) -> Outcome:
        """The far end has not said a word: its agent did not start the session."""
        failure = Unreachable(
            f"{self._plan.box} does not start sessions",
            hint="is its agent healthy? Restart amazon-ssm-agent, or reboot the box",
        )
        return Outcome(Happened.SILENT, failure.message, failure)

    async def login(self, why: DevboxError | None, longest: float) -> None:
        """Wait until the credentials may work again; the longest waiting of all sessions for so many seconds."""
        if await self._shared.logins.wait(self._plan.account, why, longest):
            await self._api.refresh()  # a role may have been revoked whose cached credentials look good

    async def data_key(self, key_id: str, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        """GenerateDataKey: plaintext and ciphertext.

        Raises: KeyRefused for a key that the box may not choose; and as every call of the API.
        """
        assert self.id is not None
        own = await self._api.account_id(self.id) if account_of(key_id) is not None else None
        check_key(key_id, own, self._kms_accounts)
        return await self._api.generate_data_key(key_id, context)

    async def end(self) -> None:
        """TerminateSession, within a few seconds. What could not be ended is left to the next daemon's sweep."""
        if (id_ := self.id) is None:
            return
        try:
            async with asyncio.timeout(API_END_TIMEOUT):
                async with self._shared.gates.of(self._api).enter(FIRST_OF_ALL):
                    await self._api.terminate(id_)
        except (DevboxError, TimeoutError) as error:
            log.warning("session %s could not be ended at AWS: %s", id_, error)
        else:
            self._ledger.session_over(id_)

    def is_over(self) -> None:
        """The service itself has ended the session."""
        if self.id is not None:
            self._ledger.session_over(self.id)

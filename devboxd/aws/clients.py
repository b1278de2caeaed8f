"""AWS clients, made when first needed and kept: one set for each (profile, region).

Settings are the standard ones (environment, ~/.aws/config, SSO cache, credential_process, web
identity, endpoint URLs, CA bundle, proxies): botocore reads them. We add three things: AWS_REGION,
which botocore ignores; a region where only an endpoint is given; and a fresh botocore session when
the credentials stop working, because botocore's own caches never notice a new login.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError, ConfigParseError
from botocore.parsers import ResponseParserError

from devboxd.aws.asker import ASKER, Asker
from devboxd.aws.errors import region_missing, translate
from devboxd.aws.generation import Generation, give_providers, new_session
from devboxd.aws.helper import HELPER_TOLD, HelperFailed, Helpers, runs
from devboxd.aws.lent import Lent
from devboxd.aws.oddities import note, of_credentials, unreadable
from devboxd.aws.profiles import profile_of
from devboxd.aws.providers import Kept
from devboxd.aws.settings import check, check_region, region_of, unparsed
from devboxd.aws.source import METHODS, mfa_of, source_of
from devboxd.aws.sso import SsoProfile, sso_profile
from devboxd.aws.watch import stamps
from devboxd.errors import DevboxError, LoginNeeded
from devboxd.model import box
from devboxd.model.login import Method, Source, mend

RENEW_EVERY: Final = 5.0  # seconds between two rebuilds while no credential file has changed
RENEWED_BY_OTHERS: Final = 0.5  # more seconds for who waits while another call renews the same credentials
FALLBACK_REGION: Final = "us-east-1"  # only where an endpoint URL is given that names no region

_KNOWN: Final = (DevboxError, BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError)
_REGION: Final = re.compile(r"\.((?:[a-z]{2,}-){1,3}[a-z]+-\d+)\.")

T = TypeVar("T")
# Told of every call that was answered, and of every refusal of credentials.
Heard = Callable[[box.Account, LoginNeeded | None], None]


class WallClock(Protocol):
    """The part of ``host.clock`` that is needed here."""

    def wall(self) -> float:
        """Unix time in seconds."""


@dataclass(slots=True, eq=False)
class Caller:
    """Makes the calls of one account: one set of credentials in one region. Every call goes through here."""

    profile: str | None
    asked_region: str | None
    clock: WallClock
    heard: Heard = lambda account, refusal: None
    lent: Callable[[], Lent | None] = lambda: None
    kept: Kept = field(default_factory=Kept)  # shared by all regions of a profile
    _generation: Generation | None = None
    _renewed: float = float("-inf")  # loop time of the last rebuild after a failure
    is_sound: bool = False  # its profile exists and it has a region: both were seen to be so

    @property
    def region(self) -> str:
        """The region that calls go to. Raises RegionMissing, ProfileUnknown or BadRequest."""
        return self._current().region

    async def call(
        self, service: str, operation: str, /, *, target: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Call one operation (a client method's name) and return its answer.

        On an authentication failure the session is rebuilt, so that a login made in the meantime
        counts, and the call is repeated once. ``target`` names the box in error messages.

        Raises: LoginNeeded, Denied, Throttled, Unreachable, NotConnected and the rest of ``aws.errors``.
        """

        async def once(generation: Generation) -> dict[str, Any]:
            async with generation.client(service) as client:
                answer: dict[str, Any] = await getattr(client, operation)(**parameters)
                return answer

        return await self._attempt(service, operation, once, target)

    async def pages(
        self, service: str, operation: str, key: str, /, *, limit: int = 100_000, **parameters: Any
    ) -> list[dict[str, Any]]:
        """All items under ``key`` of a paginated operation, at most ``limit`` of them. Errors as ``call``."""

        async def every_page(generation: Generation) -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = []
            async with generation.client(service) as client:
                async for page in client.get_paginator(operation).paginate(**parameters):
                    items.extend(page.get(key, ()))
                    if len(items) >= limit:
                        break
            return items[:limit]

        return await self._attempt(service, operation, every_page, None)

    async def account_id(self) -> str:
        """The number of the account that the credentials belong to. Everybody may ask that. Errors as ``call``."""
        generation = self._current()
        if generation.account_id is None:
            answer = await self.call("sts", "get_caller_identity")
            generation.account_id = str(answer.get("Account") or "")
        return generation.account_id

    async def endpoint(self, service: str) -> str:
        """The URL that calls of this service go to."""

        async def look(generation: Generation) -> str:
            async with generation.client(service) as client:
                return str(client.meta.endpoint_url)

        return await self._attempt(service, "endpoint", look, None)

    async def credentials(self) -> ReadOnlyCredentials:
        """Access key, secret key and token as of now, refreshed if need be. Never log them."""

        async def freeze(generation: Generation) -> ReadOnlyCredentials:
            credentials = await generation.session.get_credentials()
            if credentials is None:
                raise self._no_credentials()
            frozen: ReadOnlyCredentials = await credentials.get_frozen_credentials()
            return frozen

        return await self._attempt("sts", "get_credentials", freeze, None)

    async def credentials_expire_in(self) -> float | None:
        """Seconds until the credentials expire (below 0: have expired); None where they never do.

        Asks for fresh ones first where they can be refreshed. Raises LoginNeeded where they can not.
        """
        await self.credentials()
        credentials = await self._current().session.get_credentials()
        # botocore keeps the time to itself; tests/aws holds it to that name.
        expires: datetime | None = getattr(credentials, "_expiry_time", None)
        if (lent := self.lent()) is not None:
            return None if lent.expires is None else lent.expires - self.clock.wall()
        return None if expires is None else self._until(expires)

    @property
    def key(self) -> box.Account:
        """As it was asked for."""
        return box.Account(self.profile, self.asked_region)

    @property
    def profile_name(self) -> str:
        """The profile that is used, also where none was asked for."""
        return self._profile_name() or "default"

    def source(self) -> Source:
        """Where the credentials come from, and how long their login lasts. Asks no provider.

        Raises: ProfileUnknown, RegionMissing or BadRequest.
        """
        if (lent := self.lent()) is not None:
            left = None if lent.expires is None else lent.expires - self.clock.wall()
            return Source(Method.LENT, self.profile_name, left)
        with self._translated("sts", "get_credentials"):
            return source_of(self._current().session, self.profile, os.environ, self.clock.wall())

    def device(self) -> str | None:
        """The MFA device whose code these credentials want, if any. Errors as ``source``."""
        with self._translated("sts", "get_credentials"):
            session = self._current().session
            own = source_of(session, self.profile, os.environ, self.clock.wall())
            if own.method is not Method.MFA:
                return None
            return mfa_of(session.full_config.get("profiles", {}), self.profile_name)

    async def take_code(self, code: str) -> None:
        """Get credentials with the code of the MFA device. What there was stays where that fails.

        Raises: LoginNeeded, Denied and the rest of ``call``.
        """
        # Nobody else hears of what has yet to prove itself.
        mine = Kept(code, renewing=self.kept.renewing, helpers=self.kept.helpers)
        trial = Caller(self.profile, self.asked_region, self.clock, kept=mine)
        try:
            await trial.credentials()
        finally:
            await trial.forget()
        self.kept.roles.clear()
        self.kept.roles.update(trial.kept.roles)
        await self.forget()

    def sso(self) -> SsoProfile | None:
        """The SSO portal of this profile, if it has one."""
        with self._translated("sts", "get_credentials"):
            return sso_profile(self._current().session, self._profile_name())

    def ca_bundle(self) -> str | None:
        """The CA bundle of the environment or the profile, for the websocket."""
        with self._translated("sts", "get_credentials"):
            found = self._current().session.get_config_variable("ca_bundle")
        return str(found) if found else None

    async def forget(self) -> None:
        """Drop the botocore session, its clients and cached credentials; the next call makes them anew."""
        generation, self._generation = self._generation, None
        if generation is not None:
            await generation.retire()

    async def _attempt(
        self,
        service: str,
        operation: str,
        act: Callable[[Generation], Awaitable[T]],
        target: str | None,
    ) -> T:
        """Run ``act``; after an authentication failure once more with a new session. Says what came of it."""
        try:
            answer = await self._attempt_twice(service, operation, act, target)
        except LoginNeeded as error:
            self.heard(self.key, error)
            raise
        self.heard(self.key, None)
        return answer

    async def _attempt_twice(
        self,
        service: str,
        operation: str,
        act: Callable[[Generation], Awaitable[T]],
        target: str | None,
    ) -> T:
        generation = self._current()
        try:
            return await self._act(generation, act)
        except Exception as error:  # botocore has no root of all that it raises
            failure = self._failure(error, service, operation, target)
            may_be_old = isinstance(failure, LoginNeeded) and not isinstance(error, HelperFailed)
            if not may_be_old or not await self._renew(generation):
                raise failure from error
        try:
            return await self._act(self._current(), act)
        except Exception as error:
            raise self._failure(error, service, operation, target) from error

    async def _act(self, generation: Generation, act: Callable[[Generation], Awaitable[T]]) -> T:
        """Run ``act`` with credentials at hand: the wait for them, and no call, is told of and cut short."""
        if (asker := ASKER.get()) is not None:
            loop = asyncio.get_running_loop()
            timers = [loop.call_later(HELPER_TOLD, self._tell, asker)]
            until = asker.patience(loop.time())
            try:
                async with asyncio.timeout(None) as bound:
                    if until is not None:
                        timers.append(loop.call_at(until + RENEWED_BY_OTHERS, self._cut, bound))
                    await _at_hand(generation)
            except TimeoutError:
                if not bound.expired():
                    raise
                raise runs(next(iter(self.kept.waits), self.profile_name)) from None
            finally:
                for timer in timers:
                    timer.cancel()
        return await act(generation)

    def _cut(self, bound: asyncio.Timeout) -> None:
        """End a wait behind somebody else's renewal: who waits for a helper itself has given up by now."""
        if any(self.kept.waits):
            bound.reschedule(asyncio.get_running_loop().time())

    def _tell(self, asker: Asker) -> None:
        for profile in self.kept.waits:
            asker.tell(f"waiting for the credential_process of profile {profile}")

    async def _renew(self, failed: Generation) -> bool:
        """Replace a session whose credentials do not work; False where that was done a moment ago."""
        if self._generation is not failed:
            return True  # somebody else has done it
        now = asyncio.get_running_loop().time()
        # Without the limit, each poll of an expired login would cost a whole new set of clients.
        if now - self._renewed < RENEW_EVERY and failed.sources == stamps(os.environ):
            return False
        self._renewed = now
        self.kept.roles.clear()
        await self.forget()
        return True

    def _current(self) -> Generation:
        if self._generation is None:
            with self._translated("sts", "get_credentials"):
                session = new_session(self.profile)
                # A test of the configuration: an unknown profile is refused here and now.
                check(session, self.profile, os.environ)
                region = self._region(session)
                give_providers(session, self.profile_name, region, self.kept, self.clock.wall)
                if (lent := self.lent()) is not None:
                    session.set_credentials(lent.access_key, lent.secret_key, lent.token)
                self._generation = Generation(session, region, stamps(os.environ))
                self.is_sound = True
        return self._generation

    def _region(self, session: AioSession) -> str:
        endpoints = (
            os.environ.get("AWS_ENDPOINT_URL_SSM"),
            os.environ.get("AWS_ENDPOINT_URL"),
            session.get_scoped_config().get("endpoint_url"),
        )
        endpoint = next(filter(None, endpoints), None)
        if (asked := region_of(session, self.asked_region, self.profile_name, os.environ)) is not None:
            check_region(*asked, has_endpoint=endpoint is not None)  # now: a misspelt one is no account
            return asked[0]
        if endpoint is None:
            raise region_missing(self.profile)
        named = _REGION.search(urlsplit(endpoint).hostname or "")
        return named[1] if named else FALLBACK_REGION

    def _profile_name(self) -> str | None:
        return profile_of(self.profile, os.environ)

    def _until(self, moment: datetime) -> float:
        return moment.timestamp() - self.clock.wall()

    def _no_credentials(self) -> LoginNeeded:
        where = f"for profile {self.profile!r}" if self.profile else "in the environment or in ~/.aws"
        return LoginNeeded(f"there are no AWS credentials {where}", hint=mend(Method.NONE, self.profile))

    def _failure(
        self, error: BaseException, service: str, operation: str, target: str | None = None
    ) -> DevboxError:
        if isinstance(error, ConfigParseError):
            error = unparsed(str(error.kwargs["path"]), os.environ)
        elif isinstance(error, RuntimeError) and self._has_expired():
            error = LoginNeeded("the AWS credentials have expired, and no newer ones came", hint=self._mend())
        elif not isinstance(error, _KNOWN) and of_credentials(error):
            note(error, "the AWS credentials can not be read")
            whose = f" of profile {self._profile_name()!r}" if self._profile_name() else ""
            what = unreadable(error)
            error = LoginNeeded(f"the AWS credentials{whose} can not be read{what}", hint=self._mend())
        return translate(
            error,
            service=service,
            operation=operation,
            profile=self._profile_name(),
            login=self._mend(),
            target=target,
        )

    @property
    def _resolved(self) -> Any:
        """The credentials that the session has resolved so far; no provider is asked."""
        return getattr(self._generation.session, "_credentials", None) if self._generation else None

    def _has_expired(self) -> bool:
        """Say whether the credentials are past their time: botocore raises a bare RuntimeError over it."""
        expires: datetime | None = getattr(self._resolved, "_expiry_time", None)
        return expires is not None and self._until(expires) <= 0

    def _mend(self) -> str:
        """What a person has to do to get new credentials."""
        if self.lent() is not None:
            return mend(Method.LENT, self._profile_name())
        method, name = METHODS.get(getattr(self._resolved, "method", None) or ""), self._profile_name()
        if self._generation is not None:
            with contextlib.suppress(*_KNOWN):  # a broken configuration is reported as such
                source = source_of(self._generation.session, self.profile, os.environ, self.clock.wall())
                if source.method is not Method.NONE or method is None:
                    method = source.method
                holder = None if method is Method.SSO else source.name
                return mend(method, name, holder)
        return mend(method or Method.SSO, name)

    @contextlib.contextmanager
    def _translated(self, service: str, operation: str) -> Any:
        try:
            yield
        except Exception as error:
            raise self._failure(error, service, operation) from error


@dataclass(slots=True, eq=False)
class Callers:
    """A caller for each account of the daemon. Build one; close it at the end."""

    clock: WallClock
    heard: Heard = lambda account, refusal: None
    _kept: dict[tuple[str | None, str | None], Caller] = field(default_factory=dict)
    _given: dict[str | None, Kept] = field(default_factory=dict)  # by profile
    _lent: dict[str | None, Lent] = field(default_factory=dict, repr=False)  # by profile
    _helpers: Helpers = field(default_factory=Helpers, repr=False)

    def caller(self, profile: str | None = None, region: str | None = None) -> Caller:
        """The caller of a profile in a region; None leaves the choice to the standard settings."""
        key = (profile or None, region or None)
        if key not in self._kept:
            given = self._given.setdefault(key[0], Kept(helpers=self._helpers))
            self._kept[key] = Caller(*key, self.clock, self.heard, lambda: self._lent.get(key[0]), given)
        return self._kept[key]

    async def lend(self, profile: str | None, lent: Lent | None) -> Lent | None:
        """Use these credentials for a profile, in every region; None: its own again. Returns the former ones."""
        former = self._lent.pop(profile or None, None)
        if lent is not None:
            self._lent[profile or None] = lent
        for account in list(self._kept.values()):
            if account.profile == (profile or None):
                await account.forget()
        return former

    def known(self) -> list[Caller]:
        """Every caller that was asked for so far and can be used. Misspelt ones are not worth a look."""
        return [account for account in self._kept.values() if account.is_sound]

    async def forget(self, profile: str | None = None) -> None:
        """Drop sessions and clients of one profile (None: of the default one)."""
        for account in self.known():
            if account.profile == (profile or None):
                await account.forget()

    async def refresh(self) -> None:
        """Drop all sessions and clients, so that a new login or a changed ~/.aws is read."""
        for account in self.known():
            await account.forget()

    async def close(self) -> None:
        """Close every client, and end every helper."""
        await self._helpers.close()
        await self.refresh()
        self._kept.clear()


async def _at_hand(generation: Generation) -> None:
    """Have credentials that a call can be signed with. Where there are none, the call says so."""
    credentials: Any = await generation.session.get_credentials()
    must = getattr(credentials, "refresh_needed", None)  # keys for good have no such thing
    # Only what has to be renewed: what may be is tried by the call, which goes on without.
    if must is not None and must(credentials._mandatory_refresh_timeout):
        await credentials.get_frozen_credentials()

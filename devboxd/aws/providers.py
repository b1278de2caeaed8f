"""Where botocore gets credentials from, as a daemon needs it: nobody is asked anything, and nothing is quoted.

The order and the rules are botocore's. Ours are three of its parts: ``credential_process`` runs without a terminal
and for a bounded time, a role that wants a code of a device takes the one that a person has handed over, and
``aws login`` works without the AWS Common Runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from aiobotocore.credentials import (
    AioProcessProvider,
    AioProfileProviderBuilder,
    create_credential_resolver,
)
from aiobotocore.session import AioSession

from devboxd.aws.asker import ASKER
from devboxd.aws.console import ConsoleProvider
from devboxd.aws.helper import HELPER_MOST, HelperFailed, Helpers, Waits, runs
from devboxd.aws.source import mfa_of
from devboxd.errors import LoginNeeded
from devboxd.model.login import Method, mend
from devboxd.text import parse_rfc3339, rfc3339

_Word = Annotated[str, msgspec.Meta(pattern=r"^[!-~]+$", max_length=65536)]


@dataclass(slots=True)
class Kept:
    """What a person has given for one profile. In memory only: it is written nowhere.

    ``renewing`` is held by whoever renews a console login; ``waits`` tells which helpers those who use it wait for.
    """

    code: str | None = field(default=None, repr=False)  # of an MFA device; only while it is tried
    roles: dict[str, Any] = field(default_factory=dict, repr=False)  # what such codes gave; botocore's cache
    renewing: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)
    helpers: Helpers = field(default_factory=Helpers, repr=False)  # of all profiles
    waits: Waits = field(default_factory=Waits)


class _Answer(msgspec.Struct, rename="pascal"):
    """What a ``credential_process`` prints (AWS SDKs reference guide, "Process credential provider")."""

    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    access_key_id: _Word
    secret_access_key: _Word
    session_token: _Word | None = None
    expiration: str | None = None
    account_id: str | None = None


class Providers:
    """botocore's chain of providers: its component ``credential_provider`` of one session."""

    def __init__(
        self, session: AioSession, profile: str, region: str | None, kept: Kept, now: Callable[[], float]
    ) -> None:
        self._session = session
        self._profile = profile
        self._region = region
        self._kept = kept
        self._now = now
        self._chain: Any = None

    async def load_credentials(self) -> Any:
        """The first that there are; None where there are none."""
        if self._chain is None:
            self._chain = self._make()
        return await self._chain.load_credentials()

    def _make(self) -> Any:
        profiles = self._session.full_config.get("profiles", {})
        # What a code gave must outlive this session; what needs none is fetched anew by the next one.
        cache = self._kept.roles if mfa_of(profiles, self._profile) is not None else {}
        chain: Any = create_credential_resolver(self._session, cache=cache, region_name=self._region)
        builder = _Builder(self._session, cache, self._region, self._kept, self._now)
        role = chain.get_provider("assume-role")
        role._prompter = self._code
        role._profile_provider_builder = builder
        for mine in (builder.process(self._profile), builder.console(self._profile)):
            place = next(n for n, one in enumerate(chain.providers) if one.METHOD == mine.METHOD)
            chain.providers[place] = mine
        return chain

    def _code(self, prompt: str) -> str:
        """In place of a question on the daemon's terminal."""
        if self._kept.code is None:
            raise code_needed(self._profile)
        return self._kept.code


class _Builder(AioProfileProviderBuilder):
    """Makes the providers of one profile, also of one that a role has as its source."""

    def __init__(
        self,
        session: AioSession,
        cache: dict[str, Any],
        region: str | None,
        kept: Kept,
        now: Callable[[], float],
    ) -> None:
        super().__init__(session, cache=cache, region_name=region)
        self._of = session
        self._region = region
        self._kept = kept
        self._now = now

    def process(self, profile: str) -> Helper:
        """``credential_process``."""
        return Helper(profile, lambda: self._of.full_config, self._kept, self._now)

    def console(self, profile: str) -> ConsoleProvider:
        """``aws login``."""
        return ConsoleProvider(self._of, profile, self._region, self._kept.renewing, self._now)

    # The names are botocore's.
    _create_process_provider = process
    _create_login_provider = console


class Helper(AioProcessProvider):
    """Runs a ``credential_process`` and says in our own words what is wrong with what came."""

    def __init__(
        self, profile: str, load_config: Callable[[], Any], kept: Kept, now: Callable[[], float]
    ) -> None:
        super().__init__(profile_name=profile, load_config=load_config)
        self._whose = profile
        self._kept = kept
        self._now = now

    async def _retrieve_credentials_using(self, credential_process: str) -> dict[str, str | None]:
        """Credentials, named as botocore names them. Raises HelperFailed, without a word of the output."""
        if (late := self._kept.helpers.take(self._whose, credential_process)) is not None:
            with contextlib.suppress(HelperFailed):  # it has expired since, or never was any good
                return self._said(late)
        asker, now = ASKER.get(), asyncio.get_running_loop().time()
        try:
            with self._kept.waits.on(self._whose):
                async with asyncio.timeout_at(None if asker is None else asker.patience(now)):
                    output = await self._kept.helpers.output(self._whose, credential_process)
        except TimeoutError:
            raise runs(self._whose) from None
        return self._said(output)

    def _said(self, output: bytes) -> dict[str, str | None]:
        answer = self._read(output)
        return {
            "access_key": answer.access_key_id,
            "secret_key": answer.secret_access_key,
            "token": answer.session_token,
            "expiry_time": self._ends(answer.expiration),
            "account_id": answer.account_id or self.profile_config.get("aws_account_id"),
        }

    def _read(self, output: bytes) -> _Answer:
        if not output.strip():
            raise self._failed("printed nothing")
        if len(output) > HELPER_MOST:
            raise self._failed("printed far more than credentials")
        try:
            return msgspec.json.decode(output, type=_Answer)
        except msgspec.ValidationError as error:
            # msgspec names the field and its type, never the value.
            raise self._failed(f"printed JSON that is no credentials ({error})") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._failed("printed something that is not JSON") from None

    def _ends(self, expiration: str | None) -> str | None:
        """When they end, as botocore reads it. A time without a zone is taken for UTC."""
        if expiration is None:
            return None
        try:
            ends = parse_rfc3339(expiration)
        except (ValueError, OverflowError):
            raise self._failed("gave an Expiration that is no time") from None
        if ends <= self._now():
            raise self._failed("gave credentials that have expired already")
        return rfc3339(ends)

    def _failed(self, what: str) -> HelperFailed:
        return HelperFailed(profile=self._whose, what=what)


def code_needed(profile: str) -> LoginNeeded:
    """A role wants the code of an MFA device, and there is nobody to ask here."""
    return LoginNeeded(f"profile {profile!r} wants a code of your MFA device", hint=mend(Method.MFA, profile))

"""Log in to IAM Identity Center (SSO) by device code, and leave the token where every AWS tool looks.

The person opens a URL anywhere (also on another machine), confirms the code, and we poll. This works
over ssh and needs no listening port, unlike the browser redirect of newer CLIs. The cache file is
botocore's (``SSOTokenProvider``), client registration included, so its refresh goes on working.
Source: RFC 8628; service model of ``sso-oidc``.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiobotocore.config import AioConfig
from botocore import UNSIGNED

from devboxd import __version__
from devboxd.aws.clients import Caller, WallClock
from devboxd.aws.codes import AwsFailed
from devboxd.aws.errors import translate
from devboxd.aws.files import sso_logins
from devboxd.aws.generation import CONNECT_TIMEOUT, READ_TIMEOUT, new_session
from devboxd.aws.http import BoundedSession
from devboxd.aws.sso import SsoProfile, cached_token
from devboxd.errors import BadRequest, Denied, DevboxError, LoginNeeded, WrongState
from devboxd.model.login import mend
from devboxd.model.states import LoginState
from devboxd.text import one_line, parse_rfc3339, rfc3339

PAGE_MAX: Final = 2048  # characters of the address of a login page
LATEST: Final = 253402300799  # Unix seconds of the last moment of the year 9999
CLIENT_NAME: Final = "devbox"
GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
SLOWER: Final = 5.0  # seconds added to the interval when asked to slow down (RFC 8628, 3.5)
REGISTRATION_MARGIN: Final = timedelta(minutes=15)
T = TypeVar("T")
_Secret = Annotated[str, msgspec.Meta(min_length=1, max_length=65536)]
_PAGE: Final = re.compile(r"https://[A-Za-z0-9.-]+(:\d{1,5})?(?:[/?#][!-~]*)?\Z")


@dataclass(frozen=True, slots=True)
class LoginStep:
    """Progress. ``state``: open (visit ``url``, confirm ``code``), done, failed."""

    state: LoginState
    text: str
    url: str | None = None
    code: str | None = None
    expires: datetime | None = None  # open: of the code; done: of the login
    failure: DevboxError | None = None


class _Registered(msgspec.Struct, rename="camel"):
    client_id: _Secret
    client_secret: _Secret
    client_secret_expires_at: Annotated[float, msgspec.Meta(ge=0, le=LATEST)]


class _Device(msgspec.Struct, rename="camel"):
    device_code: _Secret
    user_code: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=86400)]
    verification_uri: str | None = None
    verification_uri_complete: str | None = None
    interval: Annotated[float, msgspec.Meta(ge=0, le=600)] | None = None


class _Token(msgspec.Struct, rename="camel"):
    access_token: _Secret
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=400 * 86400)]
    refresh_token: str | None = None


def _read(answer: Mapping[str, Any], kind: type[T]) -> T:
    """An answer, held to what it can be. Raises AwsFailed, without a word of what is in it."""
    try:
        return msgspec.convert(answer, kind)
    except msgspec.ValidationError:
        raise AwsFailed(
            f"sso-oidc answered with something that is no {kind.__name__[1:].lower()}",
            hint="is the endpoint of sso-oidc the right one? Look for AWS_ENDPOINT_URL",
        ) from None


class NotSso(BadRequest):
    """This profile's credentials do not come from SSO, so there is nothing to log in to."""

    code = "not-sso"


@dataclass(slots=True)
class Login:
    """One login of one profile.

    ``write`` puts a private file in place: complete or not at all. ``pause`` waits between polls (seconds); a test passes its own.
    """

    caller: Caller
    clock: WallClock
    write: Callable[[Path, bytes], object]
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    folder: Path = field(default_factory=sso_logins)
    code: str | None = field(default=None, repr=False)  # of an MFA device

    async def run(self) -> AsyncGenerator[LoginStep, None]:
        """Yield ``open`` or ``code``, then ``done`` or ``failed``. Raises nothing but cancellation.

        After ``code`` there is nothing more: whoever asked comes again with the code of the device.

        After ``done`` the account has dropped its old session: the next call uses the new login.
        """
        try:
            if self.caller.lent() is not None:
                raise WrongState(
                    f"a login would change nothing: profile {self.caller.profile_name!r} uses what a shell has lent it",
                    hint="devboxctl daemon restart forgets that; or lend it newer credentials: "
                    "devboxctl login --from-environment",
                )
            if (wanted := self.caller.device()) is not None:
                yield await self._with_code(wanted)
                return
            portal = self._portal()
            async with _oidc(portal) as oidc:
                registration = await self._registration(oidc, portal)
                answer = await oidc.start_device_authorization(
                    clientId=registration["clientId"],
                    clientSecret=registration["clientSecret"],
                    startUrl=portal.start_url,
                )
                device = _read(answer, _Device)
                expires = self._now() + timedelta(seconds=device.expires_in)
                page = login_page(device.verification_uri_complete or device.verification_uri)
                code = one_line(device.user_code)
                yield LoginStep(
                    LoginState.OPEN,
                    f"confirm the code {code} in the browser",
                    url=page,
                    code=code,
                    expires=expires,
                )
                token = await self._poll(oidc, registration, device, expires)
            until = self._now() + timedelta(seconds=token.expires_in)
            await asyncio.to_thread(self._save, portal, registration, token, until)
            await self.caller.forget()
            yield LoginStep(LoginState.DONE, f"logged in to {portal.start_url}", expires=until)
        except Exception as error:  # noqa: BLE001 - botocore has no root of all that it raises
            failure = translate(
                error, service="sso-oidc", operation="create_token", profile=self.caller.profile
            )
            yield LoginStep(LoginState.FAILED, failure.message, failure=failure)

    async def _with_code(self, device: str) -> LoginStep:
        """Get the role of a profile with the code of its device, or ask for that."""
        if self.code is None:
            return LoginStep(LoginState.CODE, f"code of the MFA device {one_line(device)}")
        try:
            await self.caller.take_code(self.code)
        except Denied as error:
            if "MultiFactorAuthentication" not in error.message:
                raise
            raise LoginNeeded("AWS does not accept the code", hint="try again with the next one") from error
        left = await self.caller.credentials_expire_in()
        ends = None if left is None else self._now() + timedelta(seconds=left)
        return LoginStep(LoginState.DONE, f"logged in with the code of {one_line(device)}", expires=ends)

    def _portal(self) -> SsoProfile:
        portal = self.caller.sso()
        if portal is not None:
            return portal
        name, source = self.caller.profile or "default", self.caller.source()
        raise NotSso(
            f"profile {name!r} does not use SSO",
            hint=mend(source.method, self.caller.profile, source.name),
        )

    async def _registration(self, oidc: Any, portal: SsoProfile) -> dict[str, str]:
        """Our registration with the portal: the one of the last login, if it lives long enough."""
        known = cached_token(portal, self.folder)
        if known is not None and portal.session_name is not None:
            try:
                ends = parse_rfc3339(str(known.raw["registrationExpiresAt"]))
                if ends > self.clock.wall() + REGISTRATION_MARGIN.total_seconds():
                    return {
                        key: str(known.raw[key])
                        for key in ("clientId", "clientSecret", "registrationExpiresAt")
                    }
            except (KeyError, ValueError, TypeError):
                pass  # made by an older tool, or for a portal in the old style
        request: dict[str, Any] = {"clientName": CLIENT_NAME, "clientType": "public"}
        if portal.scopes:
            # With scopes (sso-session profiles only) the service also gives a refresh token.
            request |= {"scopes": list(portal.scopes), "grantTypes": [GRANT, "refresh_token"]}
        made = _read(await oidc.register_client(**request), _Registered)
        return {
            "clientId": made.client_id,
            "clientSecret": made.client_secret,
            "registrationExpiresAt": rfc3339(made.client_secret_expires_at, millis=False),
        }

    async def _poll(
        self, oidc: Any, registration: Mapping[str, str], device: _Device, expires: datetime
    ) -> _Token:
        interval = device.interval or 1.0
        while True:
            await self.pause(interval)
            try:
                token = await oidc.create_token(
                    grantType=GRANT,
                    clientId=registration["clientId"],
                    clientSecret=registration["clientSecret"],
                    deviceCode=device.device_code,
                )
            except oidc.exceptions.AuthorizationPendingException:
                pass
            except oidc.exceptions.SlowDownException:
                interval += SLOWER
            except oidc.exceptions.ExpiredTokenException as error:
                raise LoginNeeded("nobody confirmed the login in time", hint="try again") from error
            except oidc.exceptions.AccessDeniedException as error:
                raise LoginNeeded("the login was refused in the browser", hint="try again") from error
            else:
                return _read(token, _Token)
            if self._now() >= expires:
                raise LoginNeeded("nobody confirmed the login in time", hint="try again")

    def _save(
        self,
        portal: SsoProfile,
        registration: Mapping[str, str],
        token: _Token,
        until: datetime,
    ) -> None:
        """Write the cache file: complete or not at all, and only for this user."""
        content: dict[str, Any] = {
            "startUrl": portal.start_url,
            "region": portal.region,
            "accessToken": token.access_token,
            "expiresAt": rfc3339(until.timestamp(), millis=False),
            **registration,
        }
        if token.refresh_token:
            content["refreshToken"] = token.refresh_token
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.write(self.folder / f"{portal.cache_key}.json", json.dumps(content).encode())

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.clock.wall(), UTC)


def login_page(found: object) -> str:
    """The page to open. Raises LoginNeeded for one that we open for nobody.

    Whoever can change a page on its way can ask for another code to be confirmed: the login of somebody else.
    """
    is_page = isinstance(found, str) and len(found) <= PAGE_MAX and _PAGE.match(found) is not None
    if not is_page:
        raise LoginNeeded(
            "the login page that AWS names is no https address",
            hint="is the endpoint of sso-oidc the right one? Look for AWS_ENDPOINT_URL",
        )
    return str(found)


def _oidc(portal: SsoProfile) -> Any:
    """A client that needs no credentials, in the portal's region."""
    config = AioConfig(
        signature_version=UNSIGNED,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": 2},
        user_agent_extra=f"devbox/{__version__}",
        warm_up_loader_caches=True,
        http_session_cls=BoundedSession,
    )
    session = new_session(portal.profile)
    return session.create_client("sso-oidc", region_name=portal.region, config=config)

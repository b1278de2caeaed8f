"""``aws login``: credentials of a console session, renewed without the AWS Common Runtime that botocore wants for it.

The cache file and the call are botocore's (``LoginCredentialFetcher``): whoever renews it, the aws CLI or we, the
others see it. The proof of the key (DPoP) is RFC 9449's, made with ``cryptography``.
"""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, cast

import msgspec
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import AioSession
from botocore import UNSIGNED
from botocore.credentials import CredentialProvider
from botocore.utils import JSONFileCache, LoginTokenLoader
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from devboxd.aws.files import console_logins
from devboxd.errors import LoginNeeded
from devboxd.model.login import Method, mend
from devboxd.text import parse_rfc3339

EARLY: Final = 5 * 60.0  # seconds before their end that credentials are renewed; botocore's
COORDINATE: Final = 32  # bytes of a number of P-256
_Word = Annotated[str, msgspec.Meta(min_length=1)]


class _Keys(msgspec.Struct, rename="camel"):
    """Credentials, in the file and in the answer."""

    access_key_id: _Word
    secret_access_key: _Word
    session_token: _Word
    expires_at: str = ""
    account_id: str | None = None


class _Login(msgspec.Struct, rename="camel"):
    """The cache file of one login, as far as we use it."""

    access_token: _Keys
    refresh_token: _Word
    client_id: _Word
    dpop_key: _Word


class _Renewed(msgspec.Struct, rename="camel"):
    """``CreateOAuth2Token``'s ``tokenOutput``."""

    access_token: _Keys
    refresh_token: _Word
    expires_in: Annotated[float, msgspec.Meta(gt=0, le=366 * 86400)]


class ConsoleProvider(CredentialProvider):
    """In place of botocore's ``LoginProvider``."""

    METHOD = "login"

    def __init__(
        self,
        session: AioSession,
        profile: str,
        region: str | None,
        renewing: asyncio.Lock,
        now: Callable[[], float],
    ) -> None:
        """``renewing``: one for all sessions that may renew this login. ``now``: Unix seconds."""
        super().__init__()
        self._session = session
        self._profile = profile
        self._region = region
        self._renewing = renewing
        self._now = now
        # The stubs say otherwise, but this is what botocore does.
        self._files: Any = LoginTokenLoader(cast("Any", JSONFileCache(str(console_logins()))))

    async def load(self) -> AioRefreshableCredentials | None:
        """The credentials of the file; they are renewed when they are asked for and too old.

        Raises: LoginNeeded where the file is missing or useless.
        """
        settings = self._session.full_config.get("profiles", {}).get(self._profile, {})
        if not (name := settings.get("login_session")):
            return None
        keys = self._login(name)[1].access_token
        ends = datetime.fromtimestamp(parse_rfc3339(keys.expires_at), UTC)
        return AioRefreshableCredentials(
            keys.access_key_id,
            keys.secret_access_key,
            keys.session_token,
            ends,
            time_fetcher=lambda: datetime.fromtimestamp(self._now(), UTC),
            refresh_using=lambda: self._renew_alone(name),
            method=self.METHOD,
            account_id=keys.account_id,
        )

    async def _renew_alone(self, name: str) -> dict[str, str | None]:
        """A refresh token is good once, and every region of a profile comes for it in the same moment."""
        async with self._renewing:
            return await self._renew(name)

    async def _renew(self, name: str) -> dict[str, str | None]:
        raw, login = self._login(name)  # again: another region or the aws CLI may have renewed it
        if parse_rfc3339(login.access_token.expires_at) - self._now() > EARLY:
            return self._found(login.access_token)
        proof = _proof_of(login.dpop_key)
        if proof is None:
            raise self._ended("holds no key that can be used")
        config = AioConfig(signature_version=UNSIGNED)
        async with self._session.create_client("signin", region_name=self._region, config=config) as client:
            client.meta.events.register("before-call.signin.CreateOAuth2Token", self._signs(proof))
            asked = {
                "clientId": login.client_id,
                "refreshToken": login.refresh_token,
                "grantType": "refresh_token",
            }
            try:
                answer = await client.create_oauth2_token(tokenInput=asked)
            except client.exceptions.AccessDeniedException as error:
                newer = self._login(name)[1]
                if newer.refresh_token == login.refresh_token:
                    raise self._ended("has ended") from error
                return self._found(newer.access_token)  # the aws CLI was faster
        try:
            renewed = msgspec.convert(answer.get("tokenOutput"), _Renewed)
        except msgspec.ValidationError:
            raise self._ended("could not be renewed: the answer was none") from None
        ends = datetime.fromtimestamp(self._now(), UTC) + timedelta(seconds=renewed.expires_in)
        keys = msgspec.structs.replace(
            renewed.access_token,
            expires_at=ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            account_id=login.access_token.account_id,
        )
        raw |= {"accessToken": msgspec.to_builtins(keys), "refreshToken": renewed.refresh_token}
        self._files.save_token(name, raw)
        return self._found(keys)

    def _login(self, name: str) -> tuple[dict[str, Any], _Login]:
        """The file as it is, and what we read of it. Raises LoginNeeded, without a word of what is in it."""
        try:
            raw = self._files.load_token(name)
        except (KeyError, ValueError):
            raw = None
        if raw is None:
            raise self._ended("was not found")
        try:
            login = msgspec.convert(raw, _Login)
            parse_rfc3339(login.access_token.expires_at)
        except (msgspec.ValidationError, ValueError, OverflowError):
            raise self._ended("is stored in a file that can not be understood") from None
        return raw, login

    def _signs(self, key: ec.EllipticCurvePrivateKey) -> Callable[..., None]:
        """What botocore calls with each request."""

        def sign(params: dict[str, Any], **_: object) -> None:
            params["headers"]["DPoP"] = dpop(key, params["url"], str(uuid.uuid4()), int(self._now()))

        return sign

    @staticmethod
    def _found(keys: _Keys) -> dict[str, str | None]:
        """As botocore names them."""
        return {
            "access_key": keys.access_key_id,
            "secret_key": keys.secret_access_key,
            "token": keys.session_token,
            "expiry_time": keys.expires_at,
            "account_id": keys.account_id,
        }

    def _ended(self, what: str) -> LoginNeeded:
        return LoginNeeded(
            f"the console login (aws login) of profile {self._profile!r} {what}",
            hint=mend(Method.CONSOLE, self._profile),
        )


def _proof_of(pem: str) -> ec.EllipticCurvePrivateKey | None:
    """The private key of a login."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) and key.key_size == 256 else None


def dpop(key: ec.EllipticCurvePrivateKey, url: str, number: str, now: int) -> str:
    """A proof that we hold the key, for one request to ``url`` (RFC 9449, section 4.2). ``now``: Unix seconds."""
    point = key.public_key().public_numbers()
    jwk = {"kty": "EC", "x": _number(point.x), "y": _number(point.y), "crv": "P-256"}
    head = _part({"typ": "dpop+jwt", "alg": "ES256", "jwk": jwk})
    body = _part({"htm": "POST", "htu": url, "iat": now, "jti": number})
    r, s = decode_dss_signature(key.sign(f"{head}.{body}".encode(), ec.ECDSA(SHA256())))
    return f"{head}.{body}.{_text(r.to_bytes(COORDINATE, 'big') + s.to_bytes(COORDINATE, 'big'))}"


def _part(value: object) -> str:
    return _text(json.dumps(value, separators=(",", ":")).encode())


def _number(value: int) -> str:
    return _text(value.to_bytes(COORDINATE, "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

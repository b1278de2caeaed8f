"""What ~/.aws says about IAM Identity Center (SSO): a profile's portal and its cached token.

The names and the format of the cache file are botocore's (``SSOTokenLoader``, ``SSOTokenProvider``):
whoever logs in, the aws CLI or we, the others see it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiobotocore.session import AioSession

from devboxd.aws.files import sso_logins
from devboxd.aws.profiles import chain
from devboxd.text import parse_rfc3339


@dataclass(frozen=True, slots=True)
class SsoProfile:
    """The portal of a profile. ``session_name`` is None in the old style without an sso-session."""

    profile: str
    start_url: str
    region: str
    session_name: str | None = None
    scopes: tuple[str, ...] = ()

    @property
    def cache_key(self) -> str:
        """The name of the cache file, without ``.json``."""
        # Not a security use of SHA-1: it is the file name that every AWS tool expects.
        return hashlib.sha1((self.session_name or self.start_url).encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A token as the cache file has it. ``raw`` is the whole file, secrets included."""

    expires: datetime
    refreshable: bool
    raw: dict[str, Any] = field(repr=False)


def sso_profile(session: AioSession, profile: str | None) -> SsoProfile | None:
    """The SSO portal behind a profile, also of a source of its role; None where there is none.

    May raise botocore's ConfigParseError.
    """
    configuration = session.full_config
    names = chain(configuration.get("profiles", {}), profile or "default")
    return next(filter(None, (portal_of(configuration, name) for name in names)), None)


def portal_of(configuration: Mapping[str, Any], name: str) -> SsoProfile | None:
    """The SSO portal that a profile names itself. ``configuration``: as botocore reads the files."""
    settings = configuration.get("profiles", {}).get(name, {})
    session_name = settings.get("sso_session")
    portal = configuration.get("sso_sessions", {}).get(session_name, {}) if session_name else settings
    if not (portal.get("sso_start_url") and portal.get("sso_region")):
        return None
    scopes = str(portal.get("sso_registration_scopes", "")).replace(",", " ").split()
    return SsoProfile(
        profile=name,
        start_url=portal["sso_start_url"],
        region=portal["sso_region"],
        session_name=session_name,
        scopes=tuple(scopes) or (("sso:account:access",) if session_name else ()),
    )


def cached_token(portal: SsoProfile, folder: Path | None = None) -> CachedToken | None:
    """The cached token, expired or not; None where the file is missing or useless."""
    path = (folder or sso_logins()) / f"{portal.cache_key}.json"
    try:
        raw = json.loads(path.read_bytes())
        expires = datetime.fromtimestamp(parse_rfc3339(str(raw["expiresAt"])), UTC)
        if not raw["accessToken"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return CachedToken(expires=expires, refreshable=bool(raw.get("refreshToken")), raw=raw)

"""Where the credentials of a profile come from, told from the settings alone: no provider is asked.

The order is that of botocore's ``create_credential_resolver``: the environment (unless a profile was asked
for), a role with its source, a web identity, SSO, an access key, ``aws login``, a process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from aiobotocore.session import AioSession

from devboxd.aws.profiles import Profiles, chain, profile_of
from devboxd.aws.sso import SsoProfile, cached_token, portal_of
from devboxd.model.login import Method, Source
from devboxd.text import parse_rfc3339

# What botocore calls its providers, and what they mean for whoever has to renew their credentials.
METHODS: Final[Mapping[str, Method]] = {
    "env": Method.ENVIRONMENT,
    "shared-credentials-file": Method.KEYS,
    "config-file": Method.KEYS,
    "boto-config": Method.KEYS,
    "custom-process": Method.PROCESS,
    "assume-role-with-web-identity": Method.WEB_IDENTITY,
    "sso": Method.SSO,
    "login": Method.CONSOLE,
    "iam-role": Method.MACHINE,
    "container-role": Method.MACHINE,
}
_CREDENTIAL_SOURCES: Final = {
    "Environment": Method.ENVIRONMENT,
    "Ec2InstanceMetadata": Method.MACHINE,
    "EcsContainer": Method.MACHINE,
}
# When the keys in ~/.aws/credentials end, where the tool that wrote them says so (saml2aws, aws-mfa).
_NOTED_ENDS: Final = ("x_security_token_expires", "expiration")


def source_of(session: AioSession, profile: str | None, environment: Mapping[str, str], now: float) -> Source:
    """Say where the credentials of a profile come from.

    Args:
        profile: that was asked for; None: as the environment says.
        now: Unix seconds.

    May raise botocore's ConfigParseError.
    """
    name = profile_of(profile, environment) or "default"
    profiles: Profiles = session.full_config.get("profiles", {})
    if profile is None and environment.get("AWS_ACCESS_KEY_ID"):
        return _environment(environment, now)
    if mfa_of(profiles, name) is not None:
        return Source(Method.MFA, name)
    name, method = _end_of(profiles, name)
    if method is Method.ENVIRONMENT:
        return _environment(environment, now)
    if method is not None:
        return Source(method, name)
    settings = profiles.get(name, {})
    if "role_arn" in settings and "web_identity_token_file" in settings:
        return Source(Method.WEB_IDENTITY, name, renews=True)
    if profile is None and {"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"} <= environment.keys():
        return Source(Method.WEB_IDENTITY, name, renews=True)
    if (portal := portal_of(session.full_config, name)) is not None:
        return _of_portal(portal, now)
    if "aws_access_key_id" in settings:
        return Source(Method.KEYS, name, _left(next(filter(None, map(settings.get, _NOTED_ENDS)), None), now))
    if "login_session" in settings:
        return Source(Method.CONSOLE, name, renews=True)
    if "credential_process" in settings:
        return Source(Method.PROCESS, name, renews=True)
    if any(variable.startswith("AWS_CONTAINER_CREDENTIALS_") for variable in environment):
        return Source(Method.MACHINE, name, renews=True)
    return Source(Method.NONE, name)


def _end_of(profiles: Profiles, name: str) -> tuple[str, Method | None]:
    """Where a chain of roles and their sources ends: the last profile, and the ``credential_source`` it names."""
    *_, last = chain(profiles, name)
    settings = profiles.get(last, {})
    named = settings.get("credential_source", "") if "role_arn" in settings else ""
    return last, _CREDENTIAL_SOURCES.get(named)


def mfa_of(profiles: Profiles, name: str) -> str | None:
    """The MFA device whose code a profile, or one of its sources, wants; None: none of them does."""
    taken = (profiles.get(link, {}) for link in chain(profiles, name))
    wanted = (settings.get("mfa_serial") for settings in taken if "role_arn" in settings)
    return next((str(serial) for serial in wanted if serial), None)


def _of_portal(portal: SsoProfile, now: float) -> Source:
    token = cached_token(portal)
    left = None if token is None else token.expires.timestamp() - now
    renews = token is not None and token.refreshable
    return Source(Method.SSO, portal.session_name or portal.start_url, left, renews)


def _environment(environment: Mapping[str, str], now: float) -> Source:
    return Source(Method.ENVIRONMENT, "environment", _left(environment.get("AWS_CREDENTIAL_EXPIRATION"), now))


def _left(ends: str | None, now: float) -> float | None:
    try:
        return None if ends is None else parse_rfc3339(ends) - now
    except (ValueError, OverflowError):
        return None

"""Logins: where credentials come from, when a person has to renew them, and how.

One login can stand behind many accounts: every region of a profile, and every profile of one SSO session. A
person hears of it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec

WARN_BEFORE: Final = 15 * 60.0  # seconds before a login ends


class Method(StrEnum):
    """Where credentials come from: whoever has to renew them goes there."""

    SSO = "sso"  # IAM Identity Center, by a token in ~/.aws/sso/cache
    KEYS = "keys"  # an access key in ~/.aws, for good or for some hours
    ENVIRONMENT = "environment"  # AWS_ACCESS_KEY_ID and its companions
    PROCESS = "process"  # credential_process
    WEB_IDENTITY = "web-identity"  # a token in a file
    CONSOLE = "console"  # aws login
    MFA = "mfa"  # a role that wants the code of a device
    LENT = "lent"  # handed over from a shell: devboxctl login --from-environment
    MACHINE = "machine"  # the role of this machine or container
    NONE = "none"  # nothing is set up


class Source(msgspec.Struct, frozen=True):
    """Where the credentials of an account come from, as its configuration says.

    ``name`` is what they are called: the profile that holds them (a role's source), or the SSO session.
    """

    method: Method
    name: str
    expires_in: float | None = None  # seconds that the login has left; None: not known, or never
    renews: bool = False  # it renews itself, as far as can be told


class Seen(msgspec.Struct, frozen=True):
    """What is known of one account's credentials now."""

    profile: str
    source: Source
    refused: str | None = None  # why AWS did not take them, since a call last went through
    waiting: int = 0  # sessions that wait for new ones
    has_worked: bool = False


class Verdict(StrEnum):
    """What a person should know of a login, worst last. REFUSED: it has never worked, and nothing waits for it."""

    FINE = "fine"
    REFUSED = "refused"
    EXPIRING = "expiring"
    NEEDED = "needed"


class Login(msgspec.Struct, frozen=True):
    """One login: a verdict, and the words for it."""

    source: Source
    verdict: Verdict
    problem: str = ""
    mend: str = ""


def logins(accounts: Iterable[Seen]) -> list[Login]:
    """Judge every login behind these accounts, each once."""
    by_source: dict[tuple[Method, str], list[Seen]] = {}
    for seen in accounts:
        by_source.setdefault((seen.source.method, seen.source.name), []).append(seen)
    return [_judged(group) for group in by_source.values()]


def _judged(accounts: Sequence[Seen]) -> Login:
    source = accounts[0].source
    verdict = max((_verdict(seen) for seen in accounts), key=list(Verdict).index)
    profiles = sorted({seen.profile for seen in accounts})
    hint = mend(source.method, profiles[0], source.name)
    if verdict is Verdict.NEEDED:
        refused = next((seen.refused for seen in accounts if seen.refused is not None), None)
        return Login(source, verdict, _ended(source.method, profiles, refused), hint)
    if verdict is Verdict.REFUSED:
        return Login(
            source, verdict, next(seen.refused for seen in accounts if seen.refused is not None), hint
        )
    if verdict is Verdict.EXPIRING:
        minutes = max(1, round((source.expires_in or 0.0) / 60))
        return Login(source, verdict, f"{_whose(source.method, profiles)} ends in {minutes} min", hint)
    return Login(source, verdict)


def _verdict(seen: Seen) -> Verdict:
    """Judge one account.

    Somebody who mistypes a profile once is told so by that command; what was refused is needed (a condition) only
    where something waits for it, or worked before.
    """
    source = seen.source
    if seen.refused is not None and (seen.waiting or seen.has_worked):
        return Verdict.NEEDED
    known = _by_time(source)
    return Verdict.REFUSED if seen.refused is not None and known is Verdict.FINE else known


def _by_time(source: Source) -> Verdict:
    if source.expires_in is None or source.renews:
        return Verdict.FINE  # what renews itself is refused when it no longer does
    if source.expires_in <= 0:
        # Who wrote down when keys end may be wrong: AWS has the last word.
        return Verdict.FINE if source.method is Method.KEYS else Verdict.NEEDED
    return Verdict.EXPIRING if source.expires_in <= WARN_BEFORE else Verdict.FINE


def mend(method: Method, profile: str | None, name: str | None = None) -> str:
    """Say what a person has to do to get new credentials.

    Args:
        profile: that is used; None: the default one.
        name: of the profile that holds the credentials, where that is another one.
    """
    option = f" --profile {profile}" if profile and profile != "default" else ""
    holder = name or profile or "default"
    match method:
        case Method.SSO | Method.MFA:
            return f"run: devboxctl login{option}"
        case Method.CONSOLE:
            return f"run: aws login{option}"
        case Method.KEYS:
            return f"renew the access key of profile {holder!r} in ~/.aws/credentials; devboxd sees it"
        case Method.ENVIRONMENT:
            return (
                "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN in your shell, then run there: "
                f"devboxctl login --from-environment{option}"
            )
        case Method.LENT:
            return f"renew them in your shell, then run there: devboxctl login --from-environment{option}"
        case Method.PROCESS:
            return f"run the credential_process of profile {holder!r} by hand to see what it lacks"
        case Method.WEB_IDENTITY:
            return f"renew the token in the web identity file of profile {holder!r}; devboxd sees it"
        case Method.MACHINE:
            return "look at the role of this machine: it gave credentials that AWS does not take"
        case Method.NONE:
            return (
                "set AWS_PROFILE, or name a profile in devbox's config.toml, then run: devboxctl login; or lend it "
                "what your shell has: devboxctl login --from-environment"
                if profile in (None, "default")
                else f"set up credentials for it (aws configure sso --profile {profile}), then run: "
                f"devboxctl login{option}"
            )


def _ended(method: Method, profiles: Sequence[str], refused: str | None) -> str:
    whose = _whose(method, profiles)
    if method is Method.SSO or refused is None:
        return f"{whose} has ended"
    return f"{whose} does not work any more: {refused}"


def _whose(method: Method, profiles: Sequence[str]) -> str:
    what = {Method.KEYS: "the access key", Method.PROCESS: "the credential_process"}.get(method, "the login")
    if method is Method.ENVIRONMENT:
        return "what the daemon's environment has as AWS credentials"
    if method is Method.LENT:
        return f"what your shell has lent to profile {', '.join(profiles)}"
    return f"{what} of profile{'s' if len(profiles) > 1 else ''} {', '.join(profiles)}"

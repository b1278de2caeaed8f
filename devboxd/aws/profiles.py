"""AWS profiles: which one is used, where its credentials come from, and what was meant by one that there is not."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from devboxd.text import one_line

LISTED: Final = 8  # profiles that a hint names
SHOWN: Final = 60  # characters of each

Profiles = Mapping[str, Mapping[str, Any]]


def profile_of(asked: str | None, environment: Mapping[str, str]) -> str | None:
    """The profile that was asked for, or else the environment's; None: nobody names one, and it is ``default``."""
    return asked or environment.get("AWS_DEFAULT_PROFILE") or environment.get("AWS_PROFILE") or None


def chain(profiles: Profiles, name: str) -> list[str]:
    """A profile and the sources of its role, as botocore follows them; the last one has the credentials.

    A source need not exist. One that is there twice is the last: its own keys, or a circle (``is_circle``).
    """
    found = [name]
    while _takes_role(profiles.get(found[-1], {})):
        source = str(profiles[found[-1]].get("source_profile") or "")
        if not source:
            break
        found.append(source)
        if source in found[:-1] or _has_keys(profiles.get(source, {})):
            break
    return found


def is_circle(profiles: Profiles, found: list[str]) -> bool:
    """Say whether such a chain leads to nothing. A profile may take its role with the keys beside it."""
    last, before = found[-1], found[:-1]
    return last in before and not (last == before[-1] and _has_keys(profiles.get(last, {})))


def _takes_role(settings: Mapping[str, Any]) -> bool:
    return "role_arn" in settings and "web_identity_token_file" not in settings


def _has_keys(settings: Mapping[str, Any]) -> bool:
    return "aws_access_key_id" in settings or "aws_secret_access_key" in settings


def hint(asked: str, configuration: Mapping[str, Any], file: str) -> str:
    """What to do about a profile that does not exist.

    Args:
        configuration: as botocore reads the files: ``profiles``, ``sso_sessions``, and every other section by
            its own name.
        file: the name of the file that profiles stand in.
    """
    profiles: Collection[str] = configuration.get("profiles", {})
    for section in configuration:
        if section not in ("profiles", "sso_sessions", "services") and _means(section, asked):
            return f"a section [{one_line(section)}] in {file} is no profile: call it [profile {one_line(asked)}]"
    bare = re.sub(r"\s+", " ", asked).strip().removeprefix("profile ").strip("\"'")
    if bare in profiles:
        return f"did you mean {_shown(bare)}?"
    if asked in configuration.get("sso_sessions", {}):
        name = one_line(asked)
        return f"{name} is an SSO session in {file}: a profile that uses it says sso_session = {name}"
    by_lower = {name.lower(): name for name in profiles}
    if close := difflib.get_close_matches(bare.lower(), by_lower, n=3):
        return f"did you mean {' or '.join(_shown(by_lower[low]) for low in close)}?"
    where = "where the name comes from: devboxctl config show --origin"
    if not profiles:
        return f"{file} has no profile; {where}"
    listed = ", ".join(_shown(name) for name in sorted(profiles)[:LISTED])
    more = f" and {len(profiles) - LISTED} more" if len(profiles) > LISTED else ""
    return f"there are {listed}{more}; {where}"


def _means(section: str, asked: str) -> bool:
    """Say whether a section was meant to be this profile, and botocore takes it for something else."""
    words = section.split(maxsplit=1)
    if len(words) == 2 and words[0].lower() in ("profile", "profiles", "profile:"):
        section = words[1].strip("\"'")
    return section == asked


def _shown(name: str) -> str:
    return one_line(name)[:SHOWN]

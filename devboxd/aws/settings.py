"""What is wrong with the AWS settings of a profile, told before they are used: file, profile, setting and mend.

botocore would stop at most of these with the name of a class, at some of them much later, and at a few not at all.
Nothing that may be secret is quoted.
"""

from __future__ import annotations

import configparser
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from aiobotocore.session import AioSession

from devboxd.aws import profiles as profiles_
from devboxd.aws.errors import ProfileUnknown
from devboxd.aws.files import config_file, credentials_file, expanded
from devboxd.errors import BadRequest
from devboxd.text import one_line

SHOWN: Final = 80  # characters of a value in a message
KEY_ID, SECRET = "aws_access_key_id", "aws_secret_access_key"
_REGION: Final = re.compile(r"[a-z]{2,8}(-[a-z]+){1,3}-\d{1,2}")
_LABEL: Final = re.compile(r"(?!\d+$)(?!-)[a-zA-Z0-9-]{1,63}(?<!-)")
_URL: Final = re.compile(r"https?://[^\s/?#\"']+(?:[/?#]\S*)?")
_ARN: Final = re.compile(r"arn:[a-z-]+:[^\s\"']+")
_WORD: Final = re.compile(r"[!-~]+")

Settings = Mapping[str, Any]


def _is_count(value: str) -> bool:
    return value.isascii() and value.isdigit() and int(value) > 0


def _one_of(*words: str) -> tuple[Callable[[str], bool], str]:
    return (lambda value: value.lower() in words), f"one of {', '.join(words)}"


def _is_bare(value: str) -> bool:
    """Say whether a key is as AWS gives it: without quotes, spaces or a comment behind it."""
    return _WORD.fullmatch(value) is not None and value[0] not in "\"'"


_COUNT: Final = (_is_count, "a number above 0")


def _is_address(value: str) -> bool:
    try:
        return (
            _URL.fullmatch(value) is not None and bool(urlsplit(value).hostname) and urlsplit(value).port != 0
        )
    except ValueError:
        return False  # what stands for its port is none, or a bracket is open


_ADDRESS: Final = (
    _is_address,
    "an address that begins with https:// or http://",
)
_NAME: Final = (
    lambda value: _ARN.fullmatch(value) is not None,
    "an ARN, as in arn:aws:iam::111122223333:role/name",
)
_KEY: Final = (_is_bare, "the bare key: no quotes, no spaces, and a comment needs a line of its own")
# What a value has to be, and how that is said. The variable is the environment's name for it, where there is one.
_RULES: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    KEY_ID: _KEY,
    SECRET: _KEY,
    "aws_session_token": _KEY,
    "max_attempts": _COUNT,
    "metadata_service_timeout": _COUNT,
    "metadata_service_num_attempts": _COUNT,
    "duration_seconds": _COUNT,
    "retry_mode": _one_of("legacy", "standard", "adaptive"),
    "sts_regional_endpoints": _one_of("legacy", "regional"),
    "defaults_mode": _one_of("legacy", "auto", "standard", "in-region", "cross-region", "mobile"),
    "ec2_metadata_service_endpoint_mode": _one_of("ipv4", "ipv6"),
    "account_id_endpoint_mode": _one_of("preferred", "disabled", "required"),
    "request_checksum_calculation": _one_of("when_supported", "when_required"),
    "response_checksum_validation": _one_of("when_supported", "when_required"),
    "credential_source": _one_of("environment", "ec2instancemetadata", "ecscontainer"),
    "endpoint_url": _ADDRESS,
    "sso_start_url": _ADDRESS,
    "sso_region": (
        lambda value: _REGION.fullmatch(value) is not None,
        "the name of a region, as in eu-west-1",
    ),
    "role_arn": _NAME,
    "external_id": (
        lambda value: re.fullmatch(r"[\w+=,.@:/\\-]{2,1224}", value, re.ASCII) is not None,
        "2 to 1224 letters, digits and _+=,.@:/-",
    ),
    "role_session_name": (
        lambda value: re.fullmatch(r"[\w+=,.@-]{2,64}", value, re.ASCII) is not None,
        "2 to 64 letters, digits and _+=,.@-",
    ),
    "request_min_compression_size_bytes": (
        lambda value: value.isascii() and value.isdigit() and int(value) <= 10_485_760,
        "a number of bytes up to 10485760",
    ),
    "mfa_serial": (
        _is_bare,
        "the ARN or serial number of a device, without quotes or a comment",
    ),
}
_VARIABLES: Final = {
    "AWS_MAX_ATTEMPTS": "max_attempts",
    "AWS_METADATA_SERVICE_TIMEOUT": "metadata_service_timeout",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS": "metadata_service_num_attempts",
    "AWS_RETRY_MODE": "retry_mode",
    "AWS_STS_REGIONAL_ENDPOINTS": "sts_regional_endpoints",
    "AWS_DEFAULTS_MODE": "defaults_mode",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "ec2_metadata_service_endpoint_mode",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE": "account_id_endpoint_mode",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "request_checksum_calculation",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "response_checksum_validation",
    "AWS_ENDPOINT_URL": "endpoint_url",
}
_SECRETS: Final = frozenset({KEY_ID, SECRET, "aws_session_token"})


def check(session: AioSession, profile: str | None, environment: Mapping[str, str]) -> None:
    """Look at what a profile and its sources say, and at the environment.

    Args:
        profile: that was asked for; None: as the environment says.

    Raises:
        BadRequest: something there can not be; the first that was found.
        ProfileUnknown: there is no such profile.
    """
    services = {name: "endpoint_url" for name in environment if name.startswith("AWS_ENDPOINT_URL_")}
    for variable, setting in (_VARIABLES | services).items():
        if (value := environment.get(variable)) and not _RULES[setting][0](value):
            raise _bad(f"in the environment of devboxd {variable}", setting, value)
    if bundle := environment.get("AWS_CA_BUNDLE"):
        _check_bundle(bundle, lambda: "in the environment of devboxd AWS_CA_BUNDLE", "in AWS_CA_BUNDLE")
    if profile is None:
        _check_variables(environment)
    files = Files(environment)
    files.check()
    name = profiles_.profile_of(profile, environment) or "default"
    profiles: profiles_.Profiles = session.full_config.get("profiles", {})
    portals: profiles_.Profiles = session.full_config.get("sso_sessions", {})
    if name not in profiles and name != "default":
        raise ProfileUnknown(
            f"there is no AWS profile named {name!r}",
            hint=profiles_.hint(name, session.full_config, files.config),
        )
    chain = profiles_.chain(profiles, name)
    for link in dict.fromkeys(chain):
        if (settings := profiles.get(link)) is None:
            break  # the default one need not be there
        _check_values(files, link, settings)
        _check_keys(files, link, settings)
        _check_portal(files, link, settings, portals)
        _check_role(files, link, settings, session.full_config, environment)
    _check_services(files, name, profiles.get(name, {}), session.full_config.get("services", {}))
    if profiles_.is_circle(profiles, chain):
        raise BadRequest(
            f"the AWS configuration can not be used: the source_profile links of profile {name!r} form a circle",
            hint=f"correct source_profile in {files.config}",
        )


def region_of(
    session: AioSession, asked: str | None, profile: str, environment: Mapping[str, str]
) -> tuple[str, Callable[[], str]] | None:
    """The region that is named somewhere, and what says where; None where none is."""
    if asked:
        return asked, lambda: "the region that was asked for"
    variable = next(filter(environment.get, ("AWS_REGION", "AWS_DEFAULT_REGION")), None)
    if variable is not None:
        return environment[variable], lambda: f"{variable} in the environment of devboxd"
    value = session.get_scoped_config().get("region")
    if not value:
        return None

    def place() -> str:  # it reads both files once more
        return f"{Files(environment).place(profile, 'region')}, profile {profile!r}: region"

    return str(value), place


def check_region(region: str, origin: Callable[[], str], *, has_endpoint: bool) -> None:
    """Look at the name of a region.

    Args:
        origin: says where it was said, as a sentence names it.
        has_endpoint: an endpoint of its own is given: emulators and private clouds name regions as they like.

    Raises:
        BadRequest: it can not be one.
    """
    fits = _LABEL if has_endpoint else _REGION
    if fits.fullmatch(region) is not None:
        return
    mended = _mended(region)
    hint = f"did you mean {mended}?" if mended else "a region is named as in eu-west-1"
    if "#" in region or ";" in region:
        hint += " A comment needs a line of its own"
    raise BadRequest(
        f"the AWS configuration can not be used: {origin()} is {_shown(region)}, which is none", hint=hint
    )


def _mended(region: str) -> str | None:
    """The region that was meant, if that can be told."""
    bare = re.split(r"\s*[#;,]", region, maxsplit=1)[0].strip().strip("\"'\u201c\u201d\u2018\u2019`").strip()
    bare = re.sub(r"[\s_]+", "-", bare.lower())
    bare = re.sub(r"(?<=\d)[a-z]$", "", bare)  # a zone
    bare = re.sub(r"(?<=[a-z])(?=\d+$)", "-", bare)
    return bare if _REGION.fullmatch(bare) and bare != region else None


class Files:
    """The two files of AWS settings, to say where something stands."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._names = (credentials_file(environment), config_file(environment))

    @property
    def config(self) -> str:
        """The name of the file that profiles stand in."""
        return self._names[1]

    def check(self) -> None:
        """Raise BadRequest where one is there and can not be read: botocore takes it for empty."""
        for name in self._names:
            path = expanded(name)
            if path.is_file() and not os.access(path, os.R_OK):
                raise BadRequest(
                    f"the AWS configuration can not be used: {name} can not be read",
                    hint=f"look at its owner and mode: ls -l {name}",
                )

    def sections(self) -> Iterator[tuple[str, configparser.RawConfigParser]]:
        """Each file by its name, as far as it can be read; what stands in ``~/.aws/credentials`` wins."""
        for name in self._names:
            parser = configparser.RawConfigParser(strict=False)
            try:
                parser.read(expanded(name), encoding="utf-8")
            except (configparser.Error, UnicodeDecodeError):
                continue
            yield name, parser

    def place(self, profile: str, setting: str) -> str:
        """The file in which a profile has a setting."""
        for name, parser in self.sections():
            for section in (profile, f"profile {profile}", f'profile "{profile}"', f"profile '{profile}'"):
                if parser.has_option(section, setting):
                    return name
        return self.config


def unparsed(path: str, environment: Mapping[str, str]) -> BadRequest:
    """Say why a file of settings can not be read, and where. No value of it is quoted: some are secrets."""
    names = (credentials_file(environment), config_file(environment))
    name = next((name for name in names if str(expanded(name)) == path), path)
    what, hint = _fault_in(path)
    return BadRequest(f"the AWS configuration can not be used: {name} {what}", hint=hint)


def _fault_in(path: str) -> tuple[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except UnicodeDecodeError:
        return "is not UTF-8", "write it anew as UTF-8"
    except OSError as error:
        return f"can not be read: {error.strerror}", f"look at its owner and mode: ls -l {path}"
    if text.startswith("\ufeff"):
        return "begins with a byte order mark", "write it anew as UTF-8 without one (without BOM)"
    try:
        configparser.RawConfigParser().read_string(text)
    except configparser.DuplicateSectionError as error:
        return (
            f"has [{one_line(str(error.section))}] twice, in line {error.lineno} again",
            "make one of the two",
        )
    except configparser.DuplicateOptionError as error:
        section, option = one_line(str(error.section)), one_line(str(error.option))
        return f"has {option} of [{section}] twice, in line {error.lineno} again", "take one of them out"
    except configparser.MissingSectionHeaderError as error:
        return (
            f"has in line {error.lineno} what belongs to no section",
            "a section begins with [profile NAME]",
        )
    except configparser.ParsingError as error:
        lines = ", ".join(str(line) for line, _ in error.errors[:3])
        return (
            f"can not be understood in line {lines}",
            "a line is [profile NAME], or a setting as in: region = eu-west-1",
        )
    except configparser.Error:
        pass
    return "can not be understood", "a line is [profile NAME], or a setting as in: region = eu-west-1"


def _check_variables(environment: Mapping[str, str]) -> None:
    """Look at the keys of the environment."""
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if bool(key) != bool(secret):
        there, missing = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"
        if not key:
            there, missing = missing, there
        raise BadRequest(
            f"the AWS configuration can not be used: the environment of devboxd has {there} without {missing}",
            hint=f"set {missing}, or unset {there}, then: devboxctl daemon restart",
        )


def _check_values(files: Files, profile: str, settings: Settings) -> None:
    for setting, (fits, _) in _RULES.items():
        value = settings.get(setting)
        if value is None:
            continue
        if not isinstance(value, str) or not value or not fits(value):
            raise _bad(f"{files.place(profile, setting)}, profile {profile!r}: {setting}", setting, value)
    bundle = settings.get("ca_bundle")
    if isinstance(bundle, str):
        _check_bundle(
            bundle, lambda: f"{files.place(profile, 'ca_bundle')}, profile {profile!r}: ca_bundle", "there"
        )


def _check_bundle(bundle: str, origin: Callable[[], str], where: str) -> None:
    """A bundle without a certificate would look like a network that is down."""
    path = Path(os.path.expanduser(bundle))
    if not path.is_file():
        raise BadRequest(
            f"the AWS configuration can not be used: {origin()} = {_shown(bundle)}: this CA bundle is no file",
            hint=f"correct it {where}; quotes and comments are taken for a part of the name",
        )
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        what = "has no certificate that can be read"
    except OSError as error:
        what = f"can not be read: {error.strerror}"
    else:
        return
    raise BadRequest(
        f"the AWS configuration can not be used: {origin()} = {_shown(bundle)}: this CA bundle {what}",
        hint="it has to be a file of certificates in PEM form (-----BEGIN CERTIFICATE-----)",
    )


def _check_keys(files: Files, profile: str, settings: Settings) -> None:
    """Half a pair opens nothing, unless something comes before keys."""
    if {"role_arn", "sso_session", "sso_start_url"} & settings.keys():
        return
    has = {name for name in (KEY_ID, SECRET) if settings.get(name)}
    if len(has) == 1:
        (there,) = has
        missing = SECRET if there == KEY_ID else KEY_ID
        raise BadRequest(
            f"the AWS configuration can not be used: {files.place(profile, there)}, profile {profile!r} has {there} "
            f"without {missing}",
            hint=f"add {missing} to the same file and profile",
        )


def _check_portal(files: Files, profile: str, settings: Settings, portals: profiles_.Profiles) -> None:
    """Look at an SSO profile: botocore names what is missing, and not where."""
    name = settings.get("sso_session")
    if name is not None and name not in portals:
        raise BadRequest(
            f"the AWS configuration can not be used: {files.config}, profile {profile!r}: there is no "
            f"[sso-session {one_line(str(name))}]",
            hint=f"correct sso_session there, or run: aws configure sso --profile {profile}",
        )
    portal = portals.get(str(name), {}) if name is not None else settings
    if name is not None:
        for setting in ("sso_start_url", "sso_region"):
            value, own = portal.get(setting), settings.get(setting)
            if value and not _RULES[setting][0](value):
                raise _bad(f"{files.config}, [sso-session {one_line(str(name))}]: {setting}", setting, value)
            if value and own is not None and own != value:
                raise BadRequest(
                    f"the AWS configuration can not be used: {files.config}, profile {profile!r}: {setting} is "
                    f"{_shown(own)}, and {_shown(value)} in [sso-session {one_line(str(name))}]",
                    hint=f"take {setting} out of the profile: the session has it",
                )
    if not {"sso_session", "sso_start_url", "sso_account_id", "sso_role_name"} & settings.keys():
        return
    wanted = {
        "sso_start_url": portal,
        "sso_region": portal,
        "sso_account_id": settings,
        "sso_role_name": settings,
    }
    if missing := [setting for setting, where in wanted.items() if not where.get(setting)]:
        raise BadRequest(
            f"the AWS configuration can not be used: {files.config}, profile {profile!r} uses SSO without "
            f"{' and '.join(missing)}",
            hint=f"add it, or run: aws configure sso --profile {profile}",
        )


def _check_services(files: Files, profile: str, settings: Settings, sections: Settings) -> None:
    """Look at the addresses of services that a profile names by a section of their own."""
    if (name := settings.get("services")) is None:
        return
    where = f"{files.place(profile, 'services')}, profile {profile!r}"
    section = sections.get(name)
    if not section:
        raise BadRequest(
            f"the AWS configuration can not be used: {where}: services = {_shown(name)} is no section "
            f"of {files.config} that says anything",
            hint=f"correct services there, or write [services {one_line(str(name))}] into {files.config}",
        )
    for service, said in section.items():
        value = said.get("endpoint_url") if isinstance(said, Mapping) else None
        if value is not None and not _ADDRESS[0](value):
            place = (
                f"{files.config}, [services {one_line(str(name))}]: {one_line(str(service))}: endpoint_url"
            )
            raise _bad(place, "endpoint_url", value)


def _check_role(
    files: Files,
    profile: str,
    settings: Settings,
    configuration: Mapping[str, Any],
    environment: Mapping[str, str],
) -> None:
    if "web_identity_token_file" in settings:
        if "role_arn" not in settings and "AWS_ROLE_ARN" not in environment:
            raise BadRequest(
                f"the AWS configuration can not be used: {files.place(profile, 'web_identity_token_file')}, profile "
                f"{profile!r} has a web_identity_token_file and no role_arn",
                hint="add role_arn there: the role that the token opens",
            )
        return
    if "role_arn" not in settings:
        return
    source, origin = settings.get("source_profile"), settings.get("credential_source")
    where = f"{files.config}, profile {profile!r}"
    if source is not None and origin is not None:
        raise BadRequest(
            f"the AWS configuration can not be used: {where} has both source_profile and credential_source",
            hint="take one of them out",
        )
    if source is None and origin is None:
        raise BadRequest(
            f"the AWS configuration can not be used: {where} has a role_arn and nothing to take it with",
            hint="add source_profile or credential_source there",
        )
    if source is not None and source not in configuration.get("profiles", {}):
        raise BadRequest(
            f"the AWS configuration can not be used: {where}: source_profile = {_shown(source)} is no profile",
            hint=profiles_.hint(str(source), configuration, files.config),
        )


def _bad(place: str, setting: str, value: object) -> BadRequest:
    """The refusal of one value. ``place`` ends in the name of the setting."""
    what = "has a value that can not be one" if setting in _SECRETS else f"can not be {_shown(value)}"
    name = place.rpartition(" ")[2]
    return BadRequest(
        f"the AWS configuration can not be used: {place} {what}",
        hint=f"{name} has to be {_RULES[setting][1]}",
    )


def _shown(value: object) -> str:
    text = one_line(str(value))
    return repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")

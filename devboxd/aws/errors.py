"""Failures of botocore and of the AWS services, as our own errors.

The texts are for people: one sentence, no request ids, and never a token. ``translate`` is the only place
that reads an AWS error code; what each means stands in ``codes``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from devboxd.aws.codes import AwsFailed, cancelled, row
from devboxd.aws.helper import HelperFailed, HelperRuns
from devboxd.aws.http import AnswerTooLong, ProxyDenied, ProxyUnsupported
from devboxd.aws.oddities import note
from devboxd.errors import BadRequest, Conflict, DevboxError, LoginNeeded, Unreachable
from devboxd.model import proxy
from devboxd.model.login import Method, mend
from devboxd.text import one_line


class RegionMissing(BadRequest):
    """No region is configured, and none can be told from an endpoint."""

    code = "region-missing"


class ProxyUnusable(BadRequest):
    """The proxy of the environment refuses our password, or is of a kind that is not supported."""

    code = "proxy-unusable"


class ProfileUnknown(BadRequest):
    """The profile is not in the AWS configuration files."""

    code = "profile-unknown"


# The IAM prefix where it is not the name of the client.
_IAM_PREFIX: Final = {"sso": "sso", "sso-oidc": "sso-oauth"}

# What is called to get credentials, on the way to another call: a refusal is a refusal of this.
_CREDENTIAL_CALLS: Final = {
    "AssumeRole": "sts:AssumeRole",
    "AssumeRoleWithWebIdentity": "sts:AssumeRoleWithWebIdentity",
    "GetRoleCredentials": "sso:GetRoleCredentials",
}

_VERSION: Final = re.compile(r"\d{4}-\d\d-\d\d\Z")  # of a service's API
_ENCODED: Final = re.compile(r"\s*Encoded authorization failure message:.*", re.DOTALL)


def action(service: str, operation: str) -> str:
    """Name the IAM action of a client method: ``ssm``, ``start_session`` → ``ssm:StartSession``."""
    name = "".join(part.capitalize() for part in operation.split("_"))
    name = {"SendSshPublicKey": "SendSSHPublicKey"}.get(name, name)
    return f"{_IAM_PREFIX.get(service, service)}:{name}"


def translate(
    error: BaseException,
    *,
    service: str,
    operation: str,
    profile: str | None = None,
    login: str | None = None,
    target: str | None = None,
) -> DevboxError:
    """Turn a failure of an AWS call into ours.

    Args:
        error: what botocore, aiobotocore or the socket raised.
        service, operation: the client and its method, for the name of the IAM action.
        profile: whose credentials.
        login: what renews them, in a sentence; None: as for SSO.
        target: the box that the call was about, if any.
    """
    if isinstance(error, DevboxError):
        return error
    hint = login or mend(Method.SSO, profile)
    if isinstance(error, boto.ClientError):
        name = _CREDENTIAL_CALLS.get(error.operation_name, action(service, operation))
        return _answered(error, service, name, hint=hint, target=target)
    if isinstance(error, boto.BotoCoreError):
        return _failed(error, action(service, operation), hint=hint, profile=profile)
    if isinstance(error, ResponseParserError):
        return Unreachable(
            f"the answer to {action(service, operation)} was not from AWS",
            hint="a proxy or a login page on the way may have answered instead",
        )
    if isinstance(error, TimeoutError):
        return Unreachable(f"{action(service, operation)} was not answered in time")
    if isinstance(error, OSError):
        return Unreachable(
            f"{action(service, operation)} could not be sent: {error.strerror or type(error).__name__}"
        )
    note(error, f"{action(service, operation)} failed")
    return AwsFailed(f"{action(service, operation)} failed ({type(error).__name__})")


def _answered(
    error: boto.ClientError, service: str, name: str, *, hint: str, target: str | None
) -> DevboxError:
    """Translate an error that a service sent."""
    detail: Mapping[str, Any] = error.response.get("Error", {})
    code = str(detail.get("Code", "")).rpartition("#")[2]
    text = _clean(str(detail.get("Message", "")))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "TransactionCanceledException":
        parts: Sequence[Mapping[str, Any]] = error.response.get("CancellationReasons") or ()
        meaning = cancelled(str(part.get("Code")) for part in parts)
    else:
        parts = (error.response,)
        meaning = row(service, code, status, text)
    words = {
        "name": name,
        "box": target or "the box",
        "on": f" on {target}" if target else "",
        "said": text or code or str(status),
        "why": f": {text}" if text else "",
        "code": code or str(status),
        "login": hint,
        "doctor": "devboxctl doctor" + (f" {target}" if target else ""),
    }
    message = meaning.text.format(**words)
    mend = meaning.hint.format(**words) or None
    if meaning.error is Conflict:
        return Conflict(message, hint=mend, items=tuple(part["Item"] for part in parts if part.get("Item")))
    return meaning.error(message, hint=mend)


# What a role names as its credential_source where that gives nothing: what it is, and the mend.
_ELSEWHERE: Final = (
    "credential_source has a meaning there only: name a source_profile in ~/.aws/config instead"
)
_ORIGINS: Final = {
    "Environment": (
        "the environment of devboxd has as AWS credentials",
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in your shell, then: devboxctl daemon restart",
    ),
    "Ec2InstanceMetadata": ("an EC2 instance gives", _ELSEWHERE),
    "EcsContainer": ("a container of ECS gives", _ELSEWHERE),
}

_Failed = Callable[[boto.BotoCoreError, str, str, str | None], DevboxError]


def _no_credentials(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    where = f"for profile {profile!r}" if profile else "in the environment or the AWS configuration"
    return LoginNeeded(f"there are no AWS credentials {where}", hint=hint)


def _login_over(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    if (origin := _ORIGINS.get(str(error.kwargs.get("provider")))) is not None:
        what, mend_ = origin
        whose = f"the role of profile {profile!r}" if profile else "a role"
        return LoginNeeded(f"{whose} is to be taken with what {what}, and there is nothing", hint=mend_)
    # The exception's own text can quote what a credential process printed: it stays out.
    return LoginNeeded(f"the AWS login{f' of profile {profile!r}' if profile else ''} has expired", hint=hint)


def _helper_failed(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    if isinstance(error, HelperRuns):
        return LoginNeeded(
            str(error), hint="it may wait for you: look for a page that it has opened, then ask again"
        )
    return LoginNeeded(str(error), hint=mend(Method.PROCESS, error.kwargs["profile"]))


def _profile_unknown(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    asked = error.kwargs.get("profile") or profile
    return ProfileUnknown(
        f"there is no AWS profile named {asked!r}",
        hint="profiles are sections of ~/.aws/config: [profile NAME]",
    )


def _region_missing(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return region_missing(profile)


def _bad_configuration(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return BadRequest(
        f"the AWS configuration can not be used: {_clean(str(error))}", hint="see ~/.aws/config"
    )


def _no_such_version(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    path = str(error.kwargs.get("data_path"))
    service, _, version = path.removesuffix("/service-2").partition("/")
    if not _VERSION.match(version):
        return AwsFailed(f"{name} failed: the installed botocore has no {_clean(path)}")
    return BadRequest(
        f"the AWS configuration can not be used: there is no version {version} of the API {_clean(service)}",
        hint="take api_versions out of ~/.aws/config",
    )


def _bad_arguments(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return BadRequest(f"AWS does not accept the arguments of {name}: {_clean(str(error))}")


def _untrusted(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return Unreachable(
        f"the certificate of {_endpoint(error)} is not trusted",
        hint="is there a proxy that opens TLS? Name its certificate in AWS_CA_BUNDLE",
    )


def _proxy(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    status = getattr(error.kwargs.get("error"), "status", None)
    what = f"answered {status}" if status else "can not be reached"
    return Unreachable(f"the proxy {what}", hint="check HTTPS_PROXY, its user and password, and NO_PROXY")


def _proxy_denied(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return ProxyUnusable(proxy.PROBLEM, hint=proxy.HINT)


def _proxy_unsupported(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return ProxyUnusable(
        f"{error.kwargs['scheme']}:// proxies are not supported, and HTTPS_PROXY names one",
        hint="name one that speaks HTTP (http://HOST:PORT), or unset it; then: devboxctl daemon restart",
    )


def _unreachable(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    if isinstance(error.kwargs.get("error"), FileNotFoundError):
        return BadRequest(
            "the CA bundle can not be read", hint="check AWS_CA_BUNDLE and ca_bundle in ~/.aws/config"
        )
    return Unreachable(f"{_endpoint(error)} can not be reached", hint="is the network up?")


def _too_long(error: boto.BotoCoreError, name: str, hint: str, profile: str | None) -> DevboxError:
    return AwsFailed(
        f"the answer to {name} has more than {error.kwargs['most'] >> 20} MiB: no answer of AWS has",
        hint="is the endpoint of the AWS API the right one? Look for AWS_ENDPOINT_URL",
    )


# Most special first: the first class that fits decides.
_FAILURES: Final[tuple[tuple[tuple[type[boto.BotoCoreError], ...], _Failed], ...]] = (
    ((boto.NoCredentialsError, boto.PartialCredentialsError, boto.NoAuthTokenError), _no_credentials),
    (
        (
            boto.CredentialRetrievalError,
            boto.TokenRetrievalError,
            boto.SSOError,
            boto.LoginError,
            boto.RefreshWithMFAUnsupportedError,
        ),
        _login_over,
    ),
    ((HelperFailed,), _helper_failed),
    ((boto.ProfileNotFound,), _profile_unknown),
    ((boto.NoRegionError,), _region_missing),
    (
        (
            boto.ConfigParseError,
            boto.ConfigNotFound,
            boto.InvalidConfigError,
            boto.InvalidRegionError,
            boto.InvalidProxiesConfigError,
            boto.UnknownCredentialError,
        ),
        _bad_configuration,
    ),
    ((boto.DataNotFoundError,), _no_such_version),
    ((boto.SSLError,), _untrusted),
    ((boto.ProxyConnectionError,), _proxy),
    ((boto.HTTPClientError, boto.ConnectionError), _unreachable),
    ((boto.ValidationError, boto.ParamValidationError, boto.MissingParametersError), _bad_arguments),
    ((AnswerTooLong,), _too_long),
    ((ProxyDenied,), _proxy_denied),
    ((ProxyUnsupported,), _proxy_unsupported),
)


def _failed(error: boto.BotoCoreError, name: str, *, hint: str, profile: str | None) -> DevboxError:
    """Translate an error that no service sent."""
    for kinds, make in _FAILURES:
        if isinstance(error, kinds):
            return make(error, name, hint, profile)
    return AwsFailed(f"{name} failed ({type(error).__name__})")


def region_missing(profile: str | None) -> RegionMissing:
    """No region: say where one can be set."""
    whose = f"profile {profile!r}" if profile else "the AWS configuration"
    return RegionMissing(
        f"{whose} names no region",
        hint="set AWS_REGION, `region` in ~/.aws/config, or `defaults.region` in devbox's config.toml",
    )


def _endpoint(error: boto.BotoCoreError) -> str:
    url = str(error.kwargs.get("endpoint_url") or "AWS")
    return url.partition("?")[0]


def _clean(text: str) -> str:
    """One line, without the encoded blob that EC2 adds."""
    return one_line(_ENCODED.sub("", text))

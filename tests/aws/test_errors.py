"""The table of failures."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto

from devboxd.aws import errors
from devboxd.aws.errors import (
    AwsFailed,
    ClockWrong,
    DocumentInvalid,
    KeyUnusable,
    SessionOver,
    Throttled,
    action,
    login_hint,
    translate,
)
from devboxd.errors import (
    BadRequest,
    BoxNotFound,
    Denied,
    DevboxError,
    LoginNeeded,
    NotConnected,
    Unreachable,
    WrongState,
)

BOX = "i-0123456789abcdef0"


def answered(
    code: str, message: str = "m", *, status: int = 400, call: tuple[str, str] = ("ssm", "start_session")
) -> DevboxError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = boto.ClientError(response, "X")  # type: ignore[arg-type]
    return translate(error, service=call[0], operation=call[1], profile="work", method="sso", target=BOX)


def failed(error: BaseException) -> DevboxError:
    return translate(error, service="ssm", operation="start_session", profile="work", method="sso")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("TargetNotConnected", NotConnected),
        ("com.amazonaws.ssm#TargetNotConnected", NotConnected),
        ("ExpiredToken", LoginNeeded),
        ("ExpiredTokenException", LoginNeeded),
        ("RequestExpired", LoginNeeded),
        ("UnrecognizedClientException", LoginNeeded),
        ("InvalidClientTokenId", LoginNeeded),
        ("AuthFailure", LoginNeeded),
        ("AccessDeniedException", Denied),
        ("UnauthorizedOperation", Denied),
        ("ThrottlingException", Throttled),
        ("RequestLimitExceeded", Throttled),
        ("DoesNotExistException", SessionOver),
        ("InvalidDocument", DocumentInvalid),
        ("InvalidDocumentContent", DocumentInvalid),
        ("ValidationException", BadRequest),
        ("InvalidParameters", BadRequest),
        ("InvalidInstanceID.Malformed", BadRequest),
        ("InvalidInstanceId", BoxNotFound),
        ("InvalidInstanceID.NotFound", BoxNotFound),
        ("IncorrectInstanceState", WrongState),
        ("InternalServerError", Unreachable),
        ("ServiceUnavailable", Unreachable),
        ("SomethingNew", AwsFailed),
    ],
)
def test_every_code_has_its_kind(code: str, kind: type[DevboxError]) -> None:
    found = answered(code)
    assert type(found) is kind
    assert found.message
    assert "\n" not in found.message


def test_a_status_decides_where_the_code_is_unknown() -> None:
    assert isinstance(answered("Odd", status=503), Unreachable)
    assert isinstance(answered("Odd", status=429), Throttled)
    assert isinstance(answered("", "", status=500), Unreachable)


def test_a_key_problem_is_one_only_for_kms() -> None:
    assert isinstance(answered("NotFoundException", call=("kms", "generate_data_key")), KeyUnusable)
    assert isinstance(answered("NotFoundException"), AwsFailed)


def test_a_wrong_clock_is_not_a_wrong_key() -> None:
    late = answered("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than …")
    assert isinstance(late, ClockWrong)
    assert isinstance(answered("InvalidSignatureException", "does not match"), LoginNeeded)


def test_a_denial_names_the_action_and_what_the_service_said() -> None:
    denied = answered("AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized to perform: …")
    assert "ssm:StartSession" in denied.message
    assert BOX in denied.message
    assert "arn:aws:iam::1:user/x" in denied.message


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (("ssm", "start_session"), "ssm:StartSession"),
        (("ec2", "describe_instances"), "ec2:DescribeInstances"),
        (("ec2-instance-connect", "send_ssh_public_key"), "ec2-instance-connect:SendSSHPublicKey"),
        (("sso-oidc", "create_token"), "sso-oauth:CreateToken"),
    ],
)
def test_actions_are_named_as_iam_names_them(call: tuple[str, str], name: str) -> None:
    assert action(*call) == name


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (boto.NoCredentialsError(), LoginNeeded),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), LoginNeeded),
        (boto.UnauthorizedSSOTokenError(), LoginNeeded),
        (boto.SSOTokenLoadError(error_msg="x"), LoginNeeded),
        (boto.TokenRetrievalError(provider="sso", error_msg="x"), LoginNeeded),
        (boto.LoginRefreshRequired(), LoginNeeded),
        (boto.CredentialRetrievalError(provider="custom-process", error_msg="printed SECRET"), LoginNeeded),
        (boto.NoRegionError(), errors.RegionMissing),
        (boto.ProfileNotFound(profile="x"), errors.ProfileUnknown),
        (boto.ConfigParseError(path="x"), BadRequest),
        (boto.ParamValidationError(report="x"), BadRequest),
        (boto.ConnectTimeoutError(endpoint_url="https://ssm"), Unreachable),
        (boto.ReadTimeoutError(endpoint_url="https://ssm"), Unreachable),
        (boto.EndpointConnectionError(endpoint_url="https://ssm"), Unreachable),
        (boto.ConnectionClosedError(endpoint_url="https://ssm"), Unreachable),
        (boto.ProxyConnectionError(proxy_url="http://u:SECRET@p", error="x"), Unreachable),
        (boto.SSLError(endpoint_url="https://ssm", error=OSError()), Unreachable),
        (boto.HTTPClientError(error="x"), Unreachable),
        (boto.DataNotFoundError(data_path="x"), AwsFailed),
        (TimeoutError(), Unreachable),
        (ConnectionResetError(104, "reset"), Unreachable),
        (RuntimeError("odd SECRET"), AwsFailed),
    ],
)
def test_every_failure_without_an_answer_has_its_kind_and_tells_no_secret(
    error: BaseException, kind: type[DevboxError]
) -> None:
    found = failed(error)
    assert type(found) is kind
    assert "SECRET" not in f"{found.message} {found.hint}"


def test_our_own_errors_pass_unchanged() -> None:
    own = WrongState("x")
    assert failed(own) is own


@pytest.mark.parametrize(
    ("method", "word"),
    [
        ("sso", "devboxctl login --profile work"),
        (None, "devboxctl login --profile work"),
        ("env", "AWS_SESSION_TOKEN"),
        ("shared-credentials-file", "~/.aws/credentials"),
        ("custom-process", "credential_process"),
        ("login", "aws login --profile work"),
    ],
)
def test_the_way_to_renew_depends_on_where_credentials_come_from(method: str | None, word: str) -> None:
    assert word in login_hint("work", method)


def test_long_texts_and_control_characters_of_services_are_tamed() -> None:
    found = answered("SomethingNew", "a\x1b[31m\n" + "x" * 1000)
    assert "\x1b" not in found.message
    assert len(found.message) < 400

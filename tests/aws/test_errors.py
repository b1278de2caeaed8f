"""The table of failures."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore import exceptions as boto
from botocore import xform_name

from devboxd.aws import codes, errors
from devboxd.aws.codes import AwsFailed, ClockWrong, KeyUnusable
from devboxd.aws.errors import action, translate
from devboxd.errors import (
    AlreadyExists,
    BadRequest,
    BoxNotFound,
    Conflict,
    Denied,
    DevboxError,
    DocumentInvalid,
    InUse,
    LoginNeeded,
    Missing,
    NoCapacity,
    NotConnected,
    Protected,
    QuotaReached,
    SessionOver,
    Throttled,
    TokenUsed,
    Unreachable,
    WrongState,
)

BOX = "i-0123456789abcdef0"


def answered(
    code: str, message: str = "m", *, status: int = 400, call: tuple[str, str] = ("ssm", "start_session")
) -> DevboxError:
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    error = boto.ClientError(response, "X")  # type: ignore[arg-type]
    return translate(error, service=call[0], operation=call[1], profile="work", target=BOX)


def failed(error: BaseException) -> DevboxError:
    return translate(error, service="ssm", operation="start_session", profile="work")


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
        ("InsufficientInstanceCapacity", NoCapacity),
        ("Unsupported", NoCapacity),
        ("VcpuLimitExceeded", QuotaReached),
        ("MaxSpotInstanceCountExceeded", QuotaReached),
        ("SomeOtherLimitExceeded", QuotaReached),
        ("ConcurrentSnapshotLimitExceeded", Throttled),
        ("SnapshotCreationPerVolumeRateExceeded", Throttled),
        ("InvalidAMIName.Duplicate", AlreadyExists),
        ("InvalidGroup.Duplicate", AlreadyExists),
        ("InvalidAMIID.NotFound", Missing),
        ("InvalidVolume.NotFound", Missing),
        ("InvalidSnapshot.NotFound", Missing),
        ("InvalidSubnetID.NotFound", Missing),
        ("VolumeInUse", InUse),
        ("InvalidSnapshot.InUse", InUse),
        ("InvalidAMIID.Unavailable", InUse),
        ("OperationNotPermitted", Protected),
        ("IdempotentParameterMismatch", TokenUsed),
        ("ConditionalCheckFailedException", Conflict),
        ("TransactionConflictException", Unreachable),
        ("ProvisionedThroughputExceededException", Throttled),
        ("ResourceNotFoundException", Missing),
        ("ServiceQuotaExceededException", QuotaReached),
        ("AlreadyExistsException", AlreadyExists),
        ("LimitExceededException", Throttled),  # of Systems Manager; of others it is a quota
        ("OptInRequired", Denied),
        ("RegionDisabledException", Denied),
        ("RequestTimeTooSkewed", ClockWrong),
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
    assert isinstance(answered("NotFoundException"), Missing)


@pytest.mark.parametrize(
    ("service", "code", "kind"),
    [
        ("dynamodb", "LimitExceededException", Throttled),
        ("cloudformation", "LimitExceededException", QuotaReached),
        ("dynamodb", "ResourceInUseException", InUse),
        ("scheduler", "ConflictException", AlreadyExists),
        ("sso-oidc", "SlowDownException", Throttled),
        ("ssm", "DoesNotExistException", SessionOver),
        ("ec2", "DoesNotExistException", AwsFailed),
    ],
)
def test_a_code_means_what_it_means_in_its_service(service: str, code: str, kind: type[DevboxError]) -> None:
    assert type(answered(code, call=(service, "call_it"))) is kind


def test_every_error_that_botocore_knows_of_our_calls_has_a_row() -> None:
    """A user who meets ``aws-failed`` is left alone with it: no kind, no hint, no reaction."""
    session = botocore.session.get_session()
    nameless = []
    for service, operations in CALLS.items():
        model = session.get_service_model(service)
        for operation in operations:
            for shape in model.operation_model(operation).error_shapes:
                code = str(shape.metadata.get("error", {}).get("code", shape.name))
                found = answered(code, call=(service, xform_name(operation)))
                if type(found) is AwsFailed and (service, code) not in NAMELESS:
                    nameless.append((service, operation, code))
    assert not nameless


# What the two halves call, and the errors of them that only their caller can judge.
CALLS = {
    "ssm": ["StartSession", "ResumeSession", "TerminateSession", "DescribeSessions", "GetConnectionStatus",
            "GetDocument", "DescribeInstanceInformation", "GetParameter"],
    "kms": ["GenerateDataKey"],
    "ec2-instance-connect": ["SendSSHPublicKey"],
    "dynamodb": ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "TransactWriteItems", "DescribeTable"],
    "scheduler": ["CreateSchedule", "GetSchedule", "UpdateSchedule", "DeleteSchedule"],
    "cloudformation": ["CreateChangeSet", "DescribeChangeSet", "ExecuteChangeSet", "DeleteChangeSet",
                       "DescribeStacks", "DeleteStack"],
    "sts": ["GetCallerIdentity", "AssumeRole", "DecodeAuthorizationMessage"],
    "iam": ["GetInstanceProfile", "SimulatePrincipalPolicy"],
    "ce": ["GetCostAndUsage"],
    "pricing": ["GetProducts"],
    "sso": ["GetRoleCredentials"],
}  # fmt: skip
NAMELESS = {
    ("dynamodb", "TransactionCanceledException"),  # judged by its reasons
    ("kms", "DryRunOperationException"),  # we never ask for a dry run
    ("ce", "BillExpirationException"),  # a bill of a year ago
}


def cancelled(*reasons: dict[str, Any]) -> DevboxError:
    response = {
        "Error": {"Code": "TransactionCanceledException", "Message": "m"},
        "CancellationReasons": [*reasons],
    }
    error = boto.ClientError(response, "X")  # type: ignore[arg-type]
    return translate(error, service="dynamodb", operation="transact_write_items")


def test_a_cancelled_transaction_means_what_cancelled_it() -> None:
    """A throttled write is repeated as it is; one that lost a race has to look again first."""
    none = {"Code": "None"}
    item = {"version": {"N": "7"}}
    lost = cancelled(none, {"Code": "ConditionalCheckFailed", "Item": item})
    assert isinstance(lost, Conflict)
    assert lost.items == (item,)
    assert isinstance(cancelled({"Code": "ThrottlingError"}, {"Code": "ConditionalCheckFailed"}), Conflict)
    assert isinstance(cancelled(none, {"Code": "ThrottlingError"}), Throttled)
    assert isinstance(cancelled({"Code": "ProvisionedThroughputExceeded"}), Throttled)
    assert isinstance(cancelled({"Code": "TransactionConflict"}), Unreachable)
    assert isinstance(cancelled({"Code": "ItemCollectionSizeLimitExceeded"}), QuotaReached)
    assert isinstance(cancelled({"Code": "ValidationError"}), BadRequest)
    assert isinstance(cancelled(), BadRequest)


def test_who_lost_the_race_is_told_what_won() -> None:
    """ReturnValuesOnConditionCheckFailure=ALL_OLD: the winner's row comes for free, and saves a read."""
    item = {"version": {"N": "7"}}
    response = {"Error": {"Code": "ConditionalCheckFailedException", "Message": "m"}, "Item": item}
    error = boto.ClientError(response, "X")  # type: ignore[arg-type]
    found = translate(error, service="dynamodb", operation="put_item")
    assert isinstance(found, Conflict)
    assert found.items == (item,)


def test_what_helps_when_repeated_says_so() -> None:
    """Drivers wait and look again at these, and stop at the others."""
    assert all(kind.retryable for kind in (Throttled, Conflict, InUse, NoCapacity, Unreachable))
    assert not any(
        kind.retryable for kind in (QuotaReached, Denied, AlreadyExists, Protected, TokenUsed, Missing)
    )


@pytest.mark.parametrize("name", [*codes.TABLE, *(f"X{ending}" for ending, _ in codes.ENDINGS)])
def test_every_row_makes_a_sentence(name: str) -> None:
    """A misspelt word in a row would turn the user's error into a bug of ours."""
    service, _, code = name.rpartition(":")
    found = answered(code, "why {braces} and {0}", call=(service or "ec2", "call_it"))
    assert found.message
    assert "{braces}" in found.message or "why" not in found.message
    assert found.message[0].islower() or found.message.startswith(("AWS", BOX))
    assert not found.message.endswith(".")


def test_no_code_has_two_rows() -> None:
    """The second one would win without a word."""
    source = Path(codes.__file__).read_text("utf-8")
    rows = re.findall(r"\*_rows\((?:_\w+|\s*Row\(.*?\)),\s*\"([^\"]+)\"", source, re.DOTALL)
    listed = [code for row in rows for code in row.split()]
    assert len(listed) >= len(codes.TABLE) > 100
    assert [code for code, count in Counter(listed).items() if count > 1] == []


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
        (boto.DataNotFoundError(data_path="ec2/2099-01-01/service-2"), BadRequest),  # api_versions
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


def test_a_role_that_may_not_be_assumed_is_what_is_refused() -> None:
    """Not the call that wanted its credentials: somebody would ask for the wrong permission."""
    response = {
        "Error": {"Code": "AccessDenied", "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }
    error = boto.ClientError(response, "AssumeRole")  # type: ignore[arg-type]
    found = translate(error, service="ssm", operation="resume_session", profile="work")
    assert isinstance(found, Denied)
    assert "sts:AssumeRole" in found.message
    assert "sts:AssumeRole" in (found.hint or "")
    assert "ResumeSession" not in found.message


def test_our_own_errors_pass_unchanged() -> None:
    own = WrongState("x")
    assert failed(own) is own


def test_long_texts_and_control_characters_of_services_are_tamed() -> None:
    found = answered("SomethingNew", "a\x1b[31m\n" + "x" * 1000)
    assert "\x1b" not in found.message
    assert len(found.message) < 400

"""What the error codes of AWS mean to us: one table, code → our error, a sentence, a hint.

A code that means different things in different services stands as ``service:code``. What stands nowhere is
judged by its ending (EC2 makes its codes of a thing and what is wrong with it), then by the HTTP status.
A new service adds rows here, and nothing anywhere else.

Sources: the service models of botocore (error shapes); EC2 API Reference, "Error codes"; for what to do about
each, the pages that ``docs/errors.md`` names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

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


class KeyUnusable(WrongState):
    """The KMS key that the session preferences name is disabled, missing or of the wrong kind."""

    code = "key-unusable"


class ClockWrong(DevboxError):
    """AWS refuses our signatures because this machine's clock is off."""

    code = "clock-wrong"
    retryable = True


class Rehearsed(DevboxError):
    """EC2 would have done it, had it not been asked with DryRun."""

    code = "rehearsed"


class AwsFailed(DevboxError):
    """AWS refused a call for a reason that we have no better name for."""

    code = "aws-failed"


class Row(msgspec.Struct, frozen=True):
    """One meaning. ``text`` and ``hint`` are filled in by ``str.format`` with:

    ``name``: the IAM action; ``box``: what the call was about, or "the box"; ``on``: the same as " on …", or
    nothing; ``said``: the service's text, or the code; ``why``: the text as ": …", or nothing; ``code``;
    ``login``: how these credentials are renewed; ``doctor``: the command that looks closer.
    """

    error: type[DevboxError]
    text: str
    hint: str = ""


def _rows(row: Row, codes: str) -> Iterable[tuple[str, Row]]:
    return ((code, row) for code in codes.split())


_LOGIN = Row(LoginNeeded, "the AWS login has expired or is not valid ({code})", "{login}")
_DENIED = Row(Denied, "AWS does not allow {name}{on}{why}", "ask for the permission {name}")
_THROTTLED = Row(Throttled, "AWS asks us to slow down ({name})", "wait a moment and try again")
_NO_BOX = Row(BoxNotFound, "there is no instance {box} in this account and region", "see: devboxctl ls")
_WRONG_STATE = Row(WrongState, "{box} can not do this now: {said}")
_DOCUMENT = Row(DocumentInvalid, "the session document is missing or not usable: {said}")
_ARGUMENTS = Row(BadRequest, "AWS does not accept the arguments of {name}: {said}")
_KEY = Row(KeyUnusable, "the KMS key of the session can not be used: {said}")
_DISK_KEY = Row(
    WrongState, "the KMS key of the disks can not be used: {said}", "enable the key, and let yourself use it"
)
_FAULT = Row(Unreachable, "AWS had a fault at {name} ({code})", "it is tried again")
_CLOCK = Row(ClockWrong, "AWS refused the request because this machine's clock is off", "set the clock")
_MISSING = Row(Missing, "AWS does not know what {name} is about: {said}")
_IN_USE = Row(InUse, "it is still in use, or not ready yet: {said}", "it is tried again")
_TAKEN = Row(AlreadyExists, "there is one of that name already: {said}")
_CAPACITY = Row(
    NoCapacity, "AWS has no such machine free there now: {said}", "another zone or type may have one; or wait"
)
_QUOTA = Row(
    QuotaReached,
    "the account's quota is reached: {said}",
    "ask for more under Service Quotas in the AWS console",
)
_CONFLICT = Row(Conflict, "somebody else changed it in the meantime ({name})", "look again")
_BUSY = Row(Unreachable, "the table is busy with the same item ({name})", "it is tried again")
_TOKEN = Row(TokenUsed, "the same request was made before with other arguments: {said}")
_FAILED = Row(AwsFailed, "{name} failed: {code}{why}")

_SIGNATURE_WRONG: Final = Row(
    LoginNeeded, "AWS does not accept the signature: the secret key is wrong", "{login}"
)
# These three say in their text only whether the key or the clock is wrong.
_SIGNATURE: Final = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch", "InvalidSignature"})
_LATE: Final = ("expired", "not yet current")

TABLE: Final[dict[str, Row]] = dict(
    (
        # Who we are.
        *_rows(_LOGIN, "ExpiredToken ExpiredTokenException ExpiredTokenError RequestExpired TokenRefreshRequired"),
        *_rows(_LOGIN, "UnrecognizedClientException InvalidClientTokenId InvalidToken AuthFailure"),
        *_rows(_LOGIN, "MissingAuthenticationToken MissingAuthenticationTokenException UnauthorizedException"),
        *_rows(_LOGIN, "InvalidGrantException InvalidIdentityToken IncompleteSignature sso-oidc:InvalidClientException"),
        *_rows(_CLOCK, "RequestTimeTooSkewed"),
        *_rows(_DENIED, "AccessDenied AccessDeniedException UnauthorizedOperation UnauthorizedAccess NotAuthorized"),
        *_rows(_DENIED, "ForbiddenException AuthException sso-oidc:UnauthorizedClientException"),
        *_rows(
            Row(Denied, "the account is not ready for {name}{why}", "open the service once in the AWS console"),
            "OptInRequired Blocked PendingVerification SubscriptionRequiredException",
        ),
        *_rows(
            Row(Denied, "the region is switched off for this account{why}", "switch it on under Account in the AWS console"),
            "RegionDisabledException sts:RegionDisabledException",
        ),
        *_rows(Row(Rehearsed, "AWS would allow {name}, and can do it"), "DryRunOperation"),
        # Too much at once. The bucket is the account's: others drink from it, too.
        *_rows(_THROTTLED, "Throttling ThrottlingException ThrottledException RequestThrottled"),
        *_rows(_THROTTLED, "RequestThrottledException RequestLimitExceeded TooManyRequestsException"),
        *_rows(_THROTTLED, "TooManyRequests BandwidthLimitExceeded SlowDown EC2ThrottledException"),
        *_rows(_THROTTLED, "PriorRequestNotComplete RateExceeded RateLimitExceeded"),
        *_rows(_THROTTLED, "ProvisionedThroughputExceededException dynamodb:LimitExceededException"),
        *_rows(_THROTTLED, "ssm:LimitExceededException ConcurrentSnapshotLimitExceeded"),
        *_rows(_THROTTLED, "SnapshotCreationPerVolumeRateExceeded LastModifiedTimeRequestLimitExceeded"),
        *_rows(_THROTTLED, "sso-oidc:SlowDownException ce:LimitExceededException ce:DataUnavailableException"),
        # Boxes and sessions.
        *_rows(
            Row(
                NotConnected,
                "{box} is not connected to Session Manager",
                "a box that has just started needs a minute; otherwise see: {doctor}",
            ),
            "TargetNotConnected",
        ),
        *_rows(_NO_BOX, "InvalidInstanceId InvalidInstanceID.NotFound EC2InstanceNotFoundException"),
        *_rows(_WRONG_STATE, "IncorrectInstanceState IncorrectState EC2InstanceStateInvalidException"),
        *_rows(_WRONG_STATE, "EC2InstanceUnavailableException UnsupportedOperation UnsupportedPlatformType"),
        *_rows(_WRONG_STATE, "UnsupportedHibernationConfiguration InstanceNotRunning"),
        *_rows(Row(SessionOver, "the session has ended"), "ssm:DoesNotExistException"),
        *_rows(_DOCUMENT, "InvalidDocument InvalidDocumentContent InvalidDocumentVersion"),
        *_rows(_DOCUMENT, "DocumentVersionLimitExceeded"),
        *_rows(_KEY, "kms:DisabledException kms:NotFoundException KMSInvalidStateException"),
        *_rows(_KEY, "InvalidKeyUsageException KeyUnavailableException InvalidGrantTokenException"),
        # Instances, volumes, snapshots, images.
        *_rows(_CAPACITY, "InsufficientInstanceCapacity InsufficientCapacity InsufficientHostCapacity"),
        *_rows(_CAPACITY, "InsufficientReservedInstanceCapacity InsufficientVolumeCapacity Unsupported"),
        *_rows(_CAPACITY, "InsufficientFreeAddressesInSubnet UnfulfillableCapacity SpotMaxPriceTooLow VolumeTypeNotAvailableInZone ReservationCapacityExceeded Server.InsufficientInstanceCapacity"),
        # An interrupted spot instance is EC2's to start, when there is room for it again.
        *_rows(_CAPACITY, "IncorrectSpotRequestState"),
        *_rows(_QUOTA, "VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded VolumeLimitExceeded"),
        *_rows(_QUOTA, "SnapshotLimitExceeded MaxIOPSLimitExceeded ServiceQuotaExceededException LimitExceeded"),
        *_rows(_QUOTA, "LimitExceededException ResourceLimitExceeded AddressLimitExceeded"),
        *_rows(_QUOTA, "ItemCollectionSizeLimitExceededException ResourceCountExceeded TagLimitExceeded"),
        *_rows(_DISK_KEY, "InvalidKMSKey.InvalidState InvalidKmsKey.InvalidState KMSKeyNotAccessibleFault"),
        *_rows(_IN_USE, "VolumeInUse InvalidAMIID.Unavailable DependencyViolation IncorrectModificationState"),
        *_rows(_IN_USE, "dynamodb:ResourceInUseException DeleteConflict OperationInProgressException"),
        *_rows(_IN_USE, "InvalidChangeSetStatus ResourceNotReady"),
        *_rows(
            Row(Protected, "it is protected: {said}", "devbox takes it off an instance in the step that releases it; off an image only a person does"),
            "OperationNotPermitted",
        ),
        *_rows(_TOKEN, "IdempotentParameterMismatch IdempotentParameterMismatchException"),
        *_rows(_TOKEN, "IdempotentInstanceTerminated TokenAlreadyExistsException"),
        # Rows, schedules, stacks, roles.
        *_rows(_CONFLICT, "ConditionalCheckFailedException ConcurrentModification ConcurrentModificationException"),
        *_rows(_BUSY, "TransactionConflictException TransactionInProgressException"),
        *_rows(_BUSY, "ReplicatedWriteConflictException"),
        *_rows(_CONFLICT, "ce:RequestChangedException"),
        *_rows(_TAKEN, "scheduler:ConflictException AlreadyExistsException EntityAlreadyExists"),
        *_rows(_TAKEN, "ParameterAlreadyExists NameAlreadyExistsException"),
        *_rows(_MISSING, "ResourceNotFoundException NoSuchEntity ParameterNotFound ParameterVersionNotFound"),
        *_rows(_MISSING, "ChangeSetNotFound StackNotFoundException pricing:NotFoundException"),
        # What we said.
        *_rows(_ARGUMENTS, "ValidationException ValidationError InvalidParameters InvalidParameterValue"),
        *_rows(_ARGUMENTS, "InvalidParameterCombination InvalidParameter InvalidParameterException"),
        *_rows(_ARGUMENTS, "InvalidFilterKey InvalidFilter InvalidFilterOption InvalidFilterValue"),
        *_rows(_ARGUMENTS, "InvalidInstanceInformationFilterValue InvalidArgsException MissingParameter"),
        *_rows(_ARGUMENTS, "MissingAction InvalidAction UnknownParameter InvalidInput InvalidRequestException"),
        *_rows(_ARGUMENTS, "InvalidTarget InvalidNextToken InvalidNextTokenException ExpiredNextTokenException"),
        *_rows(_ARGUMENTS, "InvalidKeyId MalformedPolicyDocument PackedPolicyTooLarge"),
        *_rows(_ARGUMENTS, "InsufficientCapabilitiesException DuplicateInstanceId InvalidUserData.Malformed"),
        *_rows(_ARGUMENTS, "MaxDocumentSizeExceeded InvalidAuthorizationMessageException InvalidScopeException"),
        *_rows(_ARGUMENTS, "InvalidClientMetadataException UnsupportedGrantTypeException InvalidRedirectUriException"),
        *_rows(_ARGUMENTS, "InvalidInstanceType InvalidBlockDeviceMapping MissingInput VPCIdNotSpecified"),
        *_rows(_ARGUMENTS, "InvalidInstanceAttributeValue InvalidAttributeValue InvalidVirtualizationType"),
        *_rows(_ARGUMENTS, "PolicyEvaluation InvalidRole InvalidOutputFolder InvalidNotificationConfig"),
        # Faults of theirs that do not come as 5xx.
        *_rows(_FAULT, "InternalServerError InternalError InternalFailure InternalServerException"),
        *_rows(_FAULT, "InternalErrorException ServiceUnavailable Unavailable ServiceFailure ServiceException"),
        *_rows(_FAULT, "DependencyTimeoutException KMSInternalException RequestTimeout RequestTimeoutException"),
        *_rows(_FAULT, "IDPCommunicationError ce:BillingViewHealthStatusException"),
    )
)  # fmt: skip

# EC2's codes end in what is wrong. The first ending that fits decides.
ENDINGS: Final[tuple[tuple[str, Row], ...]] = (
    (".NotFound", _MISSING),
    (".Malformed", _ARGUMENTS),
    (".Duplicate", _TAKEN),
    (".InUse", _IN_USE),
    (".Unavailable", _IN_USE),
    ("AlreadyExists", _TAKEN),
    ("QuotaExceededException", _QUOTA),
    ("LimitExceeded", _QUOTA),
    ("LimitExceededException", _QUOTA),
    ("ThrottlingException", _THROTTLED),
    ("NotFoundException", _MISSING),
)


def row(service: str, code: str, status: int, text: str) -> Row:
    """Say what an answer means.

    Args:
        service: the client's name, ``ec2``.
        code: without a namespace in front.
        status: of HTTP; 0 where it is not known.
        text: the service's own; only a wrong signature is judged by it.
    """
    if code in _SIGNATURE:
        return _CLOCK if any(word in text for word in _LATE) else _SIGNATURE_WRONG
    if (found := TABLE.get(f"{service}:{code}") or TABLE.get(code)) is not None:
        return found
    if status == 429:
        return _THROTTLED
    if status >= 500:
        return _FAULT
    return next((found for ending, found in ENDINGS if code.endswith(ending)), _FAILED)


def cancelled(reasons: Iterable[str]) -> Row:
    """Say what cancelled a transaction of DynamoDB, from the codes of its parts (``None``: not that part).

    A condition that did not hold is news; a throttled part beside it is not.
    """
    codes = set(reasons)
    if "ConditionalCheckFailed" in codes:
        return _CONFLICT
    if codes & {"ThrottlingError", "ProvisionedThroughputExceeded"}:
        return _THROTTLED
    if "TransactionConflict" in codes:
        return _BUSY
    return _QUOTA if "ItemCollectionSizeLimitExceeded" in codes else _ARGUMENTS

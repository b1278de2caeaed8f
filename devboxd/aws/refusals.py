"""What kind of refusal an AWS error is: the part of it that the reconciler decides on.

Codes and what to do about them: EC2 API error codes; StateReason and limits as in the EC2 User Guide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from botocore import exceptions as boto

from devboxd.errors import BadRequest, Denied, DevboxError, LoginNeeded
from devboxd.model.answer import Refusal

CODES: Final[Mapping[Refusal, frozenset[str]]] = {
    Refusal.CAPACITY: frozenset(
        {
            "InsufficientInstanceCapacity",
            "InsufficientCapacity",
            "InsufficientHostCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientFreeAddressesInSubnet",
            "Unsupported",  # the type is not offered in this zone
            "SpotMaxPriceTooLow",
        }
    ),
    Refusal.QUOTA: frozenset(
        {
            "VcpuLimitExceeded",
            "InstanceLimitExceeded",
            "MaxSpotInstanceCountExceeded",
            "VolumeLimitExceeded",
            "SnapshotLimitExceeded",
            "ResourceLimitExceeded",
            "AMIQuotaExceeded",
            "AttachmentLimitExceeded",
            "MaxIOPSLimitExceeded",
            "PendingVerification",
            "Blocked",
        }
    ),
    Refusal.MISMATCH: frozenset({"IdempotentParameterMismatch"}),
    Refusal.DUPLICATE: frozenset({"InvalidAMIName.Duplicate"}),
    Refusal.GONE: frozenset(
        {
            "InvalidInstanceID.NotFound",
            "InvalidVolume.NotFound",
            "InvalidSnapshot.NotFound",
            "InvalidAMIID.NotFound",
            "InvalidAMIID.Unavailable",
        }
    ),
    Refusal.BUSY: frozenset(
        {
            "IncorrectInstanceState",
            "IncorrectState",
            "IncorrectModificationState",
            "InvalidSnapshot.InUse",
            "OperationNotPermitted",
            "VolumeInUse",
        }
    ),
    Refusal.LATER: frozenset(
        {
            "ConcurrentSnapshotLimitExceeded",
            "ConcurrentCreateImageNoRebootLimitExceeded",
            "SnapshotCreationPerVolumeRateExceeded",
            "ResourceCountExceeded",
            "VolumeModificationRateExceeded",
        }
    ),
    # An image that just shows is not known everywhere yet; a profile or group may be just as new.
    Refusal.UNKNOWN: frozenset({"InternalError", "InternalFailure", "Unavailable", "ServiceUnavailable"}),
}
_BY_CODE: Final = {code: kind for kind, codes in CODES.items() for code in codes}
_BY_OURS: Final = {"throttled": Refusal.LATER, "unreachable": Refusal.UNKNOWN, "clock-wrong": Refusal.LATER}


def refusal(error: DevboxError) -> Refusal:
    """Say what kind of refusal this is. What nobody has named has an unknown outcome, and is looked at again."""
    code = aws_code(error)
    if code in _BY_CODE:
        return _BY_CODE[code]
    match error:
        case LoginNeeded():
            return Refusal.LOGIN
        case Denied():
            return Refusal.DENIED
        case BadRequest():
            return Refusal.INVALID
    if error.code in _BY_OURS:
        return _BY_OURS[error.code]
    return Refusal.INVALID if code.startswith("Invalid") else Refusal.UNKNOWN


def aws_code(error: DevboxError) -> str:
    """The code that AWS gave, empty where none was heard."""
    cause = error.__cause__
    if isinstance(cause, boto.ClientError):
        return str(cause.response.get("Error", {}).get("Code", ""))
    return ""

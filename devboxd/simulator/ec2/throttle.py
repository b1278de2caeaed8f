"""EC2's request limits: a token bucket for each kind of call, shared by the whole account and region.

Figures: Amazon EC2 Developer Guide, ec2-api-throttling (copy of 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

_READ: Final = ("read", 100, 20.0)
_COSTLY: Final = ("unfiltered", 50, 10.0)  # without a filter and without paging
_WRITE: Final = ("write", 50, 5.0)
_OWN: Final[dict[str, tuple[str, int, float]]] = {
    "RunInstances": ("run", 5, 2.0),
    "StartInstances": ("start", 5, 2.0),
    "TerminateInstances": ("terminate", 100, 5.0),
    "CreateSnapshot": ("snapshot", 100, 5.0),
    "CreateSnapshots": ("snapshots", 100, 5.0),
    "DeleteSnapshot": ("delete-snapshot", 100, 5.0),
    "CreateVolume": ("volume", 100, 5.0),
    "DeleteVolume": ("delete-volume", 100, 5.0),
    "DeregisterImage": ("deregister", 100, 5.0),
    "CreateTags": ("tags", 100, 10.0),
    "DeleteTags": ("delete-tags", 100, 10.0),
}
_COSTLY_CALLS: Final = frozenset(
    {
        "DescribeInstances",
        "DescribeInstanceStatus",
        "DescribeVolumes",
        "DescribeSnapshots",
        "DescribeSecurityGroups",
    }
)


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


@dataclass(slots=True)
class Throttle:
    """Counts calls; ``allows`` says whether one more may pass."""

    _buckets: dict[str, _Bucket] = field(default_factory=dict)

    def allows(self, operation: str, params: Mapping[str, Any], now: float) -> bool:
        """Take a token for a call, if there is one. Time that goes backwards refills nothing."""
        name, size, refill = _kind(operation, params)
        bucket = self._buckets.setdefault(name, _Bucket(size, now))
        bucket.left = min(size, bucket.left + max(0.0, now - bucket.at) * refill)
        bucket.at = max(bucket.at, now)
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def fork(self) -> Throttle:
        """An independent copy."""
        return Throttle({name: replace(bucket) for name, bucket in self._buckets.items()})


def _kind(operation: str, params: Mapping[str, Any]) -> tuple[str, int, float]:
    if operation in _OWN:
        return _OWN[operation]
    if operation.startswith(("Describe", "Get", "List")):
        is_costly = operation in _COSTLY_CALLS and not ("Filters" in params or "MaxResults" in params)
        return _COSTLY if is_costly else _READ
    return _WRITE

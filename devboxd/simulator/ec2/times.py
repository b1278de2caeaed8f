"""Unix seconds as EC2 shows them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(seconds: float) -> datetime:
    """As botocore gives timestamps; to the millisecond, which is what the wire holds."""
    return datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC)


def stamp(seconds: float) -> str:
    """As in StateTransitionReason: ``2026-01-31 10:00:00 GMT``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")


def creation_date(seconds: float) -> str:
    """As in CreationDate of an image, which is text: ``2026-01-31T10:00:00.000Z``."""
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment(seconds).microsecond // 1000:03d}Z"

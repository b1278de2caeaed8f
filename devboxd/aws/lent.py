"""Credentials that a user has handed over from a shell: kept in memory only, until the daemon ends."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Lent:
    """An access key with its secret and token. Nothing of it is ever shown."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    expires: float | None = None  # Unix seconds, where the shell says so

"""What the families of calls need of an account: ``clients.Caller`` fits, and so does a test's own EC2."""

from __future__ import annotations

from typing import Any, Protocol


class Calls(Protocol):
    """Calls to AWS with one set of credentials in one region. Errors are those of ``aws.errors``."""

    async def call(
        self, service: str, operation: str, /, *, target: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """Call one operation, named as a client's method, and return its answer."""

    async def pages(
        self, service: str, operation: str, key: str, /, *, limit: int = 100_000, **parameters: Any
    ) -> list[dict[str, Any]]:
        """All items under ``key`` of a paginated operation."""

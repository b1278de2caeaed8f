"""What every account of these tests has in common: errors as the real client has them, and pages."""

from __future__ import annotations

from typing import Any

from botocore import exceptions as boto

from devboxd.aws.errors import translate
from devboxd.errors import DevboxError
from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error


def failure(error: Ec2Error | AnswerLost, *, service: str, operation: str, target: str | None) -> DevboxError:
    """What our client makes of an error of the model."""
    cause: Exception = TimeoutError(str(error))
    if isinstance(error, Ec2Error):
        response: Any = {
            "Error": {"Code": error.code, "Message": error.message},
            "ResponseMetadata": {"HTTPStatusCode": error.http_status},
        }
        cause = boto.ClientError(response, operation)
    return translate(cause, service=service, operation=operation, target=target)


class Paged:
    """The half of ``aws.calls.Calls`` that follows from the other one."""

    async def call(
        self, service: str, operation: str, /, *, target: str | None = None, **parameters: Any
    ) -> dict[str, Any]:
        """One call."""
        raise NotImplementedError

    async def pages(
        self, service: str, operation: str, key: str, /, *, limit: int = 100_000, **parameters: Any
    ) -> list[dict[str, Any]]:
        """All pages of EC2; what is asked for by id comes in one."""
        size = parameters.pop("PaginationConfig", {}).get("PageSize")
        found: list[dict[str, Any]] = []
        more: dict[str, Any] = {} if size is None else {"MaxResults": size}
        while True:
            answer = await self.call(service, operation, **parameters, **more)
            found += answer[key]
            if not answer.get("NextToken"):
                return found[:limit]
            more["NextToken"] = answer["NextToken"]

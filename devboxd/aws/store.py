"""The projects of several machines, in a DynamoDB table: the shared store.

One table, ``pk`` is ``O#owner`` and ``sk`` the key, so that IAM can bound each user to their own items
(``dynamodb:LeadingKeys``). Rows of projects carry ``kind``, the key of a small index of who has any. Reads are consistent, and a commit is one transaction with a token of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from devboxd.aws.calls import Calls
from devboxd.errors import BadRequest, Conflict, DevboxError, Missing
from devboxd.model.ledger import ABSENT, EVERY_ROW, Change, Item, Range, StoreFailed

INDEX: Final = "projects"  # of the rows alone, keys only: for who acts in the name of every owner
ROW: Final = "project"  # what an item of that index says in ``kind``
AT_A_TIME: Final = 50  # items that are read without a pause
MOST: Final = 100  # actions in a transaction (API: TransactWriteItems)
_NAMES: Final = {"#v": "ver"}


@dataclass(frozen=True, slots=True)
class DynamoStore:
    """``control``'s store over one table. Errors are those of ``Account.call``, and those of ``model.ledger``."""

    account: Calls
    table: str
    is_shared: bool = True

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        """See ``control.base.needs.Store``."""
        return [item for one in ranges for item in await self._range(owner, one)]

    async def owners(self) -> list[str]:
        """Everybody who has a project here, out of a small index; it may lag some seconds behind."""
        request: dict[str, Any] = {
            "TableName": self.table,
            "IndexName": INDEX,
            "KeyConditionExpression": "kind = :kind",
            "ExpressionAttributeValues": {":kind": {"S": ROW}},
        }
        try:
            found = await self.account.pages("dynamodb", "query", "Items", **request)
        except DevboxError as error:
            raise self._explained(error) from error
        return sorted({str(plain(one["pk"])).removeprefix("O#") for one in found})

    async def _range(self, owner: str, one: Range) -> list[Item]:
        condition, values = "pk = :owner", {":owner": {"S": f"O#{owner}"}}
        if one.prefix:
            condition += " AND begins_with(sk, :prefix)"
            values[":prefix"] = {"S": one.prefix}
        request: dict[str, Any] = {
            "TableName": self.table,
            "ConsistentRead": True,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": values,
        }
        try:
            if one.newest is None:
                found = await self.account.pages("dynamodb", "query", "Items", **request)
            else:
                answer = await self.account.call(
                    "dynamodb", "query", **request, ScanIndexForward=False, Limit=one.newest
                )
                found = answer["Items"]
        except DevboxError as error:
            raise self._explained(error) from error
        items = []
        for number, item in enumerate(found, 1):
            items.append(Item(str(plain(item["sk"])), int(item["ver"]["N"]), dict(plain(item["doc"]))))
            if number % AT_A_TIME == 0:
                await asyncio.sleep(0)  # a thousand rows are a tenth of a second
        return items

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        """See ``control.base.needs.Store``."""
        # The last of many carries the row: what comes before it is repeated harmlessly.
        for start in range(0, len(changes), MOST):
            await self._transaction(owner, changes[start : start + MOST], f"{op}-{start}" if start else op)

    async def _transaction(self, owner: str, changes: Sequence[Change], op: str) -> None:
        items = [self._action(owner, change) for change in changes]
        try:
            await self.account.call(
                "dynamodb", "transact_write_items", TransactItems=items, ClientRequestToken=op
            )
        except DevboxError as error:
            raise self._explained(error) from error

    def _action(self, owner: str, change: Change) -> dict[str, Any]:
        key = {"pk": {"S": f"O#{owner}"}, "sk": {"S": change.key}}
        action: dict[str, Any] = {"TableName": self.table}
        if change.expects == ABSENT:
            action["ConditionExpression"] = "attribute_not_exists(sk)"
        else:
            action["ConditionExpression"] = "#v = :v"
            action["ExpressionAttributeNames"] = _NAMES
            action["ExpressionAttributeValues"] = {":v": {"N": str(change.expects)}}
        if change.body is None:
            return {"Delete": {**action, "Key": key}}
        item = {**key, "ver": {"N": str(change.expects + 1)}, "doc": _attribute(change.body)}
        if change.key.startswith(EVERY_ROW.prefix):
            item["kind"] = {"S": ROW}
        if change.expires is not None:
            item["expires"] = {"N": f"{change.expires:.0f}"}
        return {"Put": {**action, "Item": item}}

    def _explained(self, error: DevboxError) -> DevboxError:
        """What a refusal means here, where the general sentence says too little."""
        if isinstance(error, Missing):
            failed = StoreFailed(
                f"there is no table {self.table} in this account and region",
                hint="devboxctl init account makes it",
            )
            failed.is_absent = True
            return failed
        if isinstance(error, Conflict):
            return Conflict("the project was changed by somebody else")
        if type(error) is BadRequest:  # not that a profile or region is missing
            return StoreFailed(f"the table refuses the change: {error.message}")
        return error


def _attribute(value: Any) -> dict[str, Any]:
    """A plain value as DynamoDB writes it."""
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": str(Decimal(repr(value)))}
        case str():
            return {"S": value}
        case Mapping():
            return {"M": {str(key): _attribute(one) for key, one in value.items()}}
        case _:
            return {"L": [_attribute(one) for one in value]}


def plain(attribute: Mapping[str, Any]) -> Any:
    """A plain value out of what DynamoDB writes."""
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            number = Decimal(value)
            return int(number) if number == number.to_integral_value() else float(number)
        case "M":
            return {key: plain(one) for key, one in value.items()}
        case "L":
            return [plain(one) for one in value]
        case "NULL":
            return None
        case _:
            return value

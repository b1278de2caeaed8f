"""The Session Manager part of the SSM API (JSON 1.1).

Shapes and errors: the public API models; TargetNotConnected and the rest as seen live.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from devboxd.simulator.api.common import OWNER, ApiError, World, required
from devboxd.simulator.api.documents import DocumentError, resolve
from devboxd.simulator.ec2.records import InstanceState
from devboxd.simulator.gateway.session import Session

_FILTERS: Final = frozenset(
    {"InvokedAfter", "InvokedBefore", "Target", "Owner", "Status", "SessionId", "AccessType"}
)
_START_MEMBERS: Final = frozenset({"Target", "DocumentName", "Reason", "Parameters"})


class SsmApi:
    """Calls by name; ``base`` is the Host header the caller used, for the stream URL."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._calls: dict[str, Callable[[Mapping[str, Any], str], Any]] = {
            "StartSession": self._start,
            "ResumeSession": self._resume,
            "DescribeSessions": self._describe,
            "GetConnectionStatus": self._connection,
            "DescribeInstanceInformation": self._information,
        }

    def knows(self, call: str) -> bool:
        """Whether a call is ours."""
        return call in self._calls or call == "TerminateSession"

    async def answer(self, call: str, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        """Process one call.

        Raises:
            ApiError: refused.
        """
        if call == "TerminateSession":
            session = self._world.gateway.sessions.get(required(body, "SessionId"))
            if session is None:
                raise ApiError("DoesNotExistException", f"Session {body['SessionId']} does not exist")
            await self._world.gateway.terminate(session)
            return {"SessionId": session.id}
        result: dict[str, Any] = self._calls[call](body, host)
        return result

    def _start(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        target = required(body, "Target", 400)
        if unknown := set(body) - _START_MEMBERS:
            raise ApiError("ValidationException", f"unknown members: {', '.join(sorted(unknown))}")
        reason = body.get("Reason")
        if reason is not None and (not isinstance(reason, str) or not 1 <= len(reason) <= 256):
            raise ApiError("ValidationException", "Value at 'reason' failed to satisfy constraint")
        agent = self._world.machines.agents.get(target)
        try:
            task = resolve(self._world.documents, body.get("DocumentName"), body.get("Parameters"))
        except DocumentError as error:
            raise ApiError(error.code, str(error)) from error
        if agent is None or not self._world.machines.is_connected(target):
            raise ApiError("TargetNotConnected", f"{target} is not connected.")
        session = self._world.gateway.create(target, task, owner=OWNER, reason=reason or "")
        token, url = self._world.gateway.grant(session, self._world.stream_base(host))
        agent.start(session)
        return {"SessionId": session.id, "TokenValue": token, "StreamUrl": url}

    def _resume(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        session = self._world.gateway.sessions.get(required(body, "SessionId"))
        if session is None:
            raise ApiError("DoesNotExistException", f"Session {body['SessionId']} does not exist")
        if session.is_over:
            return {"SessionId": session.id}
        token, url = self._world.gateway.grant(session, self._world.stream_base(host))
        return {"SessionId": session.id, "TokenValue": token, "StreamUrl": url}

    def _describe(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        wanted = body.get("State")
        if wanted not in ("Active", "History"):
            raise ApiError("ValidationException", "Value at 'state' failed to satisfy constraint")
        found = [
            _described(session)
            for session in reversed(self._world.gateway.sessions.values())
            if session.is_over == (wanted == "History")
        ]
        for item in body.get("Filters") or []:
            key, value = item.get("key"), item.get("value")
            if key not in _FILTERS:
                raise ApiError("InvalidFilterKey", f"{key} is no filter key")
            if key in ("Target", "Owner", "Status", "SessionId"):
                found = [session for session in found if session[key] == value]
        return _paged(body, "Sessions", found, 200, "InvalidNextToken")

    def _connection(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        target = required(body, "Target", 400)
        status = "connected" if self._world.machines.is_connected(target) else "notconnected"
        return {"Target": target, "Status": status}

    def _information(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        wanted: set[str] | None = None
        filters = [(f.get("Key"), f.get("Values")) for f in body.get("Filters") or []]
        filters += [
            (f.get("key"), f.get("valueSet")) for f in body.get("InstanceInformationFilterList") or []
        ]
        for key, values in filters:
            if key != "InstanceIds":
                raise ApiError("InvalidFilterKey", f"{key} is not imitated")
            wanted = set(values or [])
        now = self._world.clock.wall()
        found = []
        for instance in self._world.machines.instances():
            # Stopped and terminated nodes are not listed.
            if instance.state not in (InstanceState.RUNNING, InstanceState.PENDING):
                continue
            if wanted is not None and instance.id not in wanted:
                continue
            found.append(
                {
                    "InstanceId": instance.id,
                    "PingStatus": "Online"
                    if self._world.machines.is_connected(instance.id)
                    else "ConnectionLost",
                    "LastPingDateTime": now,
                    "AgentVersion": self._world.options.agent_version,
                    "IsLatestVersion": True,
                    "PlatformType": "Linux",
                    "PlatformName": "Simulated Linux",
                    "ResourceType": "EC2Instance",
                    "IPAddress": instance.private_address,
                    "ComputerName": instance.tags.get("Name", instance.id),
                }
            )
        return _paged(body, "InstanceInformationList", found, 50, "InvalidNextToken")


def _described(session: Session) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "SessionId": session.id,
        "Target": session.target,
        "Status": session.state.value,
        "StartDate": session.started,
        "DocumentName": session.task.document,
        "Owner": session.owner,
        "Reason": session.reason,
        "Details": "",
    }
    if session.ended is not None:
        fields["EndDate"] = session.ended
    return fields


def _paged(
    body: Mapping[str, Any], name: str, found: list[dict[str, Any]], largest: int, bad_token: str
) -> dict[str, Any]:
    size = body.get("MaxResults") or largest
    if not isinstance(size, int) or not 1 <= size <= largest:
        raise ApiError("ValidationException", f"MaxResults must be in 1..{largest}")
    token = body.get("NextToken") or "0"
    if not str(token).isdigit():
        raise ApiError(bad_token, "The specified token isn't valid.")
    start = int(token)
    answer: dict[str, Any] = {name: found[start : start + size]}
    if start + size < len(found):
        answer["NextToken"] = str(start + size)
    return answer

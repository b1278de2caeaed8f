"""The Session Manager part of the SSM API (JSON 1.1), with KMS and EC2 Instance Connect beside it.

Shapes and errors: the public API models; TargetNotConnected and the rest as seen live.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from devboxd.simulator.agent import Agent
from devboxd.simulator.clock import Clock
from devboxd.simulator.documents import DocumentError, resolve
from devboxd.simulator.ec2 import Ec2, State
from devboxd.simulator.gateway import Gateway, Session
from devboxd.simulator.kms import Kms, KmsError
from devboxd.simulator.options import Options

OWNER: Final = "arn:aws:sts::123456789012:assumed-role/developer/dev"
_FILTERS: Final = frozenset(
    {"InvokedAfter", "InvokedBefore", "Target", "Owner", "Status", "SessionId", "AccessType"}
)
_START_MEMBERS: Final = frozenset({"Target", "DocumentName", "Reason", "Parameters"})
_PUBLIC_KEY_SECONDS: Final = 60.0


class ApiError(Exception):
    """A refused call: error code, HTTP status, text."""

    def __init__(self, code: str, message: str = "", status: int = 400) -> None:
        super().__init__(message or code)
        self.code = code
        self.status = status


class World(Protocol):
    """What the APIs need of the simulator."""

    options: Options
    clock: Clock
    gateway: Gateway
    ec2: Ec2
    kms: Kms
    agents: dict[str, Agent]
    documents: dict[str, dict[str, Any]]

    def stream_base(self, host: str) -> str: ...

    def later(self, seconds: float, act: Callable[[], None]) -> None: ...


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
            session = self._world.gateway.sessions.get(_required(body, "SessionId"))
            if session is None:
                raise ApiError("DoesNotExistException", f"Session {body['SessionId']} does not exist")
            await self._world.gateway.terminate(session)
            return {"SessionId": session.id}
        result: dict[str, Any] = self._calls[call](body, host)
        return result

    def _start(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        target = _required(body, "Target", 400)
        if unknown := set(body) - _START_MEMBERS:
            raise ApiError("ValidationException", f"unknown members: {', '.join(sorted(unknown))}")
        reason = body.get("Reason")
        if reason is not None and (not isinstance(reason, str) or not 1 <= len(reason) <= 256):
            raise ApiError("ValidationException", "Value at 'reason' failed to satisfy constraint")
        agent = self._world.agents.get(target)
        try:
            task = resolve(self._world.documents, body.get("DocumentName"), body.get("Parameters"))
        except DocumentError as error:
            raise ApiError(error.code, str(error)) from error
        if agent is None or not self._world.ec2.is_connected(target):
            raise ApiError("TargetNotConnected", f"{target} is not connected.")
        session = self._world.gateway.create(target, task, owner=OWNER, reason=reason or "")
        token, url = self._world.gateway.grant(session, self._world.stream_base(host))
        agent.start(session)
        return {"SessionId": session.id, "TokenValue": token, "StreamUrl": url}

    def _resume(self, body: Mapping[str, Any], host: str) -> dict[str, Any]:
        session = self._world.gateway.sessions.get(_required(body, "SessionId"))
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
        target = _required(body, "Target", 400)
        status = "connected" if self._world.ec2.is_connected(target) else "notconnected"
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
        for instance in self._world.ec2.all():
            # Stopped and terminated nodes are not listed.
            if instance.state not in (State.RUNNING, State.PENDING) or instance.id not in self._world.agents:
                continue
            if wanted is not None and instance.id not in wanted:
                continue
            found.append(
                {
                    "InstanceId": instance.id,
                    "PingStatus": "Online" if instance.is_connected(now) else "ConnectionLost",
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


class KmsApi:
    """GenerateDataKey and Decrypt."""

    def __init__(self, kms: Kms) -> None:
        self._kms = kms

    def knows(self, call: str) -> bool:
        """Whether a call is ours; others go to moto."""
        return call in ("GenerateDataKey", "Decrypt")

    def answer(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Process one call.

        Raises:
            ApiError: refused.
        """
        context = body.get("EncryptionContext") or {}
        try:
            if call == "Decrypt":
                plaintext = self._kms.decrypt(
                    base64.b64decode(_required(body, "CiphertextBlob", 8192)), context
                )
                return {"KeyId": self._kms.key_id, "Plaintext": base64.b64encode(plaintext).decode()}
            size = body.get("NumberOfBytes") or {"AES_256": 32, "AES_128": 16}.get(body.get("KeySpec", ""), 0)
            plaintext, blob = self._kms.generate_data_key(_required(body, "KeyId", 2048), context, size)
        except KmsError as error:
            raise ApiError(error.code, str(error)) from error
        return {
            "KeyId": self._kms.key_id,
            "Plaintext": base64.b64encode(plaintext).decode(),
            "CiphertextBlob": base64.b64encode(blob).decode(),
        }


class ConnectApi:
    """EC2 Instance Connect: a public key for sixty seconds."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.pushed: list[tuple[str, str]] = []  # (instance, OS user), for tests

    def answer(self, call: str, body: Mapping[str, Any], request_id: str) -> dict[str, Any]:
        """Process one call.

        Raises:
            ApiError: refused.
        """
        if call != "SendSSHPublicKey":
            raise ApiError("UnknownOperationException", call, 404)
        target = _required(body, "InstanceId")
        user = _required(body, "InstanceOSUser", 32)
        key = _required(body, "SSHPublicKey", 4096).strip()
        agent = self._world.agents.get(target)
        if agent is None:
            raise ApiError("EC2InstanceNotFoundException", f"No instance {target}", 404)
        if self._world.ec2.get(target).state is not State.RUNNING:
            raise ApiError("EC2InstanceStateInvalidException", f"{target} is not running")
        if len(key.split()) < 2 or "\n" in key:
            raise ApiError("InvalidArgsException", "Invalid SSH public key")
        file = agent.disk / ".ssh" / "authorized_keys"
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with file.open("a", encoding="utf-8") as keys:
            keys.write(key + "\n")
        file.chmod(0o600)
        self.pushed.append((target, user))

        def expire() -> None:
            if file.exists():
                lines = file.read_text(encoding="utf-8").splitlines()
                if key in lines:
                    lines.remove(key)
                file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

        self._world.later(_PUBLIC_KEY_SECONDS, expire)
        return {"RequestId": request_id, "Success": True}


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


def _required(body: Mapping[str, Any], name: str, longest: int = 96) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= longest:
        raise ApiError("ValidationException", f"Value at '{name}' failed to satisfy constraint")
    return value

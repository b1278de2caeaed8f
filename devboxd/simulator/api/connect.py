"""EC2 Instance Connect (JSON 1.1): the pushed key lands in the box's ``authorized_keys``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from devboxd.simulator.api.common import ApiError, World, required
from devboxd.simulator.ec2.records import InstanceState

_PUBLIC_KEY_SECONDS: Final = 60.0


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
        target = required(body, "InstanceId")
        user = required(body, "InstanceOSUser", 32)
        key = required(body, "SSHPublicKey", 4096).strip()
        agent = self._world.machines.agents.get(target)
        if agent is None:
            raise ApiError("EC2InstanceNotFoundException", f"No instance {target}", 404)
        if self._world.machines.state(target) is not InstanceState.RUNNING:
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

"""The instance metadata service of all boxes: one listener on loopback, below a path for each of them.

Programs of a box are led here by ``DEVBOX_IMDS`` in their environment. It plays what a spot box is told of being taken back, and
wants a token, as IMDSv2 does.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from aiohttp import web

from devboxd.boxside.programs.parts.imds import ELSEWHERE
from devboxd.simulator.ec2.records import Instance, InstanceState

_TOKEN: Final = "X-aws-ec2-metadata-token"


@dataclass(slots=True)
class Said:
    """What the metadata of a spot box say: when it is taken (wall clock), and since when that is likelier."""

    taken: float | None = None
    likelier: float | None = None


class Imds:
    """``instance`` gives the record of a box, if it has one."""

    def __init__(self, instance: Callable[[str], Instance | None]) -> None:
        self.said: dict[str, Said] = {}  # by instance id
        self._instance = instance
        self._tokens: set[str] = set()
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_put("/{box}/latest/api/token", self._token)
        app.router.add_get("/{box}/latest/meta-data/{path:.*}", self._tell)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    def environment(self, box_id: str) -> Mapping[str, str]:
        """What leads the programs of a box here."""
        return {ELSEWHERE: f"127.0.0.1:{self._port}/{box_id}"}

    async def _token(self, request: web.Request) -> web.Response:
        if not request.headers.get(f"{_TOKEN}-ttl-seconds", "").isdigit():
            return web.Response(status=400)
        token = secrets.token_urlsafe(24)
        self._tokens.add(token)
        return web.Response(text=token)

    async def _tell(self, request: web.Request) -> web.Response:
        if request.headers.get(_TOKEN) not in self._tokens:
            return web.Response(status=401)
        box = request.match_info["box"]
        instance, said = self._instance(box), self.said.get(box, Said())
        if instance is None or instance.state is not InstanceState.RUNNING:
            return web.Response(status=404)
        match request.match_info["path"]:
            case "instance-life-cycle":
                return web.Response(text="on-demand" if instance.spot is None else "spot")
            case "spot/instance-action" if said.taken is not None:
                return web.json_response({"action": instance.spot, "time": _moment(said.taken)})
            case "events/recommendations/rebalance" if said.likelier is not None:
                return web.json_response({"noticeTime": _moment(said.likelier)})
        return web.Response(status=404)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

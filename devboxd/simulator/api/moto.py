"""moto behind our endpoint: its WSGI application, loaded on first need, called in a thread of its own."""

from __future__ import annotations

import asyncio
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from devboxd.simulator.ec2.records import SecurityGroup, Subnet, Vpc

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MotoMissing(Exception):
    """moto is not installed; the services it would serve cannot be had."""


@dataclass(frozen=True, slots=True)
class Made:
    """Networks and instance profiles, by id and by name."""

    vpcs: dict[str, Vpc]
    subnets: dict[str, Subnet]
    groups: dict[str, SecurityGroup]
    profiles: set[str]


class MotoApp:
    """Forwards requests to moto. One thread: moto's state is not made for several."""

    def __init__(self) -> None:
        self._app: WsgiApp | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="moto")

    async def answer(self, request: web.Request, body: bytes) -> web.Response:
        """Let moto answer.

        Raises:
            MotoMissing: ``pip install 'devboxd[demo]'`` was not done.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._call, request, body)

    async def made(self, account: str, region: str) -> Made | None:
        """What was made in moto and boxes are launched into; None while moto is not loaded."""
        if self._app is None:
            return None
        return await asyncio.get_running_loop().run_in_executor(self._thread, _made, account, region)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _call(self, request: web.Request, body: bytes) -> web.Response:
        if self._app is None:
            self._app = _load()
        status: list[str] = []
        headers: list[tuple[str, str]] = []

        def start(
            line: str, pairs: list[tuple[str, str]], exc_info: object = None
        ) -> Callable[[bytes], None]:
            status.append(line)
            headers.extend(pairs)
            return lambda _: None

        try:
            content = b"".join(self._app(_environ(request, body), start))
        except KeyError as missing:
            group = _schedule_group(request, body)
            if group is None or missing.args != (group,):
                raise
            return _no_schedule_group(group)
        kept = [
            (k, v) for k, v in headers if k.lower() not in ("content-length", "connection", "server", "date")
        ]
        response = web.Response(status=int(status[0].split()[0]), body=content)
        for key, value in kept:
            response.headers[key] = value
        return response


def _schedule_group(request: web.Request, body: bytes) -> str | None:
    """The group that a schedule is to be made in; None where none is."""
    if not request.path.startswith("/schedules/"):
        return None
    try:
        return str(json.loads(body).get("GroupName") or "default")
    except (ValueError, AttributeError):
        return None


def _no_schedule_group(name: str) -> web.Response:
    """What Scheduler says to a schedule in a group that there is not; moto has no answer to it."""
    return web.json_response(
        {"Message": f"Schedule Group {name} does not exist."},
        status=404,
        headers={"x-amzn-ErrorType": "ResourceNotFoundException"},
    )


def _load() -> WsgiApp:
    # moto reads these when it is imported; strict where it can be (all are off by default).
    os.environ.setdefault("MOTO_ENABLE_AMI_VALIDATION", "true")
    os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    try:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    except ImportError as error:
        raise MotoMissing("this service needs moto: pip install 'devboxd[demo]'") from error
    app: WsgiApp = DomainDispatcherApplication(create_backend_app)
    return app


def _made(account: str, region: str) -> Made:
    from moto.backends import get_backend

    ec2: Any = get_backend("ec2")[account][region]
    iam: Any = get_backend("iam")[account]["global"]
    vpcs = {
        one.id: Vpc(one.id, one.cidr_block, tags=_tags(one))
        for one in ec2.vpcs.values()
        if not one.is_default
    }
    subnets = {
        one.id: Subnet(
            one.id, one.vpc_id, one.availability_zone, one.cidr_block,
            maps_public=bool(one.map_public_ip_on_launch), tags=_tags(one),
        )
        for zone in ec2.subnets.values()
        for one in zone.values()
        if one.vpc_id in vpcs
    }  # fmt: skip
    groups = {
        one.id: SecurityGroup(one.id, one.name, one.vpc_id, one.description or "", tags=_tags(one))
        for network in ec2.groups.values()
        for one in network.values()
        if one.vpc_id in vpcs
    }
    return Made(vpcs, subnets, groups, {one.name for one in iam.instance_profiles.values()})


def _tags(resource: Any) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in resource.get_tags()}


def _environ(request: web.Request, body: bytes) -> dict[str, Any]:
    path, _, query = request.raw_path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(path).encode().decode("latin-1"),
        "RAW_URI": request.raw_path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(request.url.port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for key, value in request.headers.items():
        name = key.upper().replace("-", "_")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            environ["HTTP_" + name] = value
    return environ

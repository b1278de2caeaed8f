"""The table of routes and those who read it: what a new route lacks is said here."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from devboxctl.fast.reply import escape
from devboxd.api import routes, wire
from devboxd.api.describe import openapi
from devboxd.api.handlers.table import HANDLERS
from devboxd.api.routes import ROUTES, Route, Shape
from tests.api.conftest import Server

ROOT = Path(__file__).parents[2]
WITHOUT_A_COMMAND: set[str] = set()  # those that are reached with devboxctl api alone


def sources(folder: str) -> Iterator[ast.AST]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


# What every route has -----------------------------------------------------------------------------------


def test_every_route_has_a_handler() -> None:
    """The daemon would not start without."""
    assert {name for name, route in ROUTES.items() if route not in HANDLERS} == set()
    assert len(HANDLERS) == len(ROUTES)


def test_every_route_is_used_by_a_command() -> None:
    """A route that no command asks is either missing one or dead."""
    named = {node.attr for node in sources("devboxctl") if isinstance(node, ast.Attribute)}
    # The fast commands import nothing and spell their routes: attach, exec, proxy, boxes, forwards.
    spelled = {
        node.value
        for node in sources("devboxctl/fast")
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    used = {
        name for name, route in ROUTES.items() if name in named or route.path.removeprefix("/v1/") in spelled
    }
    assert set(ROUTES) - used == WITHOUT_A_COMMAND


def test_routes_are_told_apart() -> None:
    """Two rows for one method and path: the second would never be asked."""
    assert len({(route.method, route.path) for route in ROUTES.values()}) == len(ROUTES)
    for route in ROUTES.values():
        assert route.method in ("GET", "POST", "DELETE")
        assert route.does.endswith(".")
        assert set(route.in_path) <= set(route.request.__struct_fields__)
        assert route.shape in (Shape.VALUE, Shape.LINES) or route.has_body, "a stream is asked for with POST"
        route.request(**dict.fromkeys(route.in_path, "x"))  # everything else has a default


# How a request is spelled -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "request_", "target"),
    [
        (routes.STATUS, wire.Nothing(), "/v1/status"),
        (routes.LIST_BOXES, wire.Account(), "/v1/boxes"),
        (routes.LIST_BOXES, wire.Account("a b&c", "eu"), "/v1/boxes?profile=a%20b%26c&region=eu"),
        (routes.SHOW_BOX, wire.Target(box="a/b?ü", profile="p"), "/v1/boxes/a%2Fb%3F%C3%BC?profile=p"),
        (routes.EVENTS, wire.EventsRequest(follow=True, since=7), "/v1/events?follow=true&since=7"),
        (routes.REMOVE_FORWARD, wire.ForwardId("f1"), "/v1/forwards/f1"),
        (routes.PING, wire.PingRequest(box="api", count=9), "/v1/boxes/api/ping"),
        (routes.ATTACH, wire.AttachRequest(box="api", profile="p"), "/v1/attach"),
    ],
)
def test_a_request_is_spelled_by_its_route(route: Route[Any, Any], request_: Any, target: str) -> None:
    assert route.target(request_) == target


@pytest.mark.parametrize("text", ["", "a b", "ä/ö", "%2F", "\udcff", "a+b&c=d", "\x00"])
def test_both_clients_escape_alike(text: str) -> None:
    """The fast commands have an escape of their own, for want of an import."""
    target = routes.REMOVE_FORWARD.target(wire.ForwardId(text))
    assert target == f"/v1/forwards/{escape(text)}"


# The description ----------------------------------------------------------------------------------------


async def test_the_daemon_describes_its_api(server: Server) -> None:
    """For programs that read OpenAPI."""
    status, data = await server.ask("GET", "/openapi.json")
    assert (status, json.loads(data)) == (200, openapi())


def test_the_description_has_every_route() -> None:
    described = {
        (method.upper(), path): operation
        for path, operations in openapi()["paths"].items()
        for method, operation in operations.items()
    }
    assert set(described) == {(route.method, route.path) for route in ROUTES.values()}
    for route in ROUTES.values():
        operation = described[(route.method, route.path)]
        parameters = operation.get("parameters", [])
        assert {one["name"] for one in parameters if one["in"] == "path"} == set(route.in_path)
        assert ("requestBody" in operation) == (route.has_body and route.request is not wire.Nothing)
        expected = "200" if route.shape in (Shape.VALUE, Shape.LINES) else "101"
        assert set(operation["responses"]) == {expected, "default"}
    names = [operation["operationId"] for operation in described.values()]
    assert len(set(names)) == len(names)


def test_the_description_refers_to_nothing_that_it_does_not_have() -> None:
    document = json.dumps(openapi())
    schemas = set(openapi()["components"]["schemas"])
    referred = set(re.findall(r'"\$ref": "#/components/schemas/(\w+)"', document))
    assert referred <= schemas
    assert {"Failure", "StreamStatus", "StreamExit"} <= schemas
    assert openapi()["openapi"].startswith("3.1.")


def test_every_type_of_the_contract_is_described() -> None:
    """What the package exports and no route carries would be dead, or a route's forgotten answer."""
    structs = {
        name
        for name, value in vars(wire).items()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not wire.Nothing
    }
    assert structs == set(openapi()["components"]["schemas"])
    assert structs <= set(wire.__all__)

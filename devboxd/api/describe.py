"""The API described out of its table of routes: as OpenAPI for programs, as a table for docs/api.md."""

from __future__ import annotations

import functools
from typing import Any, Final

import msgspec

from devboxd import __version__
from devboxd.api import wire
from devboxd.api.routes import ROUTES, Route, Shape, is_struct

Json = dict[str, Any]

OPENAPI: Final = "3.1.0"
_REF: Final = "#/components/schemas/{name}"
_ABOUT: Final = (
    "HTTP over the daemon's unix socket, for its own user only. Fields are added, never renamed or removed. "
    "Times are RFC 3339 texts in UTC, durations are seconds, defaults are left out of answers."
)
_FRAMED: Final = "The connection leaves HTTP and carries frames: see docs/api.md, Streams."
_RAW: Final = "The connection leaves HTTP and carries raw bytes, or one descriptor with `fd_pass`."


@functools.cache
def openapi() -> Json:
    """The API as an OpenAPI 3.1 document."""
    in_frames = [wire.StreamStatus, wire.StreamExit]
    types = [
        wire.Failure,
        *in_frames,
        *(one for route in ROUTES.values() for one in (route.request, route.answer)),
    ]
    _, components = msgspec.json.schema_components(_structs(types), ref_template=_REF)
    paths: dict[str, Json] = {}
    for name, route in ROUTES.items():
        operation = _operation(name, route, components)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": OPENAPI,
        "info": {"title": "devboxd", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "http://devboxd", "description": "the unix socket; the host name is not used"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _structs(types: list[Any]) -> list[Any]:
    """Each struct once, in order; an answer that is no struct (this description) has no schema of its own."""
    return [one for one in dict.fromkeys(types) if is_struct(one) and one is not wire.Nothing]


def _operation(name: str, route: Route[Any, Any], components: Json) -> Json:
    operation: Json = {"operationId": name.lower(), "summary": route.does}
    schema = components.get(route.request.__name__, {})
    if parameters := [*_path_parameters(route, schema), *_query_parameters(route, schema)]:
        operation["parameters"] = parameters
    if route.has_body and route.request is not wire.Nothing:
        content = {"application/json": {"schema": _schema(route.request)}}
        operation["requestBody"] = {"required": bool(schema.get("required")), "content": content}
    failure = {"application/json": {"schema": _schema(wire.Failure)}}
    operation["responses"] = {**_responses(route), "default": {"description": "Refused.", "content": failure}}
    return operation


def _path_parameters(route: Route[Any, Any], schema: Json) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _plain(schema["properties"][name])}
        for name in route.in_path
    ]


def _query_parameters(route: Route[Any, Any], schema: Json) -> list[Json]:
    if route.has_body:
        return []
    return [
        {"name": name, "in": "query", "required": False, **_in_query(name in route.nested, one)}
        for name, one in schema.get("properties", {}).items()
        if name not in route.in_path
    ]


def _in_query(is_nested: bool, schema: Json) -> Json:
    """How a value stands in a query: as it is, or as JSON."""
    return {"content": {"application/json": {"schema": schema}}} if is_nested else {"schema": schema}


def _plain(schema: Json) -> Json:
    """A schema without its default: what stands in a path has none."""
    return {key: value for key, value in schema.items() if key != "default"}


def _responses(route: Route[Any, Any]) -> Json:
    match route.shape:
        case Shape.VALUE:
            kind, code = "application/json", "200"
        case Shape.LINES:
            kind, code = "application/x-ndjson", "200"
        case Shape.FRAMES:
            said = "" if route.answer is wire.Nothing else f" ANSWER frames carry `{route.answer.__name__}`."
            return {"101": {"description": _FRAMED + said}}
        case Shape.BYTES:
            return {"101": {"description": _RAW}}
    each = "One JSON value a line." if route.shape is Shape.LINES else "Done."
    return {code: {"description": each, "content": {kind: {"schema": _schema(route.answer)}}}}


def _schema(kind: type[Any]) -> Json:
    if is_struct(kind):
        return {"$ref": _REF.format(name=kind.__name__)}
    return {"type": "object"}


def table() -> str:
    """The routes as they stand in docs/api.md."""
    lines = ["| method | route | request | answer | |", "|---|---|---|---|---|"]
    for route in ROUTES.values():
        cells = (route.method, f"`{route.path}`", _request(route), _answer(route), route.does)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _request(route: Route[Any, Any]) -> str:
    if route.has_body:
        return "" if route.request is wire.Nothing else f"`{route.request.__name__}`"
    asked = [name for name in route.request.__struct_fields__ if name not in route.in_path]
    return f"`?{'&'.join(asked)}`" if asked else ""


def _answer(route: Route[Any, Any]) -> str:
    name = "" if route.answer is wire.Nothing else f"`{_name(route.answer)}`"
    match route.shape:
        case Shape.VALUE:
            return name
        case Shape.LINES:
            return f"{name}, one a line"
        case Shape.FRAMES:
            return "101, framed stream" + (f" with {name}" if name else "")
        case Shape.BYTES:
            return "101, raw bytes"


def _name(kind: type[Any]) -> str:
    return kind.__name__ if is_struct(kind) else "OpenAPI 3.1"

"""Which function answers which route. The decorators hold a function to its route's types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import msgspec

from devboxd.api.handlers.context import Context
from devboxd.api.routes import Route, Shape
from devboxd.api.upgrade import Framed, Linked, Piped

RequestT = TypeVar("RequestT", bound=msgspec.Struct)
AnswerT = TypeVar("AnswerT")
Values = Callable[[Context, RequestT], Awaitable[AnswerT]]
Lines = Callable[[Context, RequestT], AsyncIterator[AnswerT]]
Frames = Callable[[Context, RequestT], Awaitable[Framed]]
Bytes = Callable[[Context, RequestT], Awaitable[Piped | Linked]]

HANDLERS: Final[dict[Route[Any, Any], Callable[[Context, Any], Any]]] = {}


def answers(
    route: Route[RequestT, AnswerT],
) -> Callable[[Values[RequestT, AnswerT]], Values[RequestT, AnswerT]]:
    """The function returns the answer."""
    return _enter(route, Shape.VALUE)


def tells(route: Route[RequestT, AnswerT]) -> Callable[[Lines[RequestT, AnswerT]], Lines[RequestT, AnswerT]]:
    """The function yields the lines of the answer."""
    return _enter(route, Shape.LINES)


def frames(route: Route[RequestT, Any]) -> Callable[[Frames[RequestT]], Frames[RequestT]]:
    """The function checks the request, and returns what to do with the client as a terminal."""
    return _enter(route, Shape.FRAMES)


def pipes(route: Route[RequestT, Any]) -> Callable[[Bytes[RequestT]], Bytes[RequestT]]:
    """The function connects, and returns the connection."""
    return _enter(route, Shape.BYTES)


def _enter(route: Route[Any, Any], shape: Shape) -> Callable[[Any], Any]:
    assert route.shape is shape, f"{route.path} answers with {route.shape}"

    def enter(function: Any) -> Any:
        assert route not in HANDLERS, f"{route.method} {route.path} has two handlers"
        HANDLERS[route] = function
        return function

    return enter

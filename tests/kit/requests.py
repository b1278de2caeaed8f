"""Requests to the control API as no client of ours would send them, out of the table of routes and a seed.

Each is a valid request of some route with one thing, or a few, gone wrong: a value, the JSON around it, the
path, the method, a header, the framing. What is asked may be carried out: nothing in here harms the machine
that runs the boxes.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from devboxd.api import routes
from devboxd.api.routes import ROUTES, Route, Shape

Info = msgspec.inspect.Type

DEEP: Final = 50_000  # levels of a value that is nested for the sake of it
LONG: Final = 70_000  # characters of a text that is longer than any field means
STREAMS_VALID: Final = 0.03  # of the streams that are asked for as they should be: each starts a program


class Raw(str):
    """JSON as text, for what json would not write."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request as bytes, and what may be expected of its answer."""

    data: bytes
    route: Route[Any, Any]
    is_http: bool = True  # False: not well-formed, so the HTTP library may answer, or hang up
    is_whole: bool = True  # False: it announces more than it sends

    def __str__(self) -> str:
        return f"{self.route.method} {self.route.path}: {self.data[:600]!r}"


# Texts that were somebody's trouble once: ends of strings, lone surrogates, control characters, directions,
# paths, addresses, names that a resolver, a shell, a URL or a terminal takes for something else.
TEXTS: Final[Sequence[str]] = (
    *("", " ", "\x00", "a\x00b", "\x1b[31m", "\x9b0m", "\u202e", "\ud800", "a\udfffb", "\ufeff", "\n", "\r\n", "\x7f"),
    *(".", "..", "../../../../etc/passwd", "/dev/null/x", "/proc/self/mem", "~", "~nobody-here/x", "~/", "//", "\\"),
    *("a" * 64, f"{'a' * 64}.b", "a..b", ".a", "a.", "xn--", "xn--a", "é", "ⅷ", "İ", "ß" * 40, "%", "%s%n", "%00", "a%2fb"),
    *("::1", "[::1]", "[", "]", "fe80::1%lo", "0x7f.1", "256.1.1.1", "127.0.0.1:1", "0.0.0.0", "*", "localhost", "-1"),
    *("-oX=y", "--", "-", "$HOME", "'", '"', "`", "a b", "a;b", "a,b", "a=b", "a/b", "a@b", "@", "#", "?", "&"),
    *("i-0123456789abcdef0", "i-x", "mi-0123456789abcdef0", "arn:aws:ec2:::x", "default", "none", "null", "nan", "1e999"),
    *("A" * 300, "A" * 5000, "A" * LONG, "é" * LONG, "\x00" * 1000),
)  # fmt: skip
ODD: Final[Sequence[Any]] = (
    *(None, True, False, [], {}, [[]], [None], {"": None}, [1], ["x"], {"a": "b"}, {"x": {"y": [1]}}),
    *(0, -1, 1, 7, 22, 255, 65535, 65536, 70000, 2**31, -(2**31), 2**53, 2**63 - 1, 2**63, 2**64, -(2**64), 10**400),
    *(0.0, -0.0, 0.5, -1.5, 1e-320, 1e18, 1e308, -1e308, Raw("1e999"), Raw("-1e999"), Raw("NaN"), Raw("Infinity")),
    *(Raw("[" * DEEP), Raw("[" * DEEP + "]" * DEEP), Raw('{"a":' * DEEP + "1" + "}" * DEEP), Raw('"\\ud800"')),
    *(Raw('"\\u0000"'), Raw("01"), Raw("'x'"), Raw("undefined"), Raw('"\\x41"'), Raw("\\u0031"), Raw("0x10")),
    *(["a"] * 300, [["a"]] * 300, {str(n): n for n in range(300)}, ["\x00", ""], {"a\x00": "b"}, {"=": "\x00"}),
)  # fmt: skip
EXTRA: Final = ("box", "extra", "", "\x00", "__class__", "profile", "port")  # fields out of nowhere
METHODS: Final = (
    "GET",
    "POST",
    "DELETE",
    "PUT",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "X",
    "GE T",
)
EXPECT: Final = b"Expect: 100-continue"  # odd, and quite in order
HEADERS: Final[Sequence[bytes]] = (
    *(b"Content-Type: text/plain", b"Content-Type: application/json; charset=utf-16", b"Content-Type: ", b"Accept: x"),
    *(EXPECT, b"Expect: nothing", b"Upgrade: websocket", b"Upgrade: h2c", b"Upgrade: devbox, h2c"),
    *(b"Connection: Upgrade", b"Connection: keep-alive", b"Connection: close, close", b"Content-Encoding: gzip"),
    *(b"Content-Encoding: deflate", b"Content-Encoding: nothing", b"Range: bytes=0-", b"Cookie: a=b; \xff=c", b"Cookie: =;;="),
    *(b"Host: ", b"Host: a b", b"Host: [", b"X: \xff\xfe", b"X:", b"X: " + b"y" * 6000, b"If-Match: *", b"Authorization: x"),
    *(b"Sec-WebSocket-Key: x", b"Transfer-Encoding: identity", b"Origin: http://evil.example", b"Forwarded: for=\"", b"Date: x"),
)  # fmt: skip
ENDING: Final = (routes.STOP, routes.HAND_OVER)  # nobody else is answered while a daemon ends
BROKEN: Final[Sequence[bytes]] = (
    *(b"", b"\r\n\r\n", b"\x00" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\n\n", b"\x16\x03\x01\x02\x00"),
    *(b"GET /v1/status HTTP/1.1\r\nHost\r\n\r\n", b"GET /v1/status HTTP/1.1\r\n: x\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    *(b"GET /v1/status HTTP/1.1\r\n a: b\r\n\r\n", b"POST /v1/stop HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"A" * 70_000),
    *(b"POST /v1/stop HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", b"GET /v1/status\r\n\r\n"),
    *(b"POST /v1/stop HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", b"GET  /v1/status  HTTP/1.1\r\n\r\n"),
    *(b"POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n"),
    *(b"POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
    *(b"POST /v1/stop HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", b"GET /v1/status HTTP/1.1\r\n" + b"a: b\r\n" * 5000 + b"\r\n"),
)  # fmt: skip


class Requests:
    """An endless supply; the same for the same seed, boxes and folder."""

    def __init__(self, seed: int, boxes: Sequence[str], folder: Path) -> None:
        self._dice = random.Random(seed)
        self._boxes = boxes
        self._folder = folder

    def next(self) -> Attempt:
        """One more."""
        dice = self._dice
        route = dice.choice(list(ROUTES.values()))
        if dice.random() < 0.03:
            return Attempt(dice.choice(BROKEN), route, is_http=False, is_whole=False)
        fields: dict[str, Any] = self._struct(msgspec.inspect.type_info(route.request))
        whole = dice.random() < (STREAMS_VALID if route.shape in (Shape.FRAMES, Shape.BYTES) else 0.2)
        if route in ENDING or not whole:
            for _ in range(dice.choice((1, 1, 1, 2, 3))):
                self._spoil(fields)
        if route in ENDING:
            return self._sent(route, fields, b"{")  # carried out, it would be the end of the test
        return self._sent(route, fields, None)

    # Values -------------------------------------------------------------------------------------------

    def _struct(self, info: Info) -> dict[str, Any]:
        assert isinstance(info, msgspec.inspect.StructType)
        found = {}
        for field in info.fields:
            if field.required or field.name == "box" or self._dice.random() < 0.5:
                found[field.name] = self._value(field.name, field.type)
        return found

    def _value(self, name: str, info: Info) -> Any:
        """A value that fits."""
        dice = self._dice
        match info:
            case msgspec.inspect.UnionType():
                return self._value(name, dice.choice(info.types))
            case msgspec.inspect.StructType():
                return self._struct(info)
            case msgspec.inspect.ListType():
                return [self._value(name, info.item_type) for _ in range(dice.randrange(3))]
            case msgspec.inspect.DictType():
                return {dice.choice(("A", "B_C", "PATH2")): dice.choice(("", "x y", "é"))}
            case msgspec.inspect.BoolType():
                return dice.random() < 0.5
            case msgspec.inspect.IntType():
                return dice.choice((0, 1, 7, 22, 80, 1024, 60000))
            case msgspec.inspect.FloatType():
                return dice.choice((0.0, 0.05, 0.5, 1))
            case msgspec.inspect.NoneType():
                return None
            case _:
                return self._text(name)

    def _text(self, name: str) -> str:
        dice = self._dice
        plain: dict[str, Callable[[], str]] = {
            "box": lambda: dice.choice((*self._boxes, *self._boxes, "nope", "api.devbox")),
            "profile": lambda: "default" if dice.random() < 0.9 else "nope",
            "region": lambda: "us-east-1",
            "argv": lambda: "true",
            "command": lambda: "true",
            "cwd": lambda: "/",
            "user": lambda: dice.choice(("root", "nobody", "no-such-user")),
            "ssh_user": lambda: dice.choice(("root", "no-such-user")),
            "bind": lambda: dice.choice(("127.0.0.1", "localhost", "::1")),
            "local_path": lambda: str(self._folder / f"s{dice.randrange(50)}"),
            "mux": lambda: dice.choice(("none", "tmux")),
            "session": lambda: dice.choice(("main", "two")),
            "id": lambda: dice.choice(("", "a", "nope", f"{dice.randrange(16):x}")),
        }
        return plain.get(name, lambda: dice.choice(("x", "word", "xterm", "C.UTF-8")))()

    def _spoil(self, fields: dict[str, Any]) -> None:
        """Make one thing wrong, at any depth."""
        dice = self._dice
        name = dice.choice(list(fields)) if fields and dice.random() < 0.95 else dice.choice(EXTRA)
        inner = fields.get(name)
        odd = copy.deepcopy(self._odd(inner))
        if isinstance(inner, list) and inner and isinstance(inner[-1], dict) and dice.random() < 0.8:
            self._spoil(inner[-1])
        elif isinstance(inner, list) and inner and dice.random() < 0.5:
            inner[dice.randrange(len(inner))] = odd
        elif dice.random() < 0.05:
            fields.pop(name, None)
        else:
            fields[name] = odd

    def _odd(self, inner: Any) -> Any:
        """Something odd: most often of the same kind, so that it gets past the door."""
        dice = self._dice
        if dice.random() < 0.3:
            return dice.choice(ODD)
        if isinstance(inner, int) and not isinstance(inner, bool):
            return dice.choice([odd for odd in ODD if isinstance(odd, int) and not isinstance(odd, bool)])
        if isinstance(inner, float):
            return dice.choice([odd for odd in ODD if isinstance(odd, float)])
        if isinstance(inner, list):
            return [dice.choice(TEXTS) for _ in range(dice.randrange(4))]
        if isinstance(inner, dict):
            return {dice.choice(TEXTS): dice.choice(TEXTS) for _ in range(dice.randrange(4))}
        return dice.choice(TEXTS)

    # The way they are sent ----------------------------------------------------------------------------

    def _sent(self, route: Route[Any, Any], fields: dict[str, Any], body: bytes | None) -> Attempt:
        dice = self._dice
        path = route.path
        for name in route.in_path:
            path = path.replace(f"{{{name}}}", self._in_address(fields.get(name, "")))
        if not route.has_body:
            left = [(key, value) for key, value in fields.items() if key not in route.in_path]
            path += "?" + "&".join(f"{self._in_address(k)}={self._in_address(v)}" for k, v in left)
        elif body is None:
            body = self._spoiled_json(_json(fields).encode("utf-8", "surrogatepass"))
        spoiled = self._spoiled_path(path) if dice.random() < 0.04 else path
        method = dice.choice(METHODS) if dice.random() < 0.04 else route.method
        headers = [b"Host: devboxd"]
        if route.shape in (Shape.FRAMES, Shape.BYTES) and dice.random() < 0.95:
            headers += [b"Connection: Upgrade", b"Upgrade: devbox"]
        as_usual = len(headers)
        while dice.random() < 0.1:
            headers.insert(dice.randrange(len(headers) + 1), dice.choice(HEADERS))
        first = f"{method} {spoiled} HTTP/{'1.0' if dice.random() < 0.02 else '1.1'}"
        framing, data, is_whole, is_framed = self._framed(body)
        head = b"\r\n".join([first.encode("utf-8", "surrogateescape"), *headers, *framing, b"", b""])
        has_odd = len(headers) - headers.count(EXPECT) != as_usual
        is_plain = spoiled == path and method in ("GET", "POST", "DELETE") and not has_odd
        is_http = is_plain and is_framed and path.isascii() and path.isprintable() and len(path) < 8000
        return Attempt(head + data, route, is_http=is_http, is_whole=is_whole)

    def _framed(self, body: bytes | None) -> tuple[list[bytes], bytes, bool, bool]:
        """Headers and bytes that carry a body; whether it is all there, and whether by the rules."""
        dice = self._dice
        if body is None:
            return [], b"", True, True
        die = dice.random()
        if die < 0.06:
            pieces, left = b"", body
            while left:
                size = dice.randrange(1, 400) if len(left) < 5000 else 30_000
                piece, left = left[:size], left[size:]
                pieces += b"%x\r\n%s\r\n" % (len(piece), piece)
            end = b"0\r\n\r\n" if dice.random() < 0.8 else b""
            return [b"Transfer-Encoding: chunked"], pieces + end, bool(end), True
        if die < 0.08:
            return [b"Content-Length: %d" % (len(body) + dice.randrange(1, 3000))], body, False, True
        if die < 0.1:
            return [b"Content-Length: %d" % dice.randrange(len(body) + 1)], body, True, False
        return [b"Content-Length: %d" % len(body)], body, True, True

    def _spoiled_json(self, body: bytes) -> bytes:
        dice = self._dice
        die = dice.random()
        if die < 0.03:
            return body[: dice.randrange(len(body) + 1)]
        if die < 0.06:
            at = dice.randrange(len(body))
            return body[:at] + bytes((dice.randrange(256),)) + body[at + 1 :]
        if die < 0.1:
            return dice.choice(
                (b"", b"[]", b"1", b"null", b'"x"', b"\xff\xfe{}", b"\xef\xbb\xbf{}", body * 2, b"{}{}")
            )
        return body

    def _spoiled_path(self, path: str) -> str:
        dice = self._dice
        odd = (
            "/",
            "?",
            "#x",
            "//",
            "/../status",
            "%",
            "%zz",
            "%00",
            "?%",
            "?&=&",
            "?a" * 500,
            "\x80",
            "é",
            ";x",
            "/" + "x" * 3000,
        )
        return dice.choice(
            (path + dice.choice(odd), dice.choice(odd) + path, f"http://devboxd{path}", "*", path.upper())
        )

    def _in_address(self, value: Any) -> str:
        """A value as it stands in a path or a query, now and then escaped more or less than it should be."""
        text = value if isinstance(value, str) else _json(value)
        text = text[:2000]
        die = self._dice.random()
        data = text.encode("utf-8", "surrogatepass")
        if die < 0.05:
            return "".join(f"%{byte:02x}" for byte in data)
        if die < 0.08:
            return (
                data.decode("utf-8", "surrogateescape")
                .replace(" ", "+")
                .replace("\r", "")
                .replace("\n", "")
                .replace("\x00", "")
            )
        return "".join(chr(b) if chr(b).isalnum() and b < 128 else f"%{b:02X}" for b in data)


def _json(value: Any) -> str:
    """Write JSON, raw parts as they are."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(k))}:{_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value)

"""Read forwards as people write them: ``[LOCAL:][HOST:]PORT``, ranges, local unix sockets."""

from __future__ import annotations

from devboxctl.fast.folder import absolute
from devboxctl.fast.reply import UsageError
from devboxd.api import wire

SOCKS_PORT = 1080
RANGE_MAX = 256  # forwards from one range


def read(text: str, bind: str = "localhost") -> list[wire.ForwardSpec]:
    """Read one SPEC; a range makes several forwards.

    ``8000`` · ``9000:8000`` · ``db.internal:5432`` · ``15432:db.internal:5432`` · ``8000-8010`` ·
    ``9000-9010:8000-8010`` · ``0:8000`` (any free port) · ``./db.sock:5432`` · ``9000:[fd00::5]:80`` ·
    ``8080:/run/app.sock`` and ``./app.sock:~/app.sock`` (a socket on the box)

    Raises:
        UsageError: it is none of these.
    """
    path, rest = _local_path(text)
    parts = _split(rest, text)
    if len(parts) <= 2 and _is_path(parts[-1]) and (path is None) == (len(parts) == 2):
        local = None
        if path is None:
            (local,) = _range(parts[0], text, lowest=0, most=1)
        return [wire.ForwardSpec(path=parts[-1], local_path=path, local_port=local, bind=bind)]
    if path is not None:
        host, port = _remote(parts, text)
        return [wire.ForwardSpec(port=port, host=host, local_path=path)]
    locals_: list[int] | None = None
    if len(parts) > 1 and _is_range(parts[0]):
        locals_ = _range(parts[0], text, lowest=0)
        parts = parts[1:]
    host = _host(parts[0], text) if len(parts) == 2 else None
    if len(parts) > 2:
        raise _wrong(text)
    ports = _range(parts[-1], text)
    if locals_ is None:
        locals_ = ports
    elif len(locals_) != len(ports):
        raise UsageError(f"the two ranges of {text} are not equally long")
    return [
        wire.ForwardSpec(port=port, host=host, local_port=local, bind=bind)
        for local, port in zip(locals_, ports, strict=True)
    ]


def read_reverse(text: str) -> wire.ForwardSpec:
    """Read one SPEC of ``-R``: ``[BOX:][HOST:]PORT``, the box's end first, as ssh has it.

    ``3000`` · ``8080:3000`` · ``8080:db.lan:5432`` · ``~/app.sock:3000`` · ``8080:./app.sock``

    Raises:
        UsageError: it is none of these.
    """
    path: str | None = None
    rest = text
    if _is_path(text):
        path, colon, rest = text.partition(":")
        if not colon:
            raise UsageError(f"{text} names a socket of the box but nothing here", f"try: {text}:PORT")
    parts = _split(rest, text)
    far: int | None = None
    if path is None and len(parts) > 1:
        (far,) = _range(parts.pop(0), text, most=1)
    if len(parts) == 1 and parts[0].startswith(("/", "./", "../", "~/")) and (path or far):
        here = absolute(parts[0])
        return wire.ForwardSpec(reverse=True, port=far, path=path, local_path=here)
    host, port = _remote(parts, text)
    if path is None and far is None:
        far = port
    return wire.ForwardSpec(reverse=True, port=far, path=path, local_port=port, bind=host or "localhost")


def _is_path(text: str) -> bool:
    return text.startswith(("/", "~/"))


def looks_like_spec(text: str) -> bool:
    """Tell whether a word reads as a SPEC, and so is no box. One that is called ``8000`` is ``8000.devbox``."""
    try:
        return bool(read(text))
    except UsageError:
        return False


def _local_path(text: str) -> tuple[str | None, str]:
    if not text.startswith(("/", "./", "../", "~/")):
        return None, text
    path, colon, rest = text.rpartition(":")
    before, more, host = path.rpartition(":")
    if more and host and "/" not in host:  # ./path:host:port
        path, rest = before, f"{host}:{rest}"
    if not colon or not path:
        raise UsageError(f"{text} names a local socket but no port of the box", f"try: {text}:PORT")
    return absolute(path), rest


def _split(text: str, whole: str) -> list[str]:
    """Split at colons, but not inside the brackets of an IPv6 address."""
    parts, depth, part = [], 0, ""
    for c in text:
        depth += (c == "[") - (c == "]")
        if c == ":" and not depth:
            parts.append(part)
            part = ""
        else:
            part += c
    parts.append(part)
    if depth or not all(parts):
        raise _wrong(whole)
    return parts


def _remote(parts: list[str], text: str) -> tuple[str | None, int]:
    if len(parts) > 2:
        raise _wrong(text)
    (port,) = _range(parts[-1], text, most=1)
    return (_host(parts[0], text) if len(parts) == 2 else None), port


def _host(text: str, whole: str) -> str:
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if not host or host.startswith("-") or any(c.isspace() for c in host):
        raise _wrong(whole)
    return host


def _is_range(text: str) -> bool:
    first, dash, last = text.partition("-")
    # isdecimal alone would take the digits of every script
    return text.isascii() and first.isdecimal() and (not dash or last.isdecimal())


def _range(text: str, whole: str, *, lowest: int = 1, most: int = RANGE_MAX) -> list[int]:
    if not _is_range(text):
        raise _wrong(whole)
    first, dash, last = text.partition("-")
    low, high = int(first), int(last) if dash else int(first)
    if not lowest <= low <= high <= 65535:
        raise UsageError(f"{text} in {whole} is not a port or a range of ports")
    if high - low >= most:
        raise UsageError(f"the range {text} is too long", f"at most {most} forwards at once")
    return list(range(low, high + 1))


def _wrong(text: str) -> UsageError:
    return UsageError(
        f"{text} is not a forward",
        "write PORT, LOCAL:PORT, HOST:PORT or LOCAL:HOST:PORT; LOCAL may be a path",
    )

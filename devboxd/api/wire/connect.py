"""Terminals, commands, pipes and forwards; and the frames of a stream."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import msgspec

from devboxd.api.wire.common import (
    API_VERSION,
    Cells,
    Condition,
    Failure,
    Line,
    LocalPort,
    Port,
    Seconds,
    Target,
    Text,
    Variable,
)

# A stream frame: type, payload length, payload.
STREAM_HEADER: Final = struct.Struct(">BI")
STREAM_MAX: Final = 1 << 20  # longest payload in bytes; more is a protocol error
INPUT_WINDOW: Final = 65536  # input bytes a client may send ahead of the credit it was given
OUTPUT_WINDOW: Final = 262144  # output bytes a daemon may send ahead of CREDIT_OUTPUT (exec, both outputs)
UPGRADE: Final = "devbox"  # the protocol named in Upgrade
ANSWERED: Final = "Devbox-Answered"  # header of the 101: the connection stands at the far end, too
NOTES: Final = "Devbox-Notes"  # header of the 101 with sentences for whoever uses the stream


class StreamType(IntEnum):
    """The first byte of a stream frame. Below 0x80: client to daemon."""

    INPUT = 0x01  # bytes typed or piped
    RESIZE = 0x02  # WINDOW_SIZE: columns, rows
    DETACH = 0x03  # leave; the session may go on
    END_OF_INPUT = 0x04  # standard input is at its end
    SIGNAL = 0x05  # one byte: signal number for a remote command
    CREDIT_OUTPUT = 0x06  # u32: that many output bytes were written out (exec only)
    OUTPUT = 0x81  # standard output
    ERROR_OUTPUT = 0x82  # standard error
    STATUS = 0x83  # StreamStatus as JSON: for the status line, never for standard output
    EXIT = 0x84  # StreamExit as JSON; the last frame
    CREDIT = 0x85  # u32: that many input bytes were taken
    ANSWER = 0x86  # the answer of the route as JSON (forwards/hold: ForwardList)


WINDOW_SIZE: Final = struct.Struct(">HH")
CREDIT: Final = struct.Struct(">I")


class AttachRequest(Target, omit_defaults=True):
    """Join or create the mux session of a box (or start a plain shell with ``raw``).

    ``rejoin``: this terminal has been joined before; its client lost the daemon, not the terminal.
    """

    session: Line = "main"
    raw: bool = False
    command: Text | None = None
    user: Line | None = None
    columns: Cells = 80
    rows: Cells = 24
    term: Line = "xterm-256color"
    colorterm: Line | None = None
    locale: Line | None = None
    mux: Line | None = None  # zellij, tmux, none; None: what the box has
    forward_agent: bool = False
    ssh_auth_sock: Line | None = None
    rejoin: bool = False


class ExecRequest(Target, omit_defaults=True):
    """Run a command. Output is byte-exact; with ``tty`` both streams are one terminal."""

    argv: list[Text] = msgspec.field(default_factory=list)
    tty: bool = False
    stdin: bool = True  # False: the command reads end of file at once
    user: Line | None = None
    cwd: Text | None = None
    env: dict[Variable, Text] = msgspec.field(default_factory=dict)
    columns: Cells = 80
    rows: Cells = 24
    term: Line = "xterm-256color"


class ProxyRequest(Target, omit_defaults=True):
    """A byte pipe to a port of the box (or of ``host`` as the box sees it).

    With ``fd_pass`` the daemon answers 101 and then passes one end of a socket pair (SCM_RIGHTS with one
    byte of data) for OpenSSH's ProxyUseFdpass. With ``ssh_user`` the user's key and the box's host key are
    put in place first, and what its user should know is in the header ``Devbox-Notes`` (UTF-8, tabs between
    sentences). The header ``Devbox-Answered`` tells that the connection stands at the far end, too; without it
    nobody knows, and a refusal is an end without a byte. With ``fresh`` the box is looked at for that even if it was lately.
    """

    port: Port = 22
    host: Line | None = None
    fd_pass: bool = False
    ssh_user: Line | None = None
    fresh: bool = False
    wait: Seconds = 120.0  # seconds to wait for a box that is not connected yet


class StreamStatus(msgspec.Struct, omit_defaults=True):
    """How a held session is doing. ``state``: starting, online, reconnecting, reopening, ending."""

    state: str
    text: str = ""
    since: str | None = None  # when it went off line
    retry_in: float | None = None  # seconds until the next try
    mux: str | None = None


class StreamExit(msgspec.Struct, omit_defaults=True):
    """The end of a stream. ``status`` is the remote command's own, None where there is none to know."""

    status: int | None = None
    reason: str = ""  # for people; empty for an ordinary end
    failure: Failure | None = None
    reattach: bool = False  # the session goes on without this terminal


class ForwardSpec(msgspec.Struct, omit_defaults=True):
    """One forward as asked for.

    Exactly one of ``port`` (with ``host``: as the box sees it), ``path`` (a unix socket on the box, with / or ~/ in
    front) and ``dynamic`` (SOCKS5) is set. With ``reverse`` the box listens there, on loopback, and the local end is
    what that leads to: a port of ``bind``, or a socket. The local
    end is ``bind``:``local_port`` (0 picks one; None: the same number as ``port``, or another where that
    is taken and ``strict`` is false) or the unix socket ``local_path``.
    """

    port: Port | None = None
    host: Line | None = None
    local_port: LocalPort | None = None
    local_path: Line | None = None
    bind: Line = "localhost"  # IPv4 and IPv6
    dynamic: bool = False
    strict: bool = True
    path: Line | None = None
    reverse: bool = False


class ForwardRequest(Target, omit_defaults=True):
    """Add and keep forwards: all of them or none. ``auto`` mirrors what listens on the box."""

    forwards: list[ForwardSpec] = msgspec.field(default_factory=list)
    auto: bool = False
    ephemeral: bool = False  # refused since ``forwards/hold`` holds them as long as its stream


class Forward(msgspec.Struct, omit_defaults=True):
    """A forward as it stands. ``state``: listening, connecting, online, reconnecting, failed, removed."""

    id: str
    box: str
    state: str
    local: str  # 127.0.0.1:8080, or a path
    remote: str  # 5432, db.internal:5432, socks5, auto
    connections: int = 0
    total_connections: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    sessions: int = 0
    error: str | None = None
    auto: bool = False
    note: str | None = None  # why a mirror of ``auto`` has another number than its port
    reverse: bool = False  # the box listens at ``remote``, and that leads to ``local``


class ForwardList(msgspec.Struct, omit_defaults=True):
    """Forwards, in order of their making. ``conditions`` say why they may be forgotten, where they may."""

    forwards: list[Forward]
    conditions: list[Condition] = []
    version: int = API_VERSION


class ForwardId(msgspec.Struct):
    """A forward by its id, or a unique beginning of it."""

    id: Line


class Session(msgspec.Struct, omit_defaults=True):
    """An SSM session that the daemon holds. ``kind``: shell, mux, exec, port, ssh, control."""

    id: str
    box: str
    kind: str
    state: str
    detail: str = ""
    since: str | None = None
    resumes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    round_trip: float | None = None  # seconds
    agent_version: str | None = None
    name: str | None = None  # of the session on the box that a terminal is joined to
    target: str | None = None  # instance id
    profile: str | None = None
    region: str | None = None


class SessionList(msgspec.Struct, omit_defaults=True):
    """Sessions, oldest first."""

    sessions: list[Session]
    version: int = API_VERSION


class SessionId(msgspec.Struct):
    """A session by its id, or a unique beginning of it."""

    id: Line

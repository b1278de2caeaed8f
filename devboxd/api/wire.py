"""The promise to clients: requests, replies and events of the control API, version 1.

HTTP/1.1 + JSON over the unix socket. Fields are added, never renamed or removed. Times are RFC 3339
texts in UTC; durations are seconds. Routes (all below ``/v1``)::

    GET    status                       Status
    GET    boxes[?profile&region]       BoxList
    GET    boxes/{box}                  Box
    POST   boxes/{box}/ping             PingRequest -> Ping
    POST   boxes/{box}/doctor           Target -> Doctor
    POST   doctor                       Target -> Doctor     (this machine only)
    POST   boxes/{box}/ssh              SshRequest -> SshAccess
    GET    ssh-config[?command=PATH]    SshConfigResult      (what is there; changes nothing)
    POST   ssh-config                   SshConfigRequest -> SshConfigResult   (write it)
    DELETE ssh-config                   SshConfigResult      (take it out again)
    GET    forwards                     ForwardList
    POST   forwards                     ForwardRequest -> ForwardList (those added)
    DELETE forwards/{id}                Forward
    GET    sessions                     SessionList
    DELETE sessions/{id}                Session
    GET    events[?follow=1&since=SEQ]  one Event per line (NDJSON), oldest first
    GET    config                       ConfigView
    POST   login                        LoginRequest -> one LoginStep per line (NDJSON)
    POST   stop                         Stopping
    POST   attach                       AttachRequest -> 101, framed stream
    POST   exec                         ExecRequest   -> 101, framed stream
    POST   proxy                        ProxyRequest  -> 101, raw bytes; or a descriptor (fd_pass)

Errors are ``Failure`` with the HTTP status of its kind. The three stream routes answer ``101`` only
once the far end is ready (``proxy``) or the request is accepted (``attach``, ``exec``: progress travels
in the stream). A client sends no stream byte before it has read the whole 101 answer. It asks with
``Connection: Upgrade`` and ``Upgrade: devbox``. A stream that ends without ``EXIT`` means that the
daemon is gone.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any, Final

import msgspec

API_VERSION: Final = 1

# A stream frame: type, payload length, payload.
STREAM_HEADER: Final = struct.Struct(">BI")
STREAM_MAX: Final = 1 << 20  # longest payload in bytes; more is a protocol error
INPUT_WINDOW: Final = 65536  # input bytes a client may send ahead of the credit it was given
OUTPUT_WINDOW: Final = (
    262144  # output bytes a daemon may send ahead of CREDIT_OUTPUT (exec only, both outputs)
)
UPGRADE: Final = "devbox"  # the protocol named in Upgrade


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


WINDOW_SIZE: Final = struct.Struct(">HH")
CREDIT: Final = struct.Struct(">I")


class Failure(msgspec.Struct, omit_defaults=True):
    """What went wrong, for programs (``code``) and for people (``message``, ``hint``)."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False
    exit_status: int = 1


class Account(msgspec.Struct, omit_defaults=True):
    """Which AWS settings to use; None means the daemon's own (environment, config, default)."""

    profile: str | None = None
    region: str | None = None


class Target(Account, omit_defaults=True):
    """A box, by name or instance id. An empty ``box`` means this machine where that makes sense."""

    box: str = ""


class AttachRequest(Target, omit_defaults=True):
    """Join or create the mux session of a box (or start a plain shell with ``raw``).

    ``rejoin`` is the ``key`` of an earlier ``StreamStatus``: the client lost the daemon, not its terminal.
    """

    session: str = "main"
    raw: bool = False
    command: str | None = None
    user: str | None = None
    columns: int = 80
    rows: int = 24
    term: str = "xterm-256color"
    colorterm: str | None = None
    locale: str | None = None
    mux: str | None = None  # zellij, tmux, none; None: what the box has
    forward_agent: bool = False
    ssh_auth_sock: str | None = None
    rejoin: str | None = None


class ExecRequest(Target, omit_defaults=True):
    """Run a command. Output is byte-exact; with ``tty`` both streams are one terminal."""

    argv: list[str] = []
    tty: bool = False
    stdin: bool = True  # False: the command reads end of file at once
    user: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    columns: int = 80
    rows: int = 24
    term: str = "xterm-256color"


class ProxyRequest(Target, omit_defaults=True):
    """A byte pipe to a port of the box (or of ``host`` as the box sees it).

    With ``fd_pass`` the daemon answers 101 and then passes one end of a socket pair (SCM_RIGHTS with one
    byte of data) for OpenSSH's ProxyUseFdpass. With ``ssh_user`` the user's key and the box's host key are
    put in place first.
    """

    port: int = 22
    host: str | None = None
    fd_pass: bool = False
    ssh_user: str | None = None
    wait: float = 120.0  # seconds to wait for a box that is not connected yet


class StreamStatus(msgspec.Struct, omit_defaults=True):
    """How a held session is doing. ``state``: starting, online, reconnecting, reopening, ending."""

    state: str
    text: str = ""
    since: str | None = None  # when it went off line
    retry_in: float | None = None  # seconds until the next try
    key: str | None = None  # to rejoin with after a restart of the daemon
    mux: str | None = None


class StreamExit(msgspec.Struct, omit_defaults=True):
    """The end of a stream. ``status`` is the remote command's own, None where there is none to know."""

    status: int | None = None
    reason: str = ""  # for people; empty for an ordinary end
    failure: Failure | None = None
    reattach: bool = False  # the session goes on without this terminal


class ForwardSpec(msgspec.Struct, omit_defaults=True):
    """One forward as asked for.

    Exactly one of ``port`` (with ``host``: as the box sees it), ``dynamic`` (SOCKS5) is set. The local
    end is ``bind``:``local_port`` (0 picks one; None: the same number as ``port``, or another where that
    is taken and ``strict`` is false) or the unix socket ``local_path``.
    """

    port: int | None = None
    host: str | None = None
    local_port: int | None = None
    local_path: str | None = None
    bind: str = "127.0.0.1"
    dynamic: bool = False
    strict: bool = True


class ForwardRequest(Target, omit_defaults=True):
    """Add and keep forwards: all of them or none. ``auto`` mirrors what listens on the box."""

    forwards: list[ForwardSpec] = []
    auto: bool = False
    ephemeral: bool = False  # True: gone with the connection that asked (``--foreground``)


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


class ForwardList(msgspec.Struct, omit_defaults=True):
    """Forwards, in order of their making."""

    forwards: list[Forward]
    version: int = API_VERSION


class Box(msgspec.Struct, omit_defaults=True):
    """A box as EC2 and Session Manager show it. ``connection``: connected, notconnected, unknown."""

    name: str
    id: str
    state: str = "unknown"  # running, stopped, pending, …; unknown without EC2 permissions
    connection: str = "unknown"
    type: str | None = None
    zone: str | None = None
    launched: str | None = None
    private_address: str | None = None
    profile: str | None = None
    region: str | None = None
    user: str | None = None
    sessions: int = 0
    forwards: int = 0
    tags: dict[str, str] = {}


class BoxList(msgspec.Struct, omit_defaults=True):
    """Boxes, by name. ``stale_since`` is set where AWS could not be asked and these come from memory."""

    boxes: list[Box]
    conditions: list[Condition] = []
    stale_since: str | None = None
    version: int = API_VERSION


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


class SessionList(msgspec.Struct, omit_defaults=True):
    """Sessions, oldest first."""

    sessions: list[Session]
    version: int = API_VERSION


class PingRequest(Target, omit_defaults=True):
    """Measure the way to a box and back."""

    count: int = 3
    timeout: float = 15.0


class Ping(msgspec.Struct, omit_defaults=True):
    """Round trips to the agent on the box and back, in seconds."""

    box: str
    round_trips: list[float]
    session_start: float | None = None  # seconds to open the session that was measured; None: it was open
    agent_version: str | None = None


class SshRequest(Target, omit_defaults=True):
    """Make ``ssh`` to a box work: user, key on the box, host key here."""

    user: str | None = None
    port: int = 22


class SshAccess(msgspec.Struct, omit_defaults=True):
    """What ``ssh`` needs. ``problems`` are things that could not be done, in sentences."""

    box: str
    user: str
    identity_file: str
    known_hosts_file: str
    config_file: str
    host_keys: int = 0
    host: str | None = None  # the name to give to ssh; None: the box's own
    problems: list[str] = []


class SshConfigRequest(msgspec.Struct, omit_defaults=True):
    """Write the generated ssh configuration and its one ``Include`` line."""

    command: str | None = None  # absolute path of devboxctl for ProxyCommand; None: what the daemon finds


class SshConfigResult(msgspec.Struct, omit_defaults=True):
    """The generated ssh configuration as it stands now. ``changed`` names files that were written."""

    config_file: str  # ours
    user_config: str  # the user's, with the Include line
    included: bool = False
    current: bool = False  # both files are what this version would write
    changed: list[str] = []
    problems: list[str] = []
    version: int = API_VERSION


class Condition(msgspec.Struct, omit_defaults=True):
    """Something a person should know or do, until it is no longer so."""

    code: str
    title: str
    text: str
    hint: str | None = None
    since: str | None = None
    severity: str = "warning"  # info, warning, error


class Status(msgspec.Struct, omit_defaults=True):
    """The daemon, in short."""

    daemon_version: str
    pid: int
    started: str
    socket: str
    sessions: int
    forwards: int
    attached: int
    conditions: list[Condition] = []
    activation: str = "spawned"  # systemd, spawned, foreground
    api_version: int = API_VERSION
    version: int = API_VERSION


class Event(msgspec.Struct, omit_defaults=True):
    """Something that happened. ``kind`` is dotted: session.resumed, forward.added, login.needed."""

    sequence: int
    time: str
    kind: str
    text: str
    box: str | None = None
    data: dict[str, Any] = {}


class Check(msgspec.Struct, omit_defaults=True):
    """One finding of the doctor. ``result``: ok, warning, failed, skipped."""

    name: str
    result: str
    text: str
    hint: str | None = None
    seconds: float | None = None


class Doctor(msgspec.Struct, omit_defaults=True):
    """All findings, in the order they were made."""

    checks: list[Check]
    version: int = API_VERSION


class Setting(msgspec.Struct, omit_defaults=True):
    """One configuration value and where it came from (flag, environment, file, default)."""

    name: str
    value: Any
    origin: str


class ConfigView(msgspec.Struct, omit_defaults=True):
    """The configuration in force. ``error`` is set while the files on disk are worse than this."""

    settings: list[Setting]
    files: list[str] = []
    error: Failure | None = None
    version: int = API_VERSION


class LoginRequest(Account, omit_defaults=True):
    """Renew the login of a profile."""

    use_browser: bool = True


class LoginStep(msgspec.Struct, omit_defaults=True):
    """Progress of a login. ``state``: open (visit ``url``, enter ``code``), waiting, done, failed."""

    state: str
    text: str = ""
    url: str | None = None
    code: str | None = None
    expires: str | None = None
    failure: Failure | None = None


class Stopping(msgspec.Struct, omit_defaults=True):
    """The daemon has begun to stop and closes the socket when it has."""

    pid: int
    version: int = API_VERSION

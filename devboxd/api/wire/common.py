"""What every part of the API uses: failures, accounts, conditions; and the daemon itself."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

API_VERSION: Final = 1
FOLDER_MAX: Final = 8192  # characters of a devbox.toml

# What a request may say. Zero bytes end texts early in every system call; other control characters have no
# business in a name, an address or a path. (A look-ahead, because both Python and JSON Schema know it.)
Line = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^(?![\s\S]*[\x00-\x1f\x7f])")]
Text = Annotated[str, msgspec.Meta(pattern=r"^(?![\s\S]*\x00)")]
# Of an environment: ``env`` on the box would take another name for an option, or for none.
Variable = Annotated[str, msgspec.Meta(max_length=4096, pattern=r"^[A-Za-z_](?![\s\S]*[\x00-\x1f\x7f=])")]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
LocalPort = Annotated[int, msgspec.Meta(ge=0, le=65535)]  # 0: any free one
Cells = Annotated[int, msgspec.Meta(ge=0, le=65535)]  # columns or rows
Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]


class Nothing(msgspec.Struct):
    """A request that has nothing to say."""


class Failure(msgspec.Struct, omit_defaults=True):
    """What went wrong, for programs (``code``) and for people (``message``, ``hint``)."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False
    exit_status: int = 1
    kind: str = (
        "failed"  # failed, usage, not-found, login, state, denied, unreachable, pending, policy, no-daemon
    )


class Account(msgspec.Struct, omit_defaults=True):
    """Which AWS settings to use; None means the daemon's own (environment, config, default)."""

    profile: Line | None = None
    region: Line | None = None


class Folder(msgspec.Struct):
    """The ``devbox.toml`` that holds where the client stands. It says little, and is not trusted."""

    path: Line
    text: Annotated[str, msgspec.Meta(max_length=FOLDER_MAX)]


class Target(Account, omit_defaults=True):
    """A box, by name or instance id. An empty ``box`` means this machine where that makes sense."""

    box: Line = ""
    folder: Folder | None = None


class Condition(msgspec.Struct, omit_defaults=True):
    """Something a person should know or do, until it is no longer so."""

    code: str
    title: str
    text: str
    hint: str | None = None
    since: str | None = None
    severity: str = "warning"  # info, warning, error


class Login(msgspec.Struct, omit_defaults=True):
    """A login that is in use. ``verdict``: fine, refused (it never worked, and nothing waits), expiring, needed."""

    method: str  # sso, keys, environment, process, web-identity, console, lent, machine, none
    name: str  # of the profile or the SSO session
    verdict: str
    ends: str | None = None  # None: never, or nobody knows
    renews: bool = False  # by itself
    problem: str | None = None
    hint: str | None = None  # what mends it


class Lane(msgspec.Struct, omit_defaults=True):
    """A session that carries part of a bridge. ``state``: opening, up, behind (others carry for it)."""

    session: str | None
    state: str
    round_trip: float | None = None  # seconds, once measured


class Bridge(msgspec.Struct, omit_defaults=True):
    """What carries connections to one user of a box, over any number of sessions; or why nothing does."""

    box: str
    user: str | None = None  # None: whoever a session is there
    lanes: list[Lane] = []
    streams: int = 0
    waiting: int = 0  # bytes that wait for more lanes, here and there
    rate_up: float = 0.0  # bytes a second over the last seconds, as they travel
    rate_down: float = 0.0
    packs: float | None = None  # bytes of streams per byte that travelled; None: too few yet
    without: str | None = None  # why connections go in sessions of their own


class GoesOn(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of what the daemon holds, what `daemon restart` does not cut."""

    connections: int = 0
    commands: int = 0
    shells: int = 0


class HandedOver(msgspec.Struct, omit_defaults=True):
    """What became of the clients that the daemon before left to this one."""

    kept: int = 0
    cut: int = 0
    why: str | None = None


class StopRequest(msgspec.Struct, omit_defaults=True):
    """``restart``: by systemd, which keeps what can be; it is ignored where another starts the daemon."""

    restart: bool = False


class Status(msgspec.Struct, omit_defaults=True):
    """The daemon, in short."""

    daemon_version: str
    pid: int
    started: str
    socket: str
    sessions: int
    forwards: int
    attached: int
    piped: int = 0  # connections of ssh and the like (proxy)
    # Of clients. None: of an older daemon, which does not count.
    commands: int | None = None  # exec, with and without a terminal
    shells: int | None = None  # plain ones, without a multiplexer
    kept: GoesOn = GoesOn()  # of these, what a restart does not cut
    handed_over: HandedOver | None = None  # None: there was no daemon before, or it left nothing
    conditions: list[Condition] = []
    activation: str = "spawned"  # systemd, spawned, foreground
    is_ending: bool = False
    logins: list[Login] = []
    bridges: list[Bridge] = []
    api_version: int = API_VERSION
    version: int = API_VERSION


class PageLink(msgspec.Struct, omit_defaults=True):
    """A link to the page: it works once, within ``seconds``. It is a secret."""

    url: str
    seconds: float = 120.0
    version: int = API_VERSION


class Notice(msgspec.Struct, omit_defaults=True):
    """What came of a notice on one way. ``problem``: why it did not arrive, as far as can be told."""

    way: str  # desktop, command, ntfy, slack, sns
    problem: str | None = None
    hint: str | None = None


class Notices(msgspec.Struct, omit_defaults=True):
    """One of each way that is set up."""

    notices: list[Notice] = []
    version: int = API_VERSION


class NoticeSecret(msgspec.Struct, omit_defaults=True):
    """What a way of notices keeps secret, for the keyring. ``value``: None forgets it."""

    way: Line = ""
    value: Text | None = None

    def __repr__(self) -> str:
        """Nothing that a log might keep."""
        return f"NoticeSecret(way={self.way!r})"


class Kept(msgspec.Struct, omit_defaults=True):
    """It is so."""

    version: int = API_VERSION


class EventsRequest(msgspec.Struct, omit_defaults=True):
    """Which events: those after the sequence number ``since``; with ``follow`` also those to come."""

    follow: bool = False
    since: int = 0


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


class ConfigRequest(msgspec.Struct, omit_defaults=True):
    """Which configuration: the one in force, or that of a folder."""

    folder: Folder | None = None


class ConfigView(msgspec.Struct, omit_defaults=True):
    """The configuration in force. ``error`` is set while the files on disk are worse than this."""

    settings: list[Setting]
    files: list[str] = []
    error: Failure | None = None
    version: int = API_VERSION


class Identity(msgspec.Struct, omit_defaults=True):
    """Who we are for AWS."""

    account: str  # its number
    arn: str
    kind: str  # role, user, root, federated-user
    name: str  # of the role (or permission set), or of the user
    session: str = ""  # who uses the role
    profile: str = "default"
    region: str = ""
    method: str = "none"  # where the credentials come from: sso, keys, process, environment, machine, …
    source: str = ""  # the profile that holds them, or the SSO session
    expires: str | None = None  # the credentials; None: they do not
    login_ends: str | None = None  # the login that renews them
    login_renews: bool = False  # and that renews itself
    version: int = API_VERSION


class LoginRequest(Account, omit_defaults=True):
    """Renew the login of a profile. ``code``: of its MFA device, where it wants one."""

    code: Line | None = None


class LendRequest(Account, omit_defaults=True):
    """Credentials of a shell, for the daemon to use for a profile. It keeps them in memory only."""

    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str | None = None
    expires: str | None = None  # where the shell knows

    def __repr__(self) -> str:
        """Nothing that a log might keep."""
        return f"LendRequest(profile={self.profile!r}, region={self.region!r})"


class LoginStep(msgspec.Struct, omit_defaults=True):
    """Progress of a login. ``state``: open (visit ``url``, enter ``code``), code (ask again, with it), done, failed."""

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

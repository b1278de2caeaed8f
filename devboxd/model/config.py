"""The configuration: what may be set, to what, and which of several files wins. From dicts, not files.

A layer is one source (a file, the environment, the flags). ``merge`` checks each layer by itself, so
that an error can name its source, and lays them over each other, the later one on top.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Final, get_args, get_origin

import msgspec

from devboxd.errors import BadRequest
from devboxd.model import idle_policy
from devboxd.model.agent import Tell
from devboxd.model.box import Account, BoxRef
from devboxd.model.idle_policy import IdlePolicy, Then
from devboxd.model.names import is_document, is_name, is_user
from devboxd.model.notice import NTFY, TOPIC
from devboxd.model.stack import PREFIX, PREFIX_PATTERN
from devboxd.model.states import BridgeUse, KeepAlive, LogLevel, Mux, StoreEngine

BUILT_IN: Final = "default"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For every box that says nothing else. None leaves the choice to AWS settings or to the box."""

    profile: Text | None = None
    region: Text | None = None
    user: Text | None = None
    mux: Mux | None = None
    keep_alive: KeepAlive = KeepAlive.AUTO


class BoxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One box.

    ``target``: instance id or Name tag; None: the box's own name is its Name tag. ``document``: the session
    document of plain shells; None: the account's own.
    """

    target: Text | None = None
    profile: Text | None = None
    region: Text | None = None
    user: Text | None = None
    mux: Mux | None = None
    keep_alive: KeepAlive | None = None
    document: Text | None = None
    warm: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()


class ForwardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``wait``: seconds that a new connection waits for the box; ``max_sessions``: per box."""

    wait: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0
    max_sessions: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``heartbeat``: seconds of silence before a ping; ``frames_per_second``: most we send, 0 no limit.

    ``kms_accounts``: other accounts than a session's own whose keys it may be encrypted with.
    """

    heartbeat: Annotated[float, msgspec.Meta(ge=1, le=120)] = 10.0
    frames_per_second: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 900
    kms_accounts: tuple[Annotated[str, msgspec.Meta(pattern=r"^[0-9]{12}$")], ...] = ()


class BridgeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``use``: auto carries streams over many sessions where the box can; ``max_lanes``: sessions of one bridge."""

    use: BridgeUse = BridgeUse.AUTO
    max_lanes: Annotated[int, msgspec.Meta(ge=1, le=16)] = 8


class ProjectSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For a project that is launched for the first time. ``disk``: GiB; ``warm_for``: seconds; None: built in.

    ``prefix``: what the names of the account's set-up begin with; ``key``: KMS key of its disks; ``tags``: on
    everything that is made of it.
    """

    prefix: Annotated[str, msgspec.Meta(pattern=PREFIX_PATTERN)] = PREFIX
    type: Text | None = None
    disk: Annotated[int, msgspec.Meta(ge=1, le=65536)] | None = None
    base: Text | None = None
    zone: Text | None = None
    instance_profile: Text | None = None
    subnets: tuple[Text, ...] = ()
    security_groups: tuple[Text, ...] = ()
    key: Text | None = None
    user_data: Annotated[str, msgspec.Meta(min_length=1, max_length=16384)] | None = None
    tags: dict[str, Annotated[str, msgspec.Meta(max_length=256)]] = {}
    warm_for: Annotated[float, msgspec.Meta(ge=0, le=366 * 86400)] | None = None
    verify: bool = False  # boot each generation once before its box is released


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where projects are written down. ``table``, ``profile`` and ``region`` are those of the DynamoDB table.

    Without a name it is the table of the account's set-up: ``Config.table``.
    """

    engine: StoreEngine = StoreEngine.SQLITE
    table: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{3,255}$")] | None = None
    profile: Text | None = None
    region: Text | None = None

    @property
    def account(self) -> Account:
        """Where the table is."""
        return Account(self.profile, self.region)


class IdleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For every project that has nothing of its own. Time spans as ``30m``; windows as ``22:00-07:00 Europe/Berlin``."""

    after: Text = "30m"
    warn: Text = "10m"
    then: Then = Then.WARM
    never: tuple[Text, ...] = ()
    max_run: Text | None = None
    hours: Text | None = None
    deadman: Text = "1d"
    lid: Text | None = None
    delete: Text | None = None

    def policy(self) -> IdlePolicy:
        """The same, read. Raises BadRequest for what can not be together."""
        return idle_policy.checked(
            IdlePolicy(
                after=idle_policy.duration(self.after),
                warn=idle_policy.duration(self.warn),
                then=self.then,
                never=self.never,
                max_run=idle_policy.duration(self.max_run) if self.max_run is not None else None,
                hours=self.hours,
                deadman=idle_policy.duration(self.deadman),
                lid=idle_policy.duration(self.lid) if self.lid is not None else None,
                delete=idle_policy.duration(self.delete) if self.delete is not None else None,
            )
        )


class CostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``calibrate``: Cost Explorer is asked what AWS has billed, once a day at most; each time costs 0.01 USD."""

    calibrate: bool = False


class NotifySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is told besides the desktop. What is secret of it lies in the keyring (``devboxctl notify set``).

    ``command``: a program and its arguments; title and text come behind them. ``slack``: an incoming webhook.
    ``agents``: which changes of coding agents are told.
    """

    command: tuple[Text, ...] = ()
    ntfy: Annotated[str, msgspec.Meta(pattern=NTFY, max_length=256)] | None = None
    slack: bool = False
    sns: Annotated[str, msgspec.Meta(pattern=TOPIC)] | None = None
    sns_profile: Text | None = None
    agents: Tell = Tell.ALL


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes to the log."""

    level: LogLevel = LogLevel.INFO


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    defaults: Defaults = Defaults()
    boxes: dict[str, BoxSettings] = {}
    forward: ForwardSettings = ForwardSettings()
    link: LinkSettings = LinkSettings()
    bridge: BridgeSettings = BridgeSettings()
    projects: ProjectSettings = ProjectSettings()
    store: StoreSettings = StoreSettings()
    idle: IdleSettings = IdleSettings()
    cost: CostSettings = CostSettings()
    notify: NotifySettings = NotifySettings()
    log: LogSettings = LogSettings()

    @property
    def table(self) -> str:
        """The DynamoDB table of the projects: the one that is named, else the one of the account's set-up."""
        return self.store.table or self.projects.prefix

    def account_of(self, asked: Account, box: str | None = None) -> Account:
        """Which AWS settings to use: what was asked for, then what the box says, then the default."""
        of_box = self.boxes.get(box or "", BoxSettings())
        profile = asked.profile or of_box.profile or self.defaults.profile
        region = asked.region or of_box.region
        # A default region belongs to the default profile: another profile has its own.
        if region is None and profile == self.defaults.profile:
            region = self.defaults.region
        return Account(profile, region)

    def box_ref(self, name: str, target: str, account: Account) -> BoxRef:
        """The box of this name, once it is known which instance that is."""
        of_box = self.boxes.get(name, BoxSettings())
        return BoxRef(
            name,
            target,
            account,
            of_box.user or self.defaults.user,
            of_box.mux or self.defaults.mux,
            of_box.keep_alive,
            of_box.document,
        )

    def keep_alive_of(self, box: BoxRef) -> KeepAlive:
        """Whether quiet sessions of a box are kept from their idle time-out."""
        return box.keep_alive or self.defaults.keep_alive


class Layer(msgspec.Struct, frozen=True):
    """One source: ``origin`` is a path, ``environment`` or ``flag``."""

    origin: str
    data: Mapping[str, Any]


class Setting(msgspec.Struct, frozen=True):
    """One value in force and where it came from."""

    name: str
    value: Any
    origin: str


class Merged(msgspec.Struct, frozen=True):
    """The configuration in force. ``origins`` is by dotted name; what is missing there is built in."""

    config: Config
    origins: dict[str, str]

    def settings(self) -> list[Setting]:
        """Every setting, built-in ones too, by name; unset ones have the value None."""
        values = dict(leaves(msgspec.to_builtins(self.config)))
        return [Setting(name, values[name], self.origins.get(name, BUILT_IN)) for name in sorted(values)]


class ConfigInvalid(BadRequest):
    """A configuration source has something in it that can not be. ``problems`` lists all, in sentences."""

    code = "config-invalid"

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more, hint=hint)
        self.problems = tuple(problems)


def merge(layers: Sequence[Layer]) -> Merged:
    """Check the layers and lay them over each other, the last one on top.

    Raises: ConfigInvalid, naming source, key and what was expected.
    """
    problems = [
        f"{layer.origin}: {problem}" for layer in layers for problem in problems_of(layer.data, Config)
    ]
    if problems:
        raise ConfigInvalid(problems, hint="the settings are listed by: devboxctl config show")
    data: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _lay_over(data, layer.data)
        origins.update((name, layer.origin) for name, _ in leaves(layer.data))
    config = msgspec.convert(data, Config)
    try:
        config.idle.policy()
    except BadRequest as error:
        raise ConfigInvalid([error.message], hint=error.hint) from error
    return Merged(config, origins)


def environment_layer(environment: Mapping[str, str]) -> Layer:
    """The settings that DEVBOX_* variables make."""
    data: dict[str, Any] = {}
    for variable, (section, name) in VARIABLES.items():
        if value := environment.get(variable):
            data.setdefault(section, {})[name] = value
    return Layer("environment", data)


VARIABLES: Final = {
    "DEVBOX_PROFILE": ("defaults", "profile"),
    "DEVBOX_REGION": ("defaults", "region"),
    "DEVBOX_USER": ("defaults", "user"),
    "DEVBOX_MUX": ("defaults", "mux"),
    "DEVBOX_KEEP_ALIVE": ("defaults", "keep_alive"),
    "DEVBOX_BRIDGE": ("bridge", "use"),
    "DEVBOX_LOG": ("log", "level"),
}


def problems_of(data: Mapping[str, Any], kind: type[msgspec.Struct]) -> Iterator[str]:
    """What is wrong with one source, each in a sentence."""
    return _wrong("", data, kind)


def _wrong(where: str, value: Any, kind: Any) -> Iterator[str]:
    """What is wrong with a value of this type, and with each value in it: one bad value hides no other.

    Args:
        where: its dotted name; empty for the whole layer.
    """
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _wrong_table(where, value, kind)
    elif get_origin(kind) is dict and isinstance(value, Mapping):
        for name, settings in value.items():
            if where == "boxes" and not is_name(name):
                yield f"{name!r} can not be the name of a box"
            yield from _wrong(f"{where}.{name}", settings, get_args(kind)[1])
    elif get_origin(kind) is tuple and isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield from _wrong(f"{where}, number {number}", item, get_args(kind)[0])
    else:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            kinds = [one for one in (kind, *get_args(kind)) if isinstance(one, type)]
            choices = next((one for one in kinds if issubclass(one, StrEnum)), ())
            expected = f"; one of: {', '.join(choices)}" if choices else ""
            yield f"{where}: {str(error).replace('`', '')}{expected}"


def _wrong_table(where: str, value: Any, kind: type[msgspec.Struct]) -> Iterator[str]:
    """What is wrong with a table of settings."""
    if not isinstance(value, Mapping):
        yield f"{where}: Expected a table, got {type(value).__name__}"
        return
    known = {field.name: field.type for field in msgspec.structs.fields(kind)}
    prefix = f"{where}." if where else ""
    for name, setting in value.items():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            meant = f"; did you mean {prefix}{close[0]}?" if close else f"; known are {', '.join(known)}"
            yield f"there is no setting {prefix}{name}{meant}"
        elif (rule := _RULES.get(name)) is not None and isinstance(setting, str):
            if not rule[0](setting):
                yield f"{prefix}{name}: {setting!r} {rule[1]}"
        elif name == "never" and isinstance(setting, list):
            yield from (
                f"{prefix}{name}: {one!r} {_WINDOW}"
                for one in setting
                if not (isinstance(one, str) and _is(idle_policy.window, one))
            )
        else:
            yield from _wrong(f"{prefix}{name}", setting, known[name])


def _is(read: Callable[[str], object], text: str) -> bool:
    """Whether a text can be read."""
    try:
        read(text)
    except BadRequest:
        return False
    return True


def _is_span(text: str) -> bool:
    return _is(idle_policy.duration, text)


_SPAN: Final = "is no time span: write it as 45m, 1h30m or 2d"
_WINDOW: Final = "is no time of the week: write it as mon-fri 22:00-07:00 Europe/Berlin"

# Texts that are more than a text: whether one will do, and what to say of one that will not.
_RULES: Final[dict[str, tuple[Callable[[str], bool], str]]] = {
    "user": (is_user, "cannot be a user's name"),
    "box": (is_name, "cannot be a box"),
    "target": (is_name, "is neither an instance id nor a name"),
    "after": (_is_span, _SPAN),
    "warn": (_is_span, _SPAN),
    "max_run": (_is_span, _SPAN),
    "deadman": (_is_span, _SPAN),
    "lid": (_is_span, _SPAN),
    "delete": (_is_span, _SPAN),
    "hours": (lambda text: _is(idle_policy.window, text), _WINDOW),
    "document": (is_document, "is neither the name nor the ARN of a session document"),
}


def _lay_over(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping):
            _lay_over(under.setdefault(name, {}), value)
        else:
            under[name] = value


def leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested tables, by dotted name."""
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

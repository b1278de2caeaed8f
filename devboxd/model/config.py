"""The configuration: what may be set, to what, and which of several files wins. From dicts, not files.

A layer is one source (a file, the environment, the flags). ``merge`` checks each layer by itself, so
that an error can name its source, and lays them over each other, the later one on top.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from devboxd.errors import BadRequest
from devboxd.model.box import Account, BoxRef
from devboxd.model.names import USER_PATTERN, is_name
from devboxd.model.states import KeepAlive, LogLevel, Mux

BUILT_IN: Final = "default"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
User = Annotated[str, msgspec.Meta(pattern=USER_PATTERN)]


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For every box that says nothing else. None leaves the choice to AWS settings or to the box."""

    profile: Text | None = None
    region: Text | None = None
    user: User | None = None
    mux: Mux | None = None
    keep_alive: KeepAlive = KeepAlive.AUTO


class BoxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One box. ``target``: instance id or Name tag; None: the box's own name is its Name tag."""

    target: Text | None = None
    profile: Text | None = None
    region: Text | None = None
    user: User | None = None
    mux: Mux | None = None
    keep_alive: KeepAlive | None = None
    warm: tuple[Annotated[int, msgspec.Meta(ge=1, le=65535)], ...] = ()


class ForwardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``wait``: seconds that a new connection waits for the box; ``max_sessions``: per box."""

    wait: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 30.0
    max_sessions: Annotated[int, msgspec.Meta(ge=1, le=16)] = 4


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``heartbeat``: seconds of silence before a ping; ``frames_per_second``: most we send, 0 no limit."""

    heartbeat: Annotated[float, msgspec.Meta(ge=1, le=120)] = 10.0
    frames_per_second: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 900


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes to the log."""

    level: LogLevel = LogLevel.INFO


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    defaults: Defaults = Defaults()
    boxes: dict[str, BoxSettings] = {}
    forward: ForwardSettings = ForwardSettings()
    link: LinkSettings = LinkSettings()
    log: LogSettings = LogSettings()

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
        values = dict(_leaves(msgspec.to_builtins(self.config)))
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
    problems = [problem for layer in layers for problem in _problems(layer)]
    if problems:
        raise ConfigInvalid(problems, hint="the settings are listed by: devboxctl config show")
    data: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        _lay_over(data, layer.data)
        origins.update((name, layer.origin) for name, _ in _leaves(layer.data))
    return Merged(msgspec.convert(data, Config), origins)


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
    "DEVBOX_LOG": ("log", "level"),
}

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "mux": tuple(Mux),
    "keep_alive": tuple(KeepAlive),
    "level": tuple(LogLevel),
}
_PLACE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<where>[^`]*)`)?\Z", re.DOTALL)


def _problems(layer: Layer) -> Iterator[str]:
    """What is wrong with one layer, each in a sentence that begins with its origin."""
    unknown = list(_unknown_keys(layer.data, Config, ""))
    yield from (f"{layer.origin}: {problem}" for problem in unknown)
    boxes = layer.data.get("boxes")
    for name, box in boxes.items() if isinstance(boxes, Mapping) else ():
        if not is_name(name):
            yield f"{layer.origin}: {name!r} can not be the name of a box"
        target = box.get("target") if isinstance(box, Mapping) else None
        if isinstance(target, str) and not is_name(target):
            yield f"{layer.origin}: boxes.{name}.target is neither an instance id nor a name"
    if unknown:
        return  # the converter would stop at the first of them
    for name, part in _parts(layer.data):
        try:
            msgspec.convert(part, Config)
        except msgspec.ValidationError as error:
            match = _PLACE.fullmatch(str(error))
            assert match is not None
            # The converter does not name the keys of a table of tables.
            where = (match["where"] or name).replace("[...]", "." + name.partition(".")[2])
            choices = _CHOICES.get(where.rpartition(".")[2], ())
            expected = f"; one of: {', '.join(choices)}" if choices else ""
            yield f"{layer.origin}: {where}: {match['what'].replace('`', '')}{expected}"


def _parts(data: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Value by value (box by box), so that one bad value does not hide the next."""
    for section, values in data.items():
        if isinstance(values, Mapping) and values:
            for name, value in values.items():
                yield f"{section}.{name}", {section: {name: value}}
        else:
            yield section, {section: values}


def _unknown_keys(data: Any, kind: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    known = kind.__struct_fields__
    for name, value in data.items() if isinstance(data, Mapping) else ():
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            meant = f"; did you mean {prefix}{close[0]}?" if close else f"; known are {', '.join(known)}"
            yield f"there is no setting {prefix}{name}{meant}"
        elif prefix == "" and name == "boxes":
            for box, settings in value.items() if isinstance(value, Mapping) else ():
                yield from _unknown_keys(settings, BoxSettings, f"boxes.{box}.")
        elif prefix == "":
            yield from _unknown_keys(value, _SECTIONS[name], f"{name}.")


_SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "defaults": Defaults,
    "forward": ForwardSettings,
    "link": LinkSettings,
    "log": LogSettings,
}


def _lay_over(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, value in over.items():
        if isinstance(value, Mapping):
            _lay_over(under.setdefault(name, {}), value)
        else:
            under[name] = value


def _leaves(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

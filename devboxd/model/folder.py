"""devbox.toml: what a folder says of itself, for commands that run in it or below.

Such a file may come with a repository that somebody else wrote, so it is not trusted. It may make things
convenient and nothing else: name a box, ports to forward to this machine alone, and who and what a terminal
is there. It chooses no account, credentials, region or instance, runs nothing here, and neither spends money
nor weakens anything. What the user says of a box in config.toml stands above it.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Any, Final

import msgspec

from devboxd.model.config import Config, ConfigInvalid, Merged, Text, leaves, problems_of
from devboxd.model.states import Mux

ABOVE: Final = frozenset({"environment", "flag"})  # origins that stand above a devbox.toml

# PORT or LOCAL:PORT: a port of the box itself, on 127.0.0.1. Another host or address is not this file's to name.
Ports = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,5}(:[0-9]{1,5})?(?![\s\S])")]


class FolderDefaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As in ``config.Defaults``."""

    user: Text | None = None
    mux: Mux | None = None


class Folder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``box``: for commands that name none; ``forwards``: for ``devboxctl forward add`` without a port."""

    box: Text | None = None
    forwards: tuple[Ports, ...] = ()
    defaults: FolderDefaults = FolderDefaults()


class InFolder(msgspec.Struct, frozen=True):
    """The configuration in force where a client stands. ``origins`` has what its file says, too."""

    folder: Folder
    merged: Merged


def in_folder(merged: Merged, path: str, text: str) -> InFolder:
    """Lay a devbox.toml between the files and the environment.

    Raises:
        ConfigInvalid: naming file, key and what was expected.
    """
    data = _parsed(path, text)
    problems = [*_not_for_it(data), *problems_of(data, Folder)]
    if problems:
        hint = f"mend {path}, or leave it out of account: DEVBOX_TOML= devboxctl …"
        raise ConfigInvalid([f"{path}: {problem}" for problem in problems], hint=hint)
    folder = msgspec.convert(data, Folder)
    said = {
        name: value
        for name, value in leaves({"defaults": data.get("defaults", {})})
        if merged.origins.get(name) not in ABOVE
    }
    under: dict[str, Any] = msgspec.to_builtins(merged.config)
    under["defaults"] |= {name.removeprefix("defaults."): value for name, value in said.items()}
    own = dict.fromkeys((name for name in ("box", "forwards") if name in data), path)
    origins = merged.origins | own | dict.fromkeys(said, path)
    return InFolder(folder, Merged(msgspec.convert(under, Config), origins))


def _parsed(path: str, text: str) -> dict[str, Any]:
    try:
        data = tomllib.loads(text.removeprefix("\ufeff"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigInvalid([f"{path}: is not TOML: {error}"]) from error
    # A port may be written as the number it is.
    if isinstance(listed := data.get("forwards"), list):
        data["forwards"] = [str(one) if type(one) is int else one for one in listed]
    return data


def _not_for_it(data: dict[str, Any]) -> list[str]:
    """Settings that there are, but not for this file. Takes them out of ``data``."""
    mine = {"defaults": FolderDefaults.__struct_fields__}
    found = []
    for section in list(data):
        if section in Config.__struct_fields__ and section not in mine:
            found.append(f"{section} is not for a devbox.toml{_WHY}")
            del data[section]
    defaults = data.get("defaults")
    if not isinstance(defaults, dict):
        return found
    for name in list(defaults):
        if name in Config().defaults.__struct_fields__ and name not in mine["defaults"]:
            found.append(f"defaults.{name} is not for a devbox.toml{_WHY}")
            del defaults[name]
    return found


_WHY: Final = ": it may have come with a repository of somebody else's; set it in config.toml"

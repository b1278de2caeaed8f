"""The disk of a simulated box: a directory with what a shell needs, and guards around this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from devboxd.simulator.agent.ports import make_python

# A simulated box runs as the user of this machine. What would reach beyond the box is answered here instead.
_SHIMS: Final = ("sudo", "loginctl", "systemctl", "shutdown", "poweroff", "halt", "reboot", "telinit")
_SHIM: Final = """\
#!/bin/sh
echo "${0##*/}: not on a simulated box: it would reach the machine that plays it" >&2
exit 1
"""

_PROFILE: Final = """\
# A simulated box: a directory of this machine, and its shells are real.
PATH={shims}:$PATH
PS1='[{name}] \\w\\$ '
export PATH PS1
if [ -n "$BASH_VERSION" ]; then . "$HOME/.bashrc"
else case "$-" in *i*) [ -z "$ZSH_VERSION" ] && [ -r "$HOME/.motd" ] && cat "$HOME/.motd" ;; esac; fi
:
"""
_BASHRC: Final = """\
case "$-" in *i*) ;; *) return ;; esac
PS1='[{name}] \\w\\$ '
HISTFILE=$HOME/.bash_history
[ ! -r "$HOME/.motd" ] || cat "$HOME/.motd"
"""
_ZSHRC: Final = """\
PS1='[{name}] %~%# '
[ ! -r "$HOME/.motd" ] || cat "$HOME/.motd"
"""
_FISH: Final = "status is-interactive; and test -r $HOME/.motd; and cat $HOME/.motd\n"
_TMUX: Final = "set -g default-command ''\nset -g status-right ' simulated box {name} '\n"
# With a configuration of its own it asks no questions at its first start, which would swallow keys.
_ZELLIJ: Final = "show_startup_tips false\nshow_release_notes false\n"
_PASSWD: Final = "root:x:{ids}:who plays {name}:/:/bin/sh\n"  # the home of its one user is the whole disk
_VOLATILE: Final = frozenset({".run", ".tmp"})
_README: Final = """\
This is the disk of the simulated box {name}.
Its shells and commands are real ones of your own machine, running as you, below this folder.
"""


def make_shims(root: Path) -> Path:
    """Write the guards once for all boxes; returns their folder."""
    folder = root / "bin"
    folder.mkdir(exist_ok=True)
    for name in _SHIMS:
        file = folder / name
        file.write_text(_SHIM, encoding="utf-8")
        file.chmod(0o755)
    make_python(root)
    return folder


def make_disk(root: Path, box_id: str, name: str, shims: Path) -> Path:
    """Create the disk of a box; one that is there already is kept as it is."""
    disk = root / box_id
    disk.mkdir(mode=0o700, exist_ok=True)
    for folder in (".run", ".tmp", "work"):
        (disk / folder).mkdir(mode=0o700, exist_ok=True)
    texts = {
        "README": _README,
        ".profile": _PROFILE,
        ".zprofile": _PROFILE,
        ".bashrc": _BASHRC,
        ".zshrc": _ZSHRC,
        ".config/fish/config.fish": _FISH,
        ".tmux.conf": _TMUX,
        ".config/zellij/config.kdl": _ZELLIJ,
        "etc/passwd": _PASSWD.replace("{ids}", f"{os.getuid()}:{os.getgid()}"),
    }
    for file_name, text in texts.items():
        file = disk / file_name
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(text.format(name=name, shims=shims), encoding="utf-8")
    return disk


def environment(disk: Path, shims: Path, path: str) -> dict[str, str]:
    """What a simulated box needs beyond the real agent's environment, to keep away from this machine's own.

    Without the two folders of the multiplexers an attach would join the user's real tmux or zellij.
    """
    return {
        "PATH": f"{shims}:{path}",
        "TMUX_TMPDIR": str(disk / ".run"),
        "ZELLIJ_SOCKET_DIR": str(disk / ".run"),
        "TMPDIR": str(disk / ".tmp"),
        "XDG_CONFIG_HOME": str(disk / ".config"),
        "XDG_CACHE_HOME": str(disk / ".cache"),
        "XDG_DATA_HOME": str(disk / ".local"),
        "DEVBOX_KEEP_HOME": "1",
        "DEVBOX_BOX_ROOT": str(disk),
        "ZDOTDIR": str(disk),
    }


def copy(source: Path, target: Path) -> None:
    """Copy a medium as it is now. What lives only while a box is up (sockets, temporary files) is left out.

    The box may be running: what it deletes meanwhile is left out, and what its own modes forbid to read is
    read all the same, as EBS would.
    """
    _copy_folder(source, target, left_out=_VOLATILE)


def _copy_folder(source: Path, target: Path, left_out: frozenset[str] = frozenset()) -> None:
    target.mkdir(mode=0o700)
    with _permitted(source, 0o500):
        for entry in os.scandir(source):
            if entry.name in left_out:
                continue
            with contextlib.suppress(FileNotFoundError):
                _copy_one(Path(entry.path), target / entry.name)
    shutil.copystat(source, target)


def _copy_one(source: Path, target: Path) -> None:
    mode = source.lstat().st_mode
    if stat.S_ISDIR(mode):
        _copy_folder(source, target)
    elif stat.S_ISLNK(mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISREG(mode):
        with _permitted(source, 0o400):
            shutil.copyfile(source, target)
        shutil.copystat(source, target)


@contextlib.contextmanager
def _permitted(path: Path, wanted: int) -> Iterator[None]:
    """Meanwhile its owner may do this with it."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & wanted == wanted:
        yield
        return
    path.chmod(mode | wanted)
    try:
        yield
    finally:
        path.chmod(mode)


def remove(medium: Path) -> None:
    """Destroy a medium, whatever modes a box gave its files (Go's module cache is read-only); none is fine."""
    if medium.is_dir():
        _open_up(medium)
        shutil.rmtree(medium, ignore_errors=True)


def _open_up(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                _open_up(Path(entry.path))


def mount(root: Path, volumes: Mapping[str, Path]) -> None:
    """Show other volumes below ``mnt`` of a root volume, each under its name, and no earlier ones."""
    folder = root / "mnt"
    folder.mkdir(exist_ok=True)
    for link in folder.iterdir():
        if link.is_symlink():
            link.unlink()
    for name, volume in volumes.items():
        (folder / name).symlink_to(volume, target_is_directory=True)

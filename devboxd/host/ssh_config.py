"""What OpenSSH reads: the generated include file, its one ``Include`` line, pinned host keys, our key.

``~/.ssh/config`` belongs to the user. We put one line at its top (an ``Include`` below a ``Host`` line
would hold for that host only), keep every other byte, follow a symbolic link to the file behind it, and
take exactly that line out again.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from devboxd.errors import BadRequest, Denied, DevboxError
from devboxd.host.files import not_saved, read_file, replace_file, replace_if_changed
from devboxd.model.names import HOST_SUFFIX, host_key, is_host_name, is_pinnable, is_user, known_host

HEADER: Final = "# Written by devbox (devboxctl config-ssh). Changes made here are lost.\n"
MODE: Final = 0o600
SIZE_MAX: Final = 16 << 20  # bytes of a file of ssh

_SECTION: Final = re.compile(rb"^[ \t]*(?:host|match)(?:[ \t=]|$)", re.IGNORECASE)
_INCLUDE: Final = re.compile(rb"^[ \t]*include[ \t=]+(.*?)[ \t\r]*$", re.IGNORECASE)
_COMMAND: Final = re.compile(r"^[ ]*ProxyCommand (.+) proxy --fdpass ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SshEntry:
    """A box with settings of its own. ``user`` is the login name there."""

    name: str
    user: str | None = None


def render(devboxctl: Path, entries: Sequence[SshEntry], *, identity: Path, known_hosts: Path) -> str:
    """The include file: the same input gives the same text.

    Raises: BadRequest when a path can not be written in an ssh_config.
    """
    # A name or user that does not look like one would be a line of its own in this file.
    usable = [
        entry
        for entry in sorted(entries, key=lambda one: one.name)
        if entry.user and is_user(entry.user) and is_host_name(entry.name)
    ]
    # ssh puts the user's name between the quotes of '%r' below, and OpenSSH before 10.1 takes any from its
    # command line. The first ProxyCommand that matches holds, so this stands above all else.
    refused = f"""Match originalhost "*{HOST_SUFFIX}" user "*'*"
    ProxyCommand false
    ProxyUseFdpass no
"""
    parts = [HEADER, refused, *(f"Host {one.name}{HOST_SUFFIX}\n    User {one.user}\n" for one in usable)]
    parts.append(
        # ssh hands %n and %r to a shell. They stand in single quotes, and a host name that holds one
        # (git takes host names from strangers' .gitmodules) does not match. %h is for clients that know no
        # %n (paramiko) and leave it as it is; with ssh it may be in lower case, or a HostName.
        f"""Host "*{HOST_SUFFIX}" "!*'*"
    ProxyCommand {_word(devboxctl)} proxy --fdpass --ssh-user '%r' --ssh-host '%h' '%n' %p
    ProxyUseFdpass yes
    Compression yes
    IdentityFile {_expanded(identity)}
    IdentitiesOnly no
    UserKnownHostsFile {_expanded(known_hosts)}
    StrictHostKeyChecking yes
    UpdateHostKeys no
    CheckHostIP no
"""
    )
    return "\n".join(parts)


def command_in(text: str) -> Path | None:
    """The devboxctl that an include file of ours runs; None where that cannot be read from it."""
    if (match := _COMMAND.search(text)) is None:
        return None
    try:
        words = shlex.split(match[1].replace("%%", "%"))
    except ValueError:
        return None
    return Path(words[0]) if len(words) == 1 else None


@dataclass(frozen=True, slots=True)
class SshConfigState:
    """What is on disk. ``current``: both files are what this version would write."""

    included: bool
    current: bool
    changed: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class SshFiles:
    """The generated file and the user's own. Blocking and short."""

    include: Path
    user_config: Path

    def check(self, text: str) -> SshConfigState:
        """Look; change nothing. Raises Denied when the user's file can not be read."""
        included = _find_include(self._read_user_config(), self.include) is not None
        try:
            same = read_file(self.include, SIZE_MAX) == text.encode()
        except OSError:
            same = False
        return SshConfigState(included=included, current=included and same)

    def command(self) -> Path | None:
        """The devboxctl that the generated file runs now, where it is there."""
        try:
            return command_in(read_file(self.include, SIZE_MAX).decode("utf-8"))
        except (OSError, UnicodeDecodeError):
            return None

    def write_include(self, text: str) -> bool:
        """Write the generated file and nothing of the user's. Says whether it changed. Raises Denied."""
        try:
            self.include.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return replace_if_changed(self.include, text.encode(), mode=MODE)
        except OSError as error:
            raise _denied(error, self.include) from error

    def write(self, text: str) -> SshConfigState:
        """Write the generated file, and the ``Include`` line where it is missing. Raises Denied."""
        changed = []
        try:
            if self.write_include(text):
                changed.append(self.include)
            before = self._read_user_config()
            if _find_include(before, self.include) is None:
                self.user_config.parent.mkdir(mode=0o700, exist_ok=True)
                line = f"Include {_quoted(self.include)}\n".encode()
                replace_file(self.user_config, line + before, mode=self._user_mode())
                changed.append(self.user_config)
        except OSError as error:
            raise _denied(error, self.user_config) from error
        return SshConfigState(included=True, current=True, changed=tuple(changed))

    def remove(self) -> SshConfigState:
        """Take out what ``write`` put in, and nothing else. Raises Denied."""
        changed = []
        try:
            before = self._read_user_config()
            after = before
            while (found := _find_include(after, self.include)) is not None:
                after = after[: found[0]] + after[found[1] :]
            if after != before:
                if after or self.user_config.is_symlink():
                    replace_file(self.user_config, after, mode=self._user_mode())
                else:
                    self.user_config.unlink()  # it held our line only
                changed.append(self.user_config)
            if self.include.exists():
                self.include.unlink()
                changed.append(self.include)
        except OSError as error:
            raise _denied(error, self.user_config) from error
        return SshConfigState(included=False, current=False, changed=tuple(changed))

    def _read_user_config(self) -> bytes:
        try:
            return read_file(self.user_config, SIZE_MAX)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _denied(error, self.user_config) from error

    def _user_mode(self) -> int:
        try:
            return self.user_config.stat().st_mode & 0o777
        except FileNotFoundError:
            return MODE


def write_known_hosts(path: Path, keys: Mapping[str, Mapping[int, Sequence[str]]]) -> bool:
    """Write the pinned host keys: box → port → keys (``ssh-ed25519 AAAA…``). Says whether it changed.

    Names are ``BOX.devbox``, and ``[BOX.devbox]:PORT`` for other ports than 22, in lower case as ssh looks
    them up. Keys come from the box: what does not look like one is left out. Raises OSError.
    """
    lines = [HEADER]
    for box in sorted(filter(is_pinnable, keys)):  # ``*`` would be the key of every box
        for port in sorted(keys[box]):
            name = known_host(box, port)
            lines += [f"{name} {bare}\n" for key in keys[box][port] if (bare := host_key(key)) is not None]
    return replace_if_changed(path, "".join(lines).encode(), mode=MODE)


def ensure_identity(path: Path, comment: str = "devbox") -> str:
    """The public key of the user's devbox key (one OpenSSH line); makes the pair where it is missing.

    Raises: BadRequest when the file is there and is no usable key; OSError.
    """
    try:
        private = read_file(path, SIZE_MAX)
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        replace_file(path, private, mode=MODE)
    try:
        public = serialization.load_ssh_private_key(private, password=None).public_key()
        line = public.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        ).decode()
    except (ValueError, TypeError) as error:
        raise BadRequest(f"{path} is not a private key without passphrase", hint="move it away") from error
    if path.stat().st_mode & 0o077:
        path.chmod(MODE)  # ssh refuses a key that others can read
    text = f"{line} {comment}\n"
    replace_if_changed(path.with_name(f"{path.name}.pub"), text.encode(), mode=0o644)
    return text.rstrip("\n")


def _find_include(config: bytes, include: Path) -> tuple[int, int] | None:
    """Where our line stands (start and end with its line break), above the first Host or Match."""
    wanted = {os.fsencode(include), os.fsencode(_quoted(include))}
    start = 0
    for line in config.splitlines(keepends=True):
        if _SECTION.match(line):
            return None
        if (match := _INCLUDE.match(line.rstrip(b"\r\n"))) is not None and match[1] in wanted:
            return start, start + len(line)
        start += len(line)
    return None


def _quoted(path: Path) -> str:
    """A path as one ssh_config argument."""
    text = str(path)
    # Quotes can not be escaped, Include takes patterns, and some options replace ${NAME}.
    if not text.isprintable() or any(character in text for character in '"\\*?[$'):
        raise BadRequest(
            f"ssh can not be told the path {text!r}", hint="use a path without special characters"
        )
    return f'"{text}"'


def _expanded(path: Path) -> str:
    """The same, for options in which ssh replaces %x (Include is none of them)."""
    return _quoted(path).replace("%", "%%")


def _word(path: Path) -> str:
    """A path as one word for the shell, in a place where ssh replaces %x."""
    text = str(path)
    if not text.isprintable():
        raise BadRequest(f"ssh can not be told the path {text!r}")
    return shlex.quote(text).replace("%", "%%")


def _denied(error: OSError, path: Path) -> DevboxError:
    where = error.filename or path
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        return not_saved(error, path)
    return Denied(f"{where} can not be changed: {error.strerror}", hint="is it managed by another tool?")

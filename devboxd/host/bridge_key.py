"""The secret that all bridges of this user grow from: made once, 0600, never anywhere else."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devboxd.errors import Denied
from devboxd.host.files import not_saved, read_file, replace_file

SIZE: Final = 32  # bytes

log = logging.getLogger(__name__)


def bridge_secrets(path: Path) -> Callable[[str], bytes]:
    """A function from the name of a bridge to its secret: the same after a restart of the daemon.

    The key is read, or made, at the first call. On a disk that takes nothing it lives as long as the daemon: the
    next one starts bridges afresh. Raises Denied, with the path, for one that others can read.
    """
    known: list[bytes] = []

    def secret(name: str) -> bytes:
        if not known:
            known.append(_key(path))
        return hmac.new(known[0], name.encode(), hashlib.sha256).digest()

    return secret


def _key(path: Path) -> bytes:
    hint = f"remove it: rm {path}"

    def check(found: os.stat_result) -> None:
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise Denied(f"others may read {path}", hint=hint)

    try:
        key = read_file(path, SIZE, flags=os.O_NOFOLLOW, check=check)
    except FileNotFoundError:
        return _made(path)
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    if len(key) != SIZE:
        raise Denied(f"{path} is damaged", hint=hint)
    return key


def _made(path: Path) -> bytes:
    made = secrets.token_bytes(SIZE)
    try:
        replace_file(path, made)
    except OSError as error:  # the journal says it to the user
        log.warning("%s; bridges will not outlive this daemon", not_saved(error, path).message)
    return made

"""The secret that all bridges of this user grow from: made once, 0600, never anywhere else."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from devboxd.errors import Denied
from devboxd.host.files import replace_file, saving

SIZE: Final = 32  # bytes


def bridge_secrets(path: Path) -> Callable[[str], bytes]:
    """A function from the name of a bridge to its secret: the same after a restart of the daemon.

    The key is read, or made, at the first call. Raises StateNotSaved, or Denied, with the path.
    """
    known: list[bytes] = []

    def secret(name: str) -> bytes:
        if not known:
            known.append(_key(path))
        return hmac.new(known[0], name.encode(), hashlib.sha256).digest()

    return secret


def _key(path: Path) -> bytes:
    with saving(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            made = secrets.token_bytes(SIZE)
            replace_file(path, made)
            return made
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid() or found.st_mode & 0o077:
                raise Denied(f"others may read {path}", hint=f"remove it: rm {path}")
            key = file.read(SIZE + 1)
    if len(key) != SIZE:
        raise Denied(f"{path} is damaged", hint=f"remove it: rm {path}")
    return key

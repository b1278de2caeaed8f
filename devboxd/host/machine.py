"""This machine and its user, by name."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from typing import Final

NAME_MAX: Final = 60  # characters


def new_owner() -> str:
    """A mark for our sessions at AWS that no other machine or user makes.

    A user name or host name is no secret, but it need not be readable in every account's session list.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that no passwd entry names
        user = f"uid-{os.geteuid()}"
    return f"{user}@{socket.gethostname()}"[:NAME_MAX] + f"/{secrets.token_hex(4)}"

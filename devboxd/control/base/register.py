"""Which sessions run here, and which exist at AWS by our doing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from devboxd.control.connect.session import HeldSession


class Register:
    """The sessions of one life of the daemon. Plain values; every method is immediate."""

    def __init__(self) -> None:
        self.owner = ""  # this machine and user, in the Reason of its sessions
        self.run = secrets.token_hex(4)  # this life of the daemon, in the Reason of its sessions
        self.running: dict[HeldSession, None] = {}  # oldest first
        self.open_ids: dict[str, str] = {}  # at AWS, by our doing and not yet ended: id, box
        self.on_change: Callable[[], None] = lambda: None

    def started(self, session_id: str, box: str) -> None:
        """A session exists at AWS from now on."""
        self.open_ids[session_id] = box
        self.on_change()

    def over(self, session_id: str) -> None:
        """A session was ended, as far as we could."""
        if self.open_ids.pop(session_id, None) is not None:
            self.on_change()

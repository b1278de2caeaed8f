"""The session documents that devbox asks for, by name.

Source: the SSM documents that AWS owns, ``aws ssm list-documents --filters Key=DocumentType,Values=Session``.
"""

from __future__ import annotations

from typing import Final

SHELL: Final = "SSM-SessionManagerRunShell"  # the account's own preferences; used where none is named
INTERACTIVE: Final = "AWS-StartInteractiveCommand"
NON_INTERACTIVE: Final = "AWS-StartNonInteractiveCommand"
PORT: Final = "AWS-StartPortForwardingSession"
REMOTE_PORT: Final = "AWS-StartPortForwardingSessionToRemoteHost"
SSH: Final = "AWS-StartSSHSession"

"""Long-lived secrets, in the desktop's keyring. Imported and called when needed: it is slow to load."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from devboxd.errors import DevboxError, Unreachable

SERVICE: Final = "devbox"
PATIENCE: Final = 60.0  # seconds; the desktop may ask for the keyring's password

T = TypeVar("T")


class NoKeyring(DevboxError):
    """This machine has no keyring that could hold a secret."""

    code = "no-keyring"


async def get_secret(name: str) -> str | None:
    """The secret of that name; None where there is none. Raises NoKeyring, Unreachable."""

    def get() -> str | None:
        import keyring

        return keyring.get_password(SERVICE, name)

    return await _ask(get)


async def set_secret(name: str, value: str) -> None:
    """Keep a secret. Raises NoKeyring, Unreachable."""

    def put() -> None:
        import keyring

        keyring.set_password(SERVICE, name, value)

    await _ask(put)


async def delete_secret(name: str) -> None:
    """Forget a secret; one that is not there is no error. Raises NoKeyring, Unreachable."""

    def delete() -> None:
        import keyring
        from keyring.errors import PasswordDeleteError

        try:
            keyring.delete_password(SERVICE, name)
        except PasswordDeleteError:
            return

    await _ask(delete)


async def _ask(act: Callable[[], T]) -> T:
    try:
        async with asyncio.timeout(PATIENCE):
            return await asyncio.to_thread(_translated, act)
    except TimeoutError as error:
        raise Unreachable("the keyring did not answer", hint="is it waiting for its password?") from error


def _translated(act: Callable[[], T]) -> T:
    from keyring.errors import InitError, KeyringError, NoKeyringError

    try:
        return act()
    except (NoKeyringError, InitError) as error:
        raise NoKeyring(
            "there is no keyring to keep secrets in",
            hint="install and unlock one (GNOME Keyring, KWallet, macOS Keychain)",
        ) from error
    except KeyringError as error:
        # Its text is the backend's own; it does not hold the secret, but nothing is gained by showing it.
        raise NoKeyring(f"the keyring refused ({type(error).__name__})", hint="is it unlocked?") from error

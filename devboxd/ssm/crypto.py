"""Payload encryption with a KMS data key: AES-256-GCM, one key per direction.

On the wire: 12-byte nonce, ciphertext, 16-byte tag; no associated data. Source: ``docs/protocol.md``.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from devboxd.errors import DevboxError

DATA_KEY_SIZE: Final = 64  # bytes to ask KMS for
NONCE_SIZE: Final = 12
OVERHEAD: Final = NONCE_SIZE + 16


class CryptoError(DevboxError):
    """Bytes that this session's key does not open, or a data key that cannot be one."""

    code = "bad-encryption"


class Cipher:
    """Both directions of one encrypted session. Holds the keys: it has no repr and is never copied.

    Nonces count up from a random start, as the far end's do, so that none can repeat under one key
    however bad the entropy is.
    """

    __slots__ = ("_nonce", "_open", "_seal")

    def __init__(self, data_key: bytes, entropy: Callable[[int], bytes]) -> None:
        """Split the data key: its first half is the far end's for sending, its second half ours.

        Raises:
            CryptoError: the key is not 64 bytes, or ``entropy`` does not give what it was asked for.
        """
        if len(data_key) != DATA_KEY_SIZE:
            raise CryptoError(f"a data key has {DATA_KEY_SIZE} bytes, this one {len(data_key)}")
        start = entropy(NONCE_SIZE)
        if len(start) != NONCE_SIZE:
            raise CryptoError(f"entropy returned {len(start)} bytes instead of {NONCE_SIZE}")
        self._open = AESGCM(data_key[:32])
        self._seal = AESGCM(data_key[32:])
        self._nonce = int.from_bytes(start, "little")

    def encrypt(self, data: bytes) -> bytes:
        """Return the payload for the wire."""
        nonce = self._nonce.to_bytes(NONCE_SIZE, "little")
        self._nonce = (self._nonce + 1) & ((1 << 96) - 1)
        return nonce + self._seal.encrypt(nonce, data, None)

    def decrypt(self, payload: bytes) -> bytes:
        """Return the clear text of a payload from the far end.

        Raises:
            CryptoError: too short, or not sealed with the far end's key.
        """
        if len(payload) < OVERHEAD:
            raise CryptoError(f"{len(payload)} bytes cannot hold an encrypted payload")
        try:
            return self._open.decrypt(payload[:NONCE_SIZE], payload[NONCE_SIZE:], None)
        except InvalidTag:
            raise CryptoError("the payload was not sealed with this session's key") from None

    def answer(self, challenge: str) -> str:
        """Decrypt a base64 challenge with the far end's key and return it sealed with ours.

        Raises:
            CryptoError: not base64, or not sealed with the far end's key.
        """
        try:
            sealed = b64decode(challenge, validate=True)
        except (binascii.Error, ValueError):
            raise CryptoError("the challenge is not base64") from None
        return b64encode(self.encrypt(self.decrypt(sealed))).decode("ascii")

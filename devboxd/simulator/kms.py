"""A KMS that knows GenerateDataKey and Decrypt, bound to an encryption context like the real one."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

DEFAULT_KEY: Final = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
_MAGIC: Final = b"simkms"


class KmsError(Exception):
    """A refused call; ``code`` is the API's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Kms:
    """One key. Not a secret keeper: its randomness comes from the simulator's seed."""

    def __init__(self, entropy: random.Random, key_id: str = DEFAULT_KEY) -> None:
        self._random = entropy
        self._master = entropy.randbytes(32)
        self.key_id = key_id
        self.contexts: list[dict[str, str]] = []  # of every GenerateDataKey, for tests

    def generate_data_key(self, key_id: str, context: Mapping[str, str], size: int) -> tuple[bytes, bytes]:
        """Make a data key: (plaintext, ciphertext blob).

        Raises:
            KmsError: the key is unknown or the size impossible.
        """
        if key_id not in (self.key_id, self.key_id.rpartition("/")[2]):
            raise KmsError("NotFoundException", f"Key '{key_id}' does not exist")
        if not 1 <= size <= 1024:
            raise KmsError("ValidationException", f"NumberOfBytes {size} is not in 1..1024")
        self.contexts.append(dict(context))
        plaintext, nonce = self._random.randbytes(size), self._random.randbytes(12)
        sealed = AESGCM(self._master).encrypt(nonce, plaintext, _associated(context))
        return plaintext, _MAGIC + nonce + sealed

    def decrypt(self, blob: bytes, context: Mapping[str, str]) -> bytes:
        """Open a ciphertext blob.

        Raises:
            KmsError: InvalidCiphertextException when the blob or the context is wrong.
        """
        nonce, sealed = blob[len(_MAGIC) : len(_MAGIC) + 12], blob[len(_MAGIC) + 12 :]
        try:
            return AESGCM(self._master).decrypt(nonce, sealed, _associated(context))
        except (InvalidTag, ValueError) as error:
            raise KmsError("InvalidCiphertextException", "the ciphertext or its context is wrong") from error


def _associated(context: Mapping[str, str]) -> bytes:
    return json.dumps(dict(context), sort_keys=True).encode()

"""KMS data keys for encrypted sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from devboxd.aws.clients import Caller
from devboxd.aws.codes import AwsFailed

KEY_BYTES: Final = 64  # two AES-256 keys, one for each direction
SEALED_MAX: Final = 6144  # bytes, as the service model of kms says


async def generate_data_key(caller: Caller, key_id: str, context: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Ask KMS for a data key.

    Args:
        account: whose permission ``kms:GenerateDataKey`` is used.
        key_id: the key that the session preferences name.
        context: the encryption context; the box builds the same to decrypt.

    Returns:
        Plaintext (64 bytes, secret) and ciphertext.

    Raises: Denied, KeyUnusable, AwsFailed, and as ``Caller.call``.
    """
    answer = await caller.call(
        "kms", "generate_data_key", KeyId=key_id, NumberOfBytes=KEY_BYTES, EncryptionContext=dict(context)
    )
    plaintext, ciphertext = answer.get("Plaintext"), answer.get("CiphertextBlob")
    if not isinstance(plaintext, bytes) or len(plaintext) != KEY_BYTES:
        raise AwsFailed("kms:GenerateDataKey answered without the key that was asked for")
    if not isinstance(ciphertext, bytes) or not 0 < len(ciphertext) <= SEALED_MAX:
        raise AwsFailed("kms:GenerateDataKey answered without a sealed key")
    return plaintext, ciphertext

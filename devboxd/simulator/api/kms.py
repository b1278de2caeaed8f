"""The part of the KMS API that encrypted sessions use (JSON 1.1)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from devboxd.simulator.api.common import ApiError, required
from devboxd.simulator.kms import Kms, KmsError


class KmsApi:
    """GenerateDataKey and Decrypt."""

    def __init__(self, kms: Kms) -> None:
        self._kms = kms

    def knows(self, call: str) -> bool:
        """Whether a call is ours; others go to moto."""
        return call in ("GenerateDataKey", "Decrypt")

    def answer(self, call: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Process one call.

        Raises:
            ApiError: refused.
        """
        context = body.get("EncryptionContext") or {}
        try:
            if call == "Decrypt":
                plaintext = self._kms.decrypt(
                    base64.b64decode(required(body, "CiphertextBlob", 8192)), context
                )
                return {"KeyId": self._kms.key_id, "Plaintext": base64.b64encode(plaintext).decode()}
            size = body.get("NumberOfBytes") or {"AES_256": 32, "AES_128": 16}.get(body.get("KeySpec", ""), 0)
            plaintext, blob = self._kms.generate_data_key(required(body, "KeyId", 2048), context, size)
        except KmsError as error:
            raise ApiError(error.code, str(error)) from error
        return {
            "KeyId": self._kms.key_id,
            "Plaintext": base64.b64encode(plaintext).decode(),
            "CiphertextBlob": base64.b64encode(blob).decode(),
        }

"""Encryption: recorded payloads of both real programs."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from devboxd.ssm.crypto import Cipher, CryptoError
from devboxd.ssm.handshake import encryption_context
from tests.ssm.support import SESSION, TARGET, vectors

RECORDED = vectors("kms")
KEY = bytes.fromhex(RECORDED["data_key_plaintext_hex"])


def far_end() -> Cipher:
    """The other side: the halves of the key the other way round."""
    return Cipher(KEY[32:] + KEY[:32], os.urandom)


@pytest.mark.parametrize("vector", RECORDED["vectors"], ids=lambda vector: vector["name"])
def test_item_20_recorded_payloads_open_and_seal_to_the_same_bytes(vector: dict[str, Any]) -> None:
    wire, plain = bytes.fromhex(vector["wire_payload_hex"]), bytes.fromhex(vector["plaintext_hex"])
    nonce = bytes.fromhex(vector["nonce_hex"])
    if vector["name"].startswith("far-end-to-client"):
        assert Cipher(KEY, os.urandom).decrypt(wire) == plain
    else:
        assert Cipher(KEY, lambda _: nonce).encrypt(plain) == wire
        assert far_end().decrypt(wire) == plain


def test_item_20_the_context_has_the_challenge_only_where_there_is_one() -> None:
    without = RECORDED["far_end_decrypt_request_without_challenge"]["EncryptionContext"]
    assert encryption_context(SESSION, TARGET, None) == without
    assert without == RECORDED["generate_data_key_request"]["EncryptionContext"]
    challenge = RECORDED["random_challenge_of_that_request"]
    expected = RECORDED["far_end_decrypt_request_with_challenge"]["EncryptionContext"]
    assert encryption_context(SESSION, TARGET, challenge) == expected


def test_item_20_no_nonce_is_used_twice_even_without_entropy() -> None:
    cipher = Cipher(KEY, lambda size: b"\xff" * size)  # also the worst start: it wraps at once
    nonces = {cipher.encrypt(b"x")[:12] for _ in range(1000)}
    assert len(nonces) == 1000


def test_item_20_the_challenge_is_given_back_under_our_key() -> None:
    secret = bytes(range(64))
    answer = Cipher(KEY, os.urandom).answer(b64encode(far_end().encrypt(secret)).decode())
    sealed = b64decode(answer)
    assert AESGCM(KEY[32:]).decrypt(sealed[:12], sealed[12:], None) == secret


@pytest.mark.parametrize("challenge", ["", "AQID", "not base64!", "ä", b64encode(bytes(60)).decode()])
def test_item_20_a_bad_challenge_is_a_typed_error(challenge: str) -> None:
    with pytest.raises(CryptoError):
        Cipher(KEY, os.urandom).answer(challenge)


@given(st.binary(max_size=100))
def test_random_bytes_do_not_open(data: bytes) -> None:
    with pytest.raises(CryptoError):
        Cipher(KEY, os.urandom).decrypt(data)


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_data_key_has_64_bytes(size: int) -> None:
    with pytest.raises(CryptoError):
        Cipher(bytes(size), os.urandom)


def test_item_50_the_key_is_in_no_repr_and_in_no_error() -> None:
    cipher = Cipher(KEY, os.urandom)
    assert not hasattr(cipher, "__dict__")
    with pytest.raises(CryptoError) as caught:
        Cipher(KEY[:63], os.urandom)
    for text in (repr(cipher), str(caught.value), repr(caught.value)):
        assert KEY[:4].hex() not in text
        assert repr(KEY[:4])[2:-1] not in text

"""Where a session's stream may lead."""

from __future__ import annotations

import pytest

from devboxd.model.address import AddressRefused, stream_address

GOOD = [
    "wss://ssmmessages.us-east-1.amazonaws.com/v1/data-channel/me-1?role=publish_subscribe",
    "wss://ssmmessages.cn-north-1.amazonaws.com.cn/v1/data-channel/ann@corp.example-0abc?role=x&cell-number=AA==+/",
    "wss://vpce-0abc.ssmmessages.eu-central-1.vpce.amazonaws.com/v1/data-channel/x?X-Amz-Signature=1&a=%2B",
    "wss://gateway:8443/x",
    "WSS://gateway/x",
    "wss://127.0.0.1:4566/x",
    "wss://[::1]:4566/x",
    "wss://gateway./x",
]
NEVER = [
    "http://gateway/x",
    "https://gateway/x",
    "ftp://gateway/x",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "gateway/x",
    "//gateway/x",
    "wss:gateway",
    "wss://",
    "wss:///x",
    "wss://:8443/x",
    "wss://gateway:0/x",
    "wss://gateway:65536/x",
    "wss://gateway:99999999999999999999/x",
    "wss://gateway:x/x",
    "wss://gateway:-1/x",
    "wss://user:secret@gateway/x",
    "wss://gateway@evil.example/x",
    "wss://gateway\\@evil.example/x",
    "wss://gateway/x#fragment",
    "wss://gate way/x",
    "wss://gateway/x\r\nHost: evil.example",
    "wss://gateway/\x00",
    "wss://gateway/é",
    "wss://gätew.ay/x",
    "wss://-gateway/x",
    "wss://gate_way/x",
    "wss://a..b/x",
    f"wss://{'a' * 64}.b/x",
    "wss://[::1/x",
    "wss://[zz]/x",
    "wss://gateway/" + "x" * 20_000,
    " wss://gateway/x",
]


@pytest.mark.parametrize("address", GOOD)
def test_an_address_is_taken_as_it_is(address: str) -> None:
    """A signature covers every character of it."""
    assert stream_address(address, plain=False) == address


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("address", NEVER)
def test_what_is_no_address_of_a_stream_is_refused(address: str, plain: bool) -> None:
    """With an error of its own: not as a bug, and not by trying."""
    with pytest.raises(AddressRefused) as caught:
        stream_address(address, plain=plain)
    assert "secret" not in str(caught.value), "it may carry a signature"


@pytest.mark.parametrize(
    "found", [0, 1.5, True, [], ["wss://gateway/x"], {"a": "b"}, b"wss://gateway/x", object()]
)
def test_what_is_no_text_is_refused(found: object) -> None:
    """The parser of the answer passes on whatever stands there."""
    with pytest.raises(AddressRefused):
        stream_address(found, plain=True)


@pytest.mark.parametrize("found", [None, ""])
def test_no_address_is_none(found: object) -> None:
    """ResumeSession may leave it out: the old one stays."""
    assert stream_address(found, plain=False) == ""


@pytest.mark.parametrize("address", ["ws://127.0.0.1:4566/x", "WS://gateway/x"])
def test_a_stream_without_tls_needs_an_endpoint_without_tls(address: str) -> None:
    """Else the token, which is leave to open the session, would travel in clear."""
    assert stream_address(address, plain=True) == address
    with pytest.raises(AddressRefused, match="not with wss:"):
        stream_address(address, plain=False)

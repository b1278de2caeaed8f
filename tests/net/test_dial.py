"""Which destinations go through the proxy."""

from __future__ import annotations

import pytest

from devboxd.net.dial import DialSettings

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("rules", "host", "direct"),
    [
        ("", "a.example.com", False),
        ("*", "a.example.com", True),
        ("example.com", "a.example.com", True),
        (".example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", True),
        ("example.com", "badexample.com", False),
        ("EXAMPLE.com", "A.Example.COM.", True),
        ("other, a.example.com", "a.example.com", True),
        ("a.example.com:443", "a.example.com", True),
        ("a.example.com:8443", "a.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:443", "10.1.2.3", True),
        ("::1", "::1", True),
        ("fd00::/8", "[fd12::1]", True),
        ("nonsense/99", "10.1.2.3", False),
        (",,", "a.example.com", False),
    ],
)
def test_no_proxy_means_what_curl_and_go_take_it_for(rules: str, host: str, direct: bool) -> None:
    assert DialSettings(proxy=PROXY, no_proxy=rules).proxy_for(host, 443) == (None if direct else PROXY)


def test_the_environment_is_read_in_both_spellings() -> None:
    assert DialSettings.from_environment({"HTTPS_PROXY": "proxy:3128"}).proxy == PROXY
    both = DialSettings.from_environment(
        {"https_proxy": PROXY, "HTTPS_PROXY": "http://other", "no_proxy": "a", "AWS_CA_BUNDLE": "/ca.pem"}
    )
    assert (both.proxy, both.no_proxy, both.ca_bundle) == (PROXY, "a", "/ca.pem")
    assert DialSettings.from_environment({}) == DialSettings()
    assert DialSettings.from_environment({"AWS_CA_BUNDLE": "/a"}, ca_bundle="/b").ca_bundle == "/b"


def test_a_proxy_password_does_not_show() -> None:
    assert "secret" not in repr(DialSettings(proxy="http://u:secret@proxy:1"))

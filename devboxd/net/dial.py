"""How to reach a host on the internet from here: proxy, its exceptions, and whom to trust."""

from __future__ import annotations

import importlib.util
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class DialSettings:
    """Proxy and trust, as the standard environment variables mean them.

    Attributes:
        proxy: URL of the proxy for TLS destinations; it may hold a password, so it is not in ``repr``.
        no_proxy: comma-separated exceptions: host, .domain, address, network/bits, ``host:port`` or ``*``.
        ca_bundle: PEM file that replaces the system's certificates.
    """

    proxy: str | None = field(default=None, repr=False)
    no_proxy: str = ""
    ca_bundle: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], *, ca_bundle: str | None = None) -> Self:
        """Read HTTPS_PROXY, NO_PROXY and AWS_CA_BUNDLE (or take ``ca_bundle``, where a profile names one)."""
        # Lower case wins, as in curl and Python's urllib, which botocore follows.
        proxy = environment.get("https_proxy") or environment.get("HTTPS_PROXY")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        return cls(
            proxy=proxy or None,
            no_proxy=environment.get("no_proxy") or environment.get("NO_PROXY") or "",
            ca_bundle=ca_bundle or environment.get("AWS_CA_BUNDLE") or None,
        )

    def proxy_for(self, host: str, port: int) -> str | None:
        """The proxy to use for a TLS connection to ``host``, if any."""
        if self.proxy is None or any(
            _covers(rule.strip().lower(), host.lower().rstrip("."), port) for rule in self.no_proxy.split(",")
        ):
            return None
        return self.proxy


def trust(ca_bundle: str | None) -> ssl.SSLContext:
    """Make the TLS context for one bundle. Slow (a file of 200 kB is parsed): once per bundle.

    Raises: OSError (``ssl.SSLError`` is one) when the bundle can not be read.
    """
    context = ssl.create_default_context(cafile=ca_bundle)
    context.set_alpn_protocols(["http/1.1"])
    if ca_bundle is not None:
        # Python 3.13 turns this on, and the CAs of many companies' TLS-opening proxies fail it.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    elif not _has_system_certificates():
        # python.org's macOS builds know no certificates until a script is run: use botocore's own file,
        # so that the websocket trusts whom the API calls trust.
        spec = importlib.util.find_spec("botocore")
        if spec is not None and spec.origin is not None:
            context.load_verify_locations(Path(spec.origin).with_name("cacert.pem"))
    return context


def _has_system_certificates() -> bool:
    paths = ssl.get_default_verify_paths()
    return any((paths.cafile, paths.capath))  # None where the file is not there, whatever typeshed says


def _covers(rule: str, host: str, port: int) -> bool:
    """Whether one NO_PROXY entry means this host."""
    if not rule:
        return False
    if rule == "*":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        address = None
    if address is not None:
        try:
            return address in ipaddress.ip_network(rule.strip("[]"), strict=False)
        except ValueError:
            pass  # a name, or an address with a port
    name, colon, number = rule.rpartition(":")
    if colon and number.isdigit():
        if int(number) != port:
            return False
        rule = name.strip("[]")
    rule = rule.removeprefix("*").lstrip(".")
    return host.strip("[]") == rule or host.endswith(f".{rule}")

"""Check a SigV4 signature as the service would, for the dummy credentials of the simulator."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final
from urllib.parse import quote, unquote

from aiohttp import web

ACCESS_KEY: Final = "AKIASIMULATOR0000000"
SECRET_KEY: Final = "simulator-secret-key-of-no-value-whatsoever"

_AUTHORIZATION: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request,\s*"
    r"SignedHeaders=([^,]+),\s*Signature=([0-9a-f]{64})"
)


def scope(request: web.Request) -> tuple[str, str] | None:
    """The (region, service) a request says it is signed for."""
    match = _AUTHORIZATION.match(request.headers.get("Authorization", ""))
    return (match[3], match[4]) if match else None


def problem(request: web.Request, body: bytes, service: str) -> str | None:
    """Say what is wrong with the signature of a request, as an error code; None: nothing."""
    match = _AUTHORIZATION.match(request.headers.get("Authorization", ""))
    if match is None:
        return "MissingAuthenticationToken"
    key_id, day, region, signed_service, header_names, signature = match.groups()
    if key_id != ACCESS_KEY:
        return "UnrecognizedClientException"
    if signed_service != service:
        return "InvalidSignatureException"
    names = header_names.split(";")
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    path, _, query = request.raw_path.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&") if pair)
    canonical_query = "&".join(sorted(f"{_quoted(key)}={_quoted(value)}" for key, _, value in pairs))
    secret = f"AWS4{SECRET_KEY}".encode()
    for part in (day, region, service, "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    # Services other than S3 quote the path once more; it matters for odd session ids only.
    for candidate in {path, quote(path, safe="/-_.~")}:
        canonical = "\n".join(
            [
                request.method,
                candidate,
                canonical_query,
                headers,
                header_names,
                hashlib.sha256(body).hexdigest(),
            ]
        )
        text = "\n".join(
            [
                "AWS4-HMAC-SHA256",
                request.headers.get("X-Amz-Date", ""),
                f"{day}/{region}/{service}/aws4_request",
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        if hmac.compare_digest(hmac.new(secret, text.encode(), "sha256").hexdigest(), signature):
            return None
    return "InvalidSignatureException"


def _quoted(text: str) -> str:
    return quote(unquote(text), safe="-_.~")

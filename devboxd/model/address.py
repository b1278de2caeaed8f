"""Where a session's stream may lead. Checked before a signature and a token go there."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from devboxd.errors import DevboxError

LONGEST: Final = 16384  # characters; a presigned address carries a session token of some thousand

_PLAIN: Final = re.compile(
    r"[!-~]+\Z"
)  # printable ASCII without blanks: sent as it is, and nothing hides in it
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")


class AddressRefused(DevboxError):
    """The address that AWS gave for a session's stream is none that we connect to."""

    code = "address-refused"

    def __init__(self, why: str) -> None:
        # The address itself stays out: it may carry a signature.
        super().__init__(
            f"the address of the session's stream cannot be used: {why}",
            hint="is the endpoint of the AWS API the right one? See: devboxctl doctor",
        )


def stream_address(found: object, *, plain: bool) -> str:
    """Return the address as it was given; empty where there is none.

    Args:
        found: ``StreamUrl`` of an answer, whatever it is.
        plain: whether ``ws:`` will do, as it does where the user named an endpoint without TLS. Elsewhere the
            token and the signature, which are leave to open the session, would travel in clear.

    Raises:
        AddressRefused: it is none, or one that we do not connect to.
    """
    if found is None or found == "":
        return ""
    if not isinstance(found, str):
        raise AddressRefused("it is no text")
    if len(found) > LONGEST:
        raise AddressRefused(f"it has {len(found)} characters")
    if _PLAIN.match(found) is None:
        raise AddressRefused("it has characters that no address has")
    try:
        parts = urlsplit(found)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressRefused("it cannot be taken apart") from None
    if parts.scheme != "wss" and not (plain and parts.scheme == "ws"):
        raise AddressRefused(f"it begins with {parts.scheme[:20]}: and not with wss:")
    if "@" in parts.netloc or "\\" in found or parts.fragment:
        raise AddressRefused("it has parts that such an address has not")
    if port == 0 or not _is_host(host or ""):
        raise AddressRefused("it names no host, or a port that cannot be")
    return found


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        labels = name.removesuffix(".").split(".")
        return len(name) <= 253 and all(_LABEL.match(label) for label in labels)
    return True

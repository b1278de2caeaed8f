"""The instance metadata service (IMDSv2), asked with a time limit, without a proxy and without trust in what answers."""

import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

SERVICE = "169.254.169.254:80"
ELSEWHERE = "DEVBOX_IMDS"  # in the environment: where it is played, HOST:PORT/PATH on loopback
METADATA_LIMIT = 2.0  # seconds that all questions of one look may take
METADATA_MOST = 16 << 10  # bytes of an answer
TOKEN_LASTS = 300  # seconds


class Metadata:
    """Each question is answered with a status and a text; the status is None where no answer came."""

    def __init__(self) -> None:
        played = os.environ.get(ELSEWHERE, "")
        place, _, path = (played if played.startswith("127.0.0.1:") else SERVICE).partition("/")
        host, _, port = place.partition(":")
        self.address = (host, int(port) if port.isdigit() else 80)
        self.path = "/" + path if path else ""
        self.token = ""
        self.token_until = 0.0
        self.until = 0.0

    def look(self, *questions: str) -> "list[tuple[int | None, str]]":
        """What is said to each of these paths below ``/latest/meta-data/``, within the time limit."""
        self.until = time.monotonic() + METADATA_LIMIT
        found = [self._ask(question) for question in questions]
        if any(status == 401 for status, _ in found):  # the box was moved, or the service began anew
            self.token = ""
            found = [self._ask(question) for question in questions]
        return found

    def _ask(self, question: str) -> "tuple[int | None, str]":
        if not self.token or time.monotonic() > self.token_until:
            lasts = "X-aws-ec2-metadata-token-ttl-seconds: " + str(TOKEN_LASTS)
            status, text = self._say("PUT", "/latest/api/token", lasts + "\r\nContent-Length: 0")
            if status != 200 or not text or any(not "!" <= one <= "~" for one in text):
                return (None if status == 200 else status), ""
            self.token, self.token_until = text, time.monotonic() + TOKEN_LASTS / 2
        return self._say("GET", "/latest/meta-data/" + question, "X-aws-ec2-metadata-token: " + self.token)

    def _say(self, verb: str, path: str, header: str) -> "tuple[int | None, str]":
        lines = [
            verb + " " + self.path + path + " HTTP/1.1",
            "Host: " + self.address[0],
            "Connection: close",
            header,
        ]
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        data = bytearray()
        try:
            sock.settimeout(self._left())
            sock.connect(self.address)
            sock.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("ascii"))
            while len(data) < METADATA_MOST and not _is_whole(data):
                sock.settimeout(self._left())
                part = sock.recv(4096)
                if not part:
                    break
                data += part
        except (OSError, ValueError):
            return None, ""
        finally:
            sock.close()
        return _answer(bytes(data))

    def _left(self) -> float:
        """Seconds; there is always some, or a socket would not wait at all."""
        return max(0.001, self.until - time.monotonic())


def _body_size(head: bytes) -> "int | None":
    """How long the body is, as far as that is said."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return int(value[:20])
    return None


def _is_whole(data: "bytearray") -> bool:
    head, mark, body = bytes(data).partition(b"\r\n\r\n")
    size = _body_size(head) if mark else None
    return size is not None and len(body) >= size


def _answer(data: bytes) -> "tuple[int | None, str]":
    head, mark, body = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split()
    size = _body_size(head) if mark else 0
    if not mark or len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None, ""
    if len(words[1]) != 3 or (size or 0) > len(body) or len(data) >= METADATA_MOST:
        return None, ""  # cut off, or longer than any answer is
    return int(words[1]), body[:size].decode("utf-8", "replace").strip()

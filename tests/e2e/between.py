"""Something between a daemon and AWS: it counts what is asked, and kills at a chosen call.

A plain HTTP relay in threads of the test's own process. Requests go on as they came (their signature covers the host
that the daemon dialled); answers come back as they are, or as ``alter`` makes them.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"})


@dataclass
class Between:
    """``pid``: whom to kill at the ``kill_at``-th call that changes something in EC2, before or after it took effect."""

    target: str
    pid: Callable[[], int | None] = lambda: None
    kill_at: int | None = None
    after: bool = False
    alter: Callable[[str, bytes], bytes] = lambda action, body: body
    changes: list[str] = field(default_factory=list)  # actions, since ``arm``
    killed_at: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def arm(self, number: int | None, *, after: bool) -> None:
        """Count from now on, and kill at this call."""
        with self._lock:
            self.changes, self.killed_at = [], ""
            self.kill_at, self.after = number, after

    def __enter__(self) -> Self:
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                between.relay(self)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def relay(self, request: BaseHTTPRequestHandler) -> None:
        """One request and its answer."""
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        action = parse_qs(body.decode("latin-1")).get("Action", [""])[0]
        kills = self._counts(action)
        if kills and not self.after:
            self._kill(action)
            request.close_connection = True
            return
        status, headers, content = self._forward(request, body)
        if kills:
            self._kill(action)
            request.close_connection = True
            return
        # Where to dial is told by the name that was dialled; websockets do not come through here.
        content = content.replace(urlsplit(self.url).netloc.encode(), urlsplit(self.target).netloc.encode())
        content = self.alter(action, content)
        try:
            request.send_response(status)
            for name, value in headers:
                if name.lower() not in HOP_BY_HOP:
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
        except OSError:
            request.close_connection = True  # who asked has died since

    def _counts(self, action: str) -> bool:
        """Count a call that changes something in EC2; says whether it is the one."""
        if not action or action.startswith(("Describe", "Get", "List")):
            return False
        with self._lock:
            self.changes.append(action)
            return len(self.changes) == self.kill_at and not self.killed_at

    def _kill(self, action: str) -> None:
        self.killed_at = action
        if (pid := self.pid()) is not None:
            os.kill(pid, signal.SIGKILL)

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        onward = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=60)
        try:
            onward.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                onward.putheader(name, value)
            onward.endheaders(body)
            answer = onward.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            onward.close()

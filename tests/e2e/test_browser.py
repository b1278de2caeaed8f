"""A real browser, and a page that a box serves: through a forward, while the sessions under it are ended."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.kit import World
from tests.kit.browser import browser, missing

PARTS = 24  # files that the page asks for, six connections at a time as browsers do
SIZE = 150_000  # bytes of each
TICKS = 20  # messages of the event stream, five a second

PAGE = f"""<!doctype html><title>box</title><script>
window.sums = {{}}; window.ticks = []; window.failed = [];
const source = new EventSource("/ticks");
source.onmessage = event => {{ ticks.push(+event.data); if (ticks.length === {TICKS}) source.close(); }};
source.onerror = () => failed.push("ticks");
for (let i = 0; i < {PARTS}; i++) fetch("/part/" + i).then(found => found.arrayBuffer()).then(data => {{
  let sum = 0; for (const byte of new Uint8Array(data)) sum = (sum * 31 + byte) % 1000003;
  sums[i] = [data.byteLength, sum];
}}).catch(error => failed.push(i + ": " + error));
</script>"""


def part(number: int) -> bytes:
    return random.Random(number).randbytes(SIZE)


def summed(data: bytes) -> int:
    found = 0
    for byte in data:
        found = (found * 31 + byte) % 1_000_003
    return found


class Handler(BaseHTTPRequestHandler):
    """The page, its parts, and a stream of events; connections are kept."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/ticks":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for tick in range(TICKS):
                self.wfile.write(f"data: {tick}\n\n".encode())
                time.sleep(0.2)
            self.close_connection = True
            return
        name, _, number = self.path[1:].partition("/")
        data = b""
        if self.path == "/":
            data = PAGE.encode()
        elif name == "part":
            data = part(int(number))
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "application/octet-stream")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served() -> Iterator[int]:
    """On the box; yields the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


@pytest.mark.timeout(120)
def test_a_page_and_its_stream_of_events_outlive_their_sessions(world: World) -> None:
    """Nothing fails, nothing is asked twice, every byte is right, and the stream never begins anew."""
    if lacks := missing():
        pytest.skip(f"needs {', '.join(lacks)}")
    with served() as port, browser() as one:
        host, local = world.forward(f"0:{port}")[0]
        one.go(f"http://{host}:{local}/")
        ended = 0
        for tick in range(TICKS):
            one.until(f"ticks.length > {tick} || failed.length")
            if tick % 5 == 1:
                ended += world.fault("terminate")
        one.until(f"Object.keys(sums).length === {PARTS} || failed.length")
        assert one.run("return failed") == []
        assert one.run("return ticks") == list(range(TICKS))
        found = one.run("return sums")
        assert ended >= 4
    assert found == {str(n): [SIZE, summed(part(n))] for n in range(PARTS)}

"""``forward --auto``: mirror here what the user's programs on a box listen on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

from devboxd.boxside.script import load, squeeze
from devboxd.control.base.needs import Listeners
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.audience import Audience
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.forward import Forward, Pools, Wait
from devboxd.control.connect.local import LocalListeners
from devboxd.control.connect.stream import Duplex
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import DevboxError
from devboxd.model.box import BoxRef
from devboxd.model.forward import Facts, ForwardState, Spec, mirrored
from devboxd.model.retry import Backoff
from devboxd.model.terminal import Leaving

LIMIT: Final = 64  # ports that one auto forward mirrors at most
PAUSE: Final = 1.0  # seconds between two reports that are acted on; the script on the box makes no more
LONGEST_REPORT: Final = 64 << 10  # bytes of a report: twice what a box that listens on every third port says
LINE: Final = re.compile(r"(hex|dec)((?: [0-9A-Fa-f]{1,5})*) ?\Z")

Run = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]
Changes = Callable[[BoxRef], Awaitable[Duplex | None]]


class AutoForward:
    """Mirrors what the user's programs on a box listen on, on the same ports here where they are nobody's.

    Whose a port is: ``model.localports``.
    """

    def __init__(
        self,
        shared: Shared,
        pools: Pools,
        listeners: Listeners,
        run: Run,
        local: LocalListeners,
        box: BoxRef,
        *,
        id_: str,
        wait: Wait,
        changes: Changes | None = None,
    ) -> None:
        """Make it. ``changes`` opens a stream of the same lines over the bridge; None from it: there is none."""
        self.id = id_
        self.box = box
        self.forwards: dict[int, Forward] = {}
        self.error: str | None = None
        self._dropped: set[Forward] = set()  # and not stopped yet
        self._shared = shared
        self._pools = pools
        self._listeners = listeners
        self._run = run
        self._local = local
        self._wait = wait
        self._changes = changes
        self._tasks = Supervisor(f"auto forward {id_}")
        self._report = ""  # the latest of the box; what it replaces does not matter any more
        self._reported = asyncio.Event()

    async def start(self) -> None:
        """Watch from now on."""
        self._tasks.spawn("watch", self._watch())
        self._tasks.spawn("look here", self._local.watch())
        self._tasks.spawn("mirror", self._act_on_reports())

    async def stop(self) -> None:
        """Stop watching and take all mirrors away."""
        await self._tasks.stop()
        await asyncio.gather(*(forward.stop() for forward in (*self.forwards.values(), *self._dropped)))
        self.forwards.clear()

    def facts(self) -> Facts:
        """The watcher itself; its mirrors are forwards of their own."""
        state = ForwardState.FAILED if self.error else ForwardState.LISTENING
        return Facts(
            self.id, self.box.name, state, "-", "auto", 0, 0, 0, 0, 0, self.error, True, self.box.target
        )

    async def _watch(self) -> None:
        delays = Backoff(self._shared.time.dice, first=1.0)
        while True:
            began = self._shared.time.monotonic()
            lines = Reports(self._note)
            try:
                why = await self._watch_changes(lines)
                self.error = why if why is not None else await self._watch_by_looking(lines)
            except DevboxError as error:
                self.error = error.message
            await self._shared.bells.network.wait(delays.wait_after(self._shared.time.monotonic() - began))

    async def _watch_changes(self, lines: Reports) -> str | None:
        """The bridgehead tells each change: read that until it ends, and say why. None: there is no bridge."""
        if self._changes is None or (stream := await self._changes(self.box)) is None:
            return None
        try:
            while data := await stream.read():
                lines.output(data)
        finally:
            stream.close()
        return "the watcher on the box ended"

    async def _watch_by_looking(self, lines: Reports) -> str:
        """Without a bridge a script on the box looks every second."""
        leaving = await self._run(
            ExecSpec(
                box=self.box,
                argv=["sh", "-c", squeeze(load("listening.sh", common=False)), "devbox"],
                stdin=False,
                wait=None,
            ),
            lines,
        )
        return leaving.error.message if leaving.error is not None else "the watcher on the box ended"

    def _note(self, line: str) -> None:
        self._report = line
        self._reported.set()

    async def _act_on_reports(self) -> None:
        """A box that reports a thousand changes a second gets one of them."""
        while True:
            await self._reported.wait()
            self._reported.clear()
            await self._local.look()
            self._listening(self._report)
            await asyncio.sleep(PAUSE)

    def _listening(self, line: str) -> None:
        """One report of the box. Untrusted: anything odd is ignored."""
        match = LINE.match(line)
        if match is None:
            return
        self.error = None
        base = 16 if match[1] == "hex" else 10
        ports = {port for text in match[2].split() if 0 < (port := int(text, base)) < 65536}
        # A mirror that had to take another number listens, too; where the box is this machine, it is seen.
        own = {f.listener.port for at, f in self.forwards.items() if f.listener and f.listener.port != at}
        ports -= own
        self._local.contest(ports)
        added, dropped = mirrored(ports, set(self.forwards))
        for port in dropped:
            forward = self.forwards.pop(port)
            self._shared.news.tell(
                "forward.removed", f"{forward.local}: port {port} is closed on the box", box=self.box.name
            )
            self._dropped.add(forward)
            self._tasks.spawn(f"drop {port}", self._drop(forward))
        for port in sorted(added)[: LIMIT - len(self.forwards)]:
            why = self._local.why_not(port)
            forward = Forward(
                self._shared,
                self._pools,
                self._listeners,
                self.box,
                Spec(port=port, local_port=None if why is None else 0, strict=False),
                id_=f"{self.id}.{port}",
                wait=self._wait,
                auto=True,
            )
            forward.why = why
            self.forwards[port] = forward
            self._tasks.spawn(f"mirror {port}", self._mirror(port, forward))

    async def _drop(self, forward: Forward) -> None:
        await forward.stop()
        self._dropped.discard(forward)

    async def _mirror(self, port: int, forward: Forward) -> None:
        try:
            await forward.start()
        except DevboxError as error:
            if self.forwards.get(port) is forward:
                del self.forwards[port]
            self._shared.news.tell(
                "forward.failed", f"port {port} cannot be mirrored: {error.message}", box=self.box.name
            )
        else:
            if forward.is_removed:
                return
            if forward.why is None and forward.listener is not None and forward.listener.port != port:
                self._local.note(port)  # it was taken in this very moment
                forward.why = f"a program of this machine listens on {port}"
            why = "" if forward.why is None else f" ({forward.why})"
            self._shared.news.tell(
                "forward.added",
                f"{forward.local} is port {port} of the box{why}",
                box=self.box.name,
                port=port,
            )


class Reports(Audience):
    """Reads lines, of which only the latest counts, and has nothing to say."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note
        self._buffer = bytearray()

    def output(self, data: bytes, *, error: bool = False) -> None:
        """Take what the box says; a line that is too long is none."""
        super().output(data)
        if error:
            return
        self._buffer += data
        if (end := self._buffer.rfind(b"\n")) >= 0:
            begin = self._buffer.rfind(b"\n", 0, end) + 1
            if end - begin < LONGEST_REPORT:
                self._note(self._buffer[begin:end].decode("ascii", "replace"))
            del self._buffer[: end + 1]
        del self._buffer[LONGEST_REPORT:]

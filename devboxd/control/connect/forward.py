"""Forwards: local listeners that stay bound whatever happens behind them.

A connection that arrives during an outage waits (``wait`` seconds at most) instead of being refused. Open
connections are carried through when the session resumes and reset when it is gone. What the user asked
for is kept in the journal and made again by the next daemon.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Collection
from typing import Final

import msgspec

from devboxd.boxside.script import load, squeeze
from devboxd.control.base.bells import Bell
from devboxd.control.base.memory import Memory
from devboxd.control.base.shared import Shared
from devboxd.control.base.supervisor import Supervisor
from devboxd.control.connect.audience import Audience
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.port import PortPool, PortTarget
from devboxd.control.connect.socks import FAILED, OK, REFUSED, Buffered, SocksError, accept, reply
from devboxd.control.connect.splice import LOOK, Connection, splice
from devboxd.control.connect.stream import ConnectionRefused, Duplex
from devboxd.control.connect.terminal import Terminal
from devboxd.errors import DevboxError, PortDenied, PortInUse
from devboxd.model.box import BoxRef
from devboxd.model.forward import ForwardState, Saved, Spec, mirrored
from devboxd.model.memory import Unusable
from devboxd.model.retry import backoff
from devboxd.model.terminal import Leaving
from devboxd.net.listen import Listener, ListenerClosed, expanded, listen_tcp, listen_unix
from devboxd.text import printable

log = logging.getLogger(__name__)

SOCKS_TIMEOUT: Final = 20.0  # seconds a client has for its request
RESTORE_WAIT: Final = 3.0  # seconds that the start of the daemon waits for the forwards of an earlier one
RETRY_EVERY: Final = 30.0  # seconds between two tries to bind a forward that an earlier daemon had
AUTO_LIMIT: Final = 64  # ports that one auto forward mirrors at most
AUTO_PAUSE: Final = 1.0  # seconds between two reports that are acted on; the script on the box makes no more
LONGEST_REPORT: Final = 64 << 10  # bytes of a report: twice what a box that listens on every third port says

_LINE: Final = re.compile(r"(hex|dec)((?: [0-9A-Fa-f]{1,5})*) ?\Z")

Pools = Callable[[PortTarget], PortPool]
Run = Callable[[ExecSpec, Terminal], Awaitable[Leaving]]
Wait = Callable[[], float]  # seconds that a connection waits for a session, as configured now


class ListenerStore:
    """Keeps listeners over a restart of the daemon; this one keeps none (see ``main`` for systemd's)."""

    def take(self, name: str) -> Listener | None:
        """The listener that an earlier daemon stored under this name."""
        return None

    def keep(self, name: str, listener: Listener) -> None:
        """Store a listener: connections wait in its queue while no daemon runs."""

    def drop(self, name: str) -> None:
        """Forget one."""

    def drop_rest(self) -> None:
        """Close and forget what was inherited and not taken: nobody would ever accept from it."""


class Facts(msgspec.Struct, frozen=True):
    """A forward as it stands, for views."""

    id: str
    box: str
    state: ForwardState
    local: str
    remote: str
    connections: int
    total_connections: int
    bytes_up: int
    bytes_down: int
    sessions: int
    error: str | None
    auto: bool
    target: str = ""  # instance id


def wanted_port(spec: Spec) -> int:
    """The local port asked for; 0 leaves it to the system."""
    return spec.port if spec.local_port is None else spec.local_port


class Forward:
    """One listener and the connections that came through it."""

    def __init__(
        self,
        shared: Shared,
        pools: Pools,
        box: BoxRef,
        spec: Spec,
        *,
        id_: str,
        wait: Wait,
        auto: bool = False,
    ) -> None:
        self.id = id_
        self.box = box
        self.spec = spec
        self.saved = spec  # with the port that was found: who uses it finds it again after a restart
        self.auto = auto
        self.error: str | None = None
        self.total = 0
        self._shared = shared
        self._pools = pools
        self._wait = wait
        self._listener: Listener | None = None
        self._local = spec.local_path or "?"  # kept: a closed listener cannot say where it was
        self._tasks = Supervisor(f"forward {id_}")
        self._open = 0
        self._up = 0
        self._down = 0
        self._removed = False
        self._pool: PortPool | None = None

    async def start(self, kept: Listener | None = None) -> None:
        """Bind (or take over ``kept``), then accept. The session is opened by the first connection.

        Raises:
            PortInUse, PortDenied, BadRequest: the local end cannot be had.
        """
        spec = self.spec
        if kept is not None:
            self._listener = kept
        elif spec.local_path is not None:
            self._listener = listen_unix(expanded(spec.local_path))
        else:
            wanted = wanted_port(spec)
            try:
                self._listener = await listen_tcp(spec.bind, wanted)
            except (PortInUse, PortDenied):
                if spec.strict or not wanted:
                    raise
                self._listener = await listen_tcp(spec.bind, 0)
        if self._removed:  # while the address was looked up
            self._listener.close()
            return
        self._local = self._listener.address
        if (port := self._listener.port) not in (None, wanted_port(spec)):
            self.saved = msgspec.structs.replace(spec, local_port=port, strict=False)
        if not spec.dynamic:
            self._pool = self._pools(PortTarget(self.box, spec.port, spec.host))
            self._pool.kept += 1
        self._tasks.spawn("accept", self._accept(self._listener))

    async def stop(self) -> None:
        """Close the listener and cut what runs through it."""
        if self._removed:
            return
        self._removed = True
        if self._listener is not None:
            self._listener.close()
        if self._pool is not None:
            self._pool.kept -= 1
        await self._tasks.stop()

    @property
    def is_removed(self) -> bool:
        """Whether it was stopped; for good."""
        return self._removed

    @property
    def listener(self) -> Listener | None:
        """The bound local end."""
        return self._listener

    @property
    def local(self) -> str:
        """Where it listens."""
        return self._local

    def facts(self) -> Facts:
        """How it stands."""
        sessions = self._pool.sessions if self._pool is not None else []
        states = {session.held.state.value for session in sessions}
        if self._removed:
            state = ForwardState.REMOVED
        elif "online" in states:
            state = ForwardState.ONLINE
        elif {"reconnecting", "stalled"} & states:
            state = ForwardState.RECONNECTING
        elif states:
            state = ForwardState.CONNECTING
        elif self.error:
            state = ForwardState.FAILED
        else:  # a name to bind may still be looked up
            state = ForwardState.LISTENING if self._listener is not None else ForwardState.CONNECTING
        return Facts(
            self.id,
            self.box.name,
            state,
            self.local,
            self.spec.remote,
            self._open,
            self.total,
            self._up,
            self._down,
            len(sessions),
            self.error,
            self.auto,
            self.box.target,
        )

    def note(self, error: DevboxError | None) -> None:
        """Remember what the last connection failed for."""
        if error is not None and error.message != self.error:
            self._shared.news.tell("forward.failed", f"{self.local}: {error.message}", box=self.box.name)
        self.error = None if error is None else error.message

    async def _accept(self, listener: Listener) -> None:
        while True:
            try:
                connection = await listener.accept()
            except ListenerClosed:
                return
            self.total += 1
            serve = self._serve_socks if self.spec.dynamic else self._serve
            self._tasks.spawn(f"connection {self.total}", serve(connection))

    async def _serve(self, connection: Connection) -> None:
        self._open += 1
        try:
            assert self._pool is not None
            try:
                stream = await self._connect(self._pool, connection)
            except TimeoutError:
                connection.reset()
                return
            except DevboxError as error:
                self.note(error)
                connection.reset()
                return
            await self._carry(connection, stream)
        except asyncio.CancelledError:
            connection.reset()
            raise
        finally:
            self._open -= 1

    async def _connect(self, pool: PortPool, connection: Connection) -> Duplex:
        """Wait for a session, as long as the client does.

        Raises:
            TimeoutError: the client has left.
            DevboxError: there is no session in time.
        """
        loop = asyncio.get_running_loop()
        next_look: list[asyncio.TimerHandle] = []
        async with asyncio.timeout(None) as waiting:

            def look() -> None:
                if connection.has_left():
                    waiting.reschedule(loop.time())
                else:
                    next_look[:] = [loop.call_later(LOOK, look)]

            look()
            try:
                return await pool.connect(self._wait())
            finally:
                for handle in next_look:
                    handle.cancel()

    async def _carry(self, connection: Connection, stream: Duplex) -> None:
        counted = _Counted(connection, self)
        self.note(await splice(counted, stream))

    async def _serve_socks(self, connection: Connection) -> None:
        self._open += 1
        buffered = Buffered(connection)
        try:
            try:
                async with asyncio.timeout(SOCKS_TIMEOUT):
                    host, port = await accept(buffered)
            except (SocksError, TimeoutError, OSError) as error:
                log.info("forward %s: %s", self.id, error)
                await connection.close()
                return
            here = host in ("localhost", "127.0.0.1", "::1")
            pool = self._pools(PortTarget(self.box, port, None if here else host))
            try:
                stream = await self._connect(pool, buffered)
            except DevboxError as error:
                self.note(error)
                await buffered.write(reply(REFUSED if isinstance(error, ConnectionRefused) else FAILED))
                await connection.close()
                return
            # The far end never says that it has connected, only that it could not.
            await buffered.write(reply(OK))
            self.note(await splice(_Counted(buffered, self), stream))
        except asyncio.CancelledError:
            connection.reset()
            raise
        except OSError as error:  # TimeoutError is one, too
            log.info("forward %s: the local client left: %s", self.id, error)
            connection.reset()
        finally:
            self._open -= 1

    def count(self, up: int, down: int) -> None:
        """Bytes that passed."""
        self._up += up
        self._down += down


class _Counted:
    """Counts what passes a connection."""

    def __init__(self, connection: Connection, forward: Forward) -> None:
        self._connection = connection
        self._forward = forward

    async def read(self, limit: int) -> bytes:
        data = await self._connection.read(limit)
        self._forward.count(len(data), 0)
        return data

    async def write(self, data: bytes) -> None:
        await self._connection.write(data)
        self._forward.count(0, len(data))

    async def close(self) -> None:
        await self._connection.close()

    def reset(self) -> None:
        self._connection.reset()

    def has_left(self) -> bool:
        return self._connection.has_left()


class AutoForward:
    """Mirrors what the user's programs on a box listen on, on the same ports here where they are free."""

    def __init__(self, shared: Shared, pools: Pools, run: Run, box: BoxRef, *, id_: str, wait: Wait) -> None:
        self.id = id_
        self.box = box
        self.forwards: dict[int, Forward] = {}
        self.error: str | None = None
        self._shared = shared
        self._pools = pools
        self._run = run
        self._wait = wait
        self._tasks = Supervisor(f"auto forward {id_}")
        self._report = ""  # the latest of the box; what it replaces does not matter any more
        self._reported = asyncio.Event()

    async def start(self) -> None:
        """Watch from now on."""
        self._tasks.spawn("watch", self._watch())
        self._tasks.spawn("mirror", self._act_on_reports())

    async def stop(self) -> None:
        """Stop watching and take all mirrors away."""
        await self._tasks.stop()
        await asyncio.gather(*(forward.stop() for forward in self.forwards.values()))
        self.forwards.clear()

    def facts(self) -> Facts:
        """The watcher itself; its mirrors are forwards of their own."""
        state = ForwardState.FAILED if self.error else ForwardState.LISTENING
        return Facts(
            self.id, self.box.name, state, "-", "auto", 0, 0, 0, 0, 0, self.error, True, self.box.target
        )

    async def _watch(self) -> None:
        delays = backoff(self._shared.time.dice, first=1.0)
        while True:
            began = self._shared.time.monotonic()
            lines = _Reports(self._note)
            leaving = await self._run(
                ExecSpec(
                    box=self.box,
                    argv=["sh", "-c", squeeze(load("listening.sh", common=False))],
                    stdin=False,
                    wait=None,
                ),
                lines,
            )
            self.error = (
                leaving.error.message if leaving.error is not None else "the watcher on the box ended"
            )
            if self._shared.time.monotonic() - began > 60:
                delays = backoff(self._shared.time.dice, first=1.0)
            await self._shared.bells.network.wait(next(delays))

    def _note(self, line: str) -> None:
        self._report = line
        self._reported.set()

    async def _act_on_reports(self) -> None:
        """A box that reports a thousand changes a second gets one of them."""
        while True:
            await self._reported.wait()
            self._reported.clear()
            self._listening(self._report)
            await asyncio.sleep(AUTO_PAUSE)

    def _listening(self, line: str) -> None:
        """One report of the box. Untrusted: anything odd is ignored."""
        match = _LINE.match(line)
        if match is None:
            return
        self.error = None
        base = 16 if match[1] == "hex" else 10
        ports = {port for text in match[2].split() if 0 < (port := int(text, base)) < 65536}
        # A mirror that had to take another number listens, too; where the box is this machine, it is seen.
        own = {f.listener.port for at, f in self.forwards.items() if f.listener and f.listener.port != at}
        added, dropped = mirrored(ports - own, set(self.forwards))
        for port in dropped:
            forward = self.forwards.pop(port)
            self._shared.news.tell(
                "forward.removed", f"{forward.local}: port {port} is closed on the box", box=self.box.name
            )
            self._tasks.spawn(f"drop {port}", forward.stop())
        for port in sorted(added)[: AUTO_LIMIT - len(self.forwards)]:
            forward = Forward(
                self._shared,
                self._pools,
                self.box,
                Spec(port=port, strict=False),
                id_=f"{self.id}.{port}",
                wait=self._wait,
                auto=True,
            )
            self.forwards[port] = forward
            self._tasks.spawn(f"mirror {port}", self._mirror(port, forward))

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
            self._shared.news.tell(
                "forward.added", f"{forward.local} is port {port} of the box", box=self.box.name, port=port
            )


class _Reports(Audience):
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


class Forwards:
    """All forwards of the daemon."""

    def __init__(
        self,
        shared: Shared,
        pools: Pools,
        run: Run,
        memory: Memory,
        *,
        wait: Wait = lambda: 30.0,
        store: ListenerStore | None = None,
    ) -> None:
        self._shared = shared
        self._pools = pools
        self._run = run
        self._memory = memory
        self._listeners = store or ListenerStore()
        self._wait = wait
        self._all: dict[str, Forward | AutoForward] = {}
        self._ephemeral: dict[str, set[object]] = {}  # by id: who holds it
        self._one_removed = Bell()

    async def add(
        self, box: BoxRef, specs: list[Spec], *, auto: bool, ephemeral: bool, holder: object = None
    ) -> list[Facts]:
        """Add forwards: all or none. One that stands already, with the same ends, is returned as it is.

        Args:
            ephemeral: not kept in the journal, and removed when the last ``holder`` was released. Asked for
                again without this, it becomes one that is kept.

        Raises:
            PortInUse, PortDenied, BadRequest: and then nothing was added.
        """
        made: list[Forward | AutoForward] = []
        found: list[Forward | AutoForward] = []
        try:
            for spec in specs:
                if (same := self._same(box, spec)) is not None:
                    found.append(same)
                    continue
                forward = Forward(self._shared, self._pools, box, spec, id_=self._new_id(), wait=self._wait)
                await forward.start()
                made.append(forward)
                found.append(forward)
            if auto:
                watcher = next(
                    (f for f in self._all.values() if isinstance(f, AutoForward) and f.box == box), None
                )
                if watcher is None:
                    watcher = AutoForward(
                        self._shared, self._pools, self._run, box, id_=self._new_id(), wait=self._wait
                    )
                    await watcher.start()
                    made.append(watcher)
                found.append(watcher)
        except BaseException:
            await asyncio.gather(*(forward.stop() for forward in made))
            raise
        for new in made:
            self._all[new.id] = new
            if isinstance(new, Forward) and not ephemeral:
                self._keep(new)
            if ephemeral:
                self._ephemeral[new.id] = set()
            else:
                self._remember(new)
            facts = new.facts()
            self._shared.news.tell(
                "forward.added", f"{facts.local} -> {box.name}:{facts.remote}", box=box.name, id=new.id
            )
        for one in found:
            if ephemeral and holder is not None and one.id in self._ephemeral:
                self._ephemeral[one.id].add(holder)
            elif not ephemeral and self._ephemeral.pop(one.id, None) is not None:
                self._remember(one)
                if isinstance(one, Forward):
                    self._keep(one)
        return [forward.facts() for forward in found]

    async def release(self, holder: object) -> None:
        """Whoever asked for ephemeral forwards is gone: remove those that nobody else holds."""
        for id_, holders in list(self._ephemeral.items()):
            if holder in holders:
                holders.discard(holder)
                if not holders:
                    await self.remove(id_)

    async def removed(self, ids: Collection[str]) -> None:
        """Wait until none of these is left."""
        while any(id_ in self._all for id_ in ids):
            await self._one_removed.wait(None)

    async def restore(self) -> None:
        """Take up what an earlier daemon had; what cannot be becomes a condition, and is kept.

        All of it is listed at once. An address that has to be looked up may take longer than ``RESTORE_WAIT``:
        then the rest of the daemon goes on without it.
        """
        for lost in self._memory.unusable:
            self._shared.news.raise_condition("forward-set-aside", lost.id, id=lost.id, problem=lost.why)
        for saved in self._memory.forwards:
            self._all[saved.id] = self._made(saved)
        binding = [
            self._shared.tasks.spawn(f"forward {forward.id}", self._take_up(forward))
            for forward in self._all.values()
        ]
        if binding:
            await asyncio.wait(binding, timeout=RESTORE_WAIT)
        self._listeners.drop_rest()

    def _made(self, saved: Saved) -> Forward | AutoForward:
        shared, pools, wait = self._shared, self._pools, self._wait
        if saved.spec is None:
            return AutoForward(shared, pools, self._run, saved.box, id_=saved.id, wait=wait)
        return Forward(shared, pools, saved.box, saved.spec, id_=saved.id, wait=wait)

    async def _take_up(self, forward: Forward | AutoForward) -> None:
        if isinstance(forward, AutoForward):
            await forward.start()
        elif not await self._start_again(forward, self._listeners.take(f"forward-{forward.id}")):
            self._shared.tasks.spawn(f"forward {forward.id} again", self._retry(forward))

    async def _start_again(self, forward: Forward, kept: Listener | None = None) -> bool:
        try:
            await forward.start(kept)
        except DevboxError as error:
            forward.error = error.message
            self._shared.news.raise_condition(
                "forward-failed",
                forward.id,
                problem=error.message,
                hint=error.hint or f"devboxctl forward rm {forward.id}",
            )
            return False
        if not forward.is_removed:
            forward.error = None
            self._keep(forward)
            self._remember(forward)  # the port may be another one now
            self._shared.news.clear_condition("forward-failed", forward.id)
        return True

    async def _retry(self, forward: Forward) -> None:
        """An address may come with the network, and another program may give the port back."""
        while True:
            await self._shared.bells.network.wait(RETRY_EVERY)
            if forward.is_removed or await self._start_again(forward):
                return

    async def remove(self, id_: str) -> Facts | None:
        """Remove one forward; None when there is none of that id (or unique start of it)."""
        for lost in self._memory.unusable:
            if lost.id == id_:
                self._memory.drop_forward(id_)
                self._shared.news.clear_condition("forward-set-aside", id_)
                return msgspec.structs.replace(_facts_of(lost), state=ForwardState.REMOVED)
        matches = [known for known in self._all if known == id_] or [
            known for known in self._all if known.startswith(id_)
        ]
        if len(matches) != 1:
            return None
        forward = self._all.pop(matches[0])
        self._ephemeral.pop(forward.id, None)
        self._one_removed.ring()
        self._memory.drop_forward(forward.id)
        self._listeners.drop(f"forward-{forward.id}")
        self._shared.news.clear_condition("forward-failed", forward.id)
        await forward.stop()
        facts = forward.facts()
        self._shared.news.tell(
            "forward.removed", f"{facts.local} -> {facts.box}:{facts.remote}", box=facts.box, id=facts.id
        )
        return facts

    def list(self) -> list[Facts]:
        """All forwards, the mirrors of auto forwards behind their watcher."""
        facts: list[Facts] = []
        for forward in self._all.values():
            facts.append(forward.facts())
            if isinstance(forward, AutoForward):
                facts += [mirror.facts() for _, mirror in sorted(forward.forwards.items())]
        return facts + [_facts_of(lost) for lost in self._memory.unusable]

    async def stop(self) -> None:
        """Close all, and forget none: the journal keeps them for the next daemon."""
        await asyncio.gather(*(forward.stop() for forward in self._all.values()))

    def _same(self, box: BoxRef, spec: Spec) -> Forward | None:
        for forward in self._all.values():
            if (
                isinstance(forward, Forward)
                and forward.box.target == box.target
                and forward.spec == spec
                and spec.local_port != 0
            ):
                return forward
        return None

    def _keep(self, forward: Forward) -> None:
        # A unix socket's file goes when its listener is closed, and nobody could reach it by then.
        if forward.listener is not None and forward.listener.path is None:
            self._listeners.keep(f"forward-{forward.id}", forward.listener)

    def _new_id(self) -> str:
        while (new := secrets.token_hex(3)) in self._all:
            pass
        return new

    def _remember(self, forward: Forward | AutoForward) -> None:
        spec = forward.saved if isinstance(forward, Forward) else None
        self._memory.keep_forward(Saved(forward.id, forward.box, spec))


def _facts_of(lost: Unusable) -> Facts:
    """A forward that cannot be, as far as its entry makes sense."""
    entry = lost.entry if isinstance(lost.entry, dict) else {}
    box, spec = entry.get("box"), entry.get("spec")
    name = printable(str(box.get("name", "?")) if isinstance(box, dict) else "?")
    remote = printable(str(spec.get("port", "?")) if isinstance(spec, dict) else "?")
    return Facts(lost.id, name, ForwardState.FAILED, "?", remote, 0, 0, 0, 0, 0, lost.why, False)

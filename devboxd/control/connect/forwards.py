"""All forwards of the daemon: asked for, held by clients, kept in the memory and made again by the next daemon."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Collection, Iterator, Sequence
from typing import Final

import msgspec

from devboxd.control.base.bells import Bell
from devboxd.control.base.memory import Memory
from devboxd.control.base.needs import Listener, Listeners
from devboxd.control.base.shared import Shared
from devboxd.control.connect.auto import AutoForward, Changes, Run
from devboxd.control.connect.forward import Forward, Pools, Wait
from devboxd.control.connect.local import LocalListeners
from devboxd.control.connect.reverse import Listening, ReverseForward
from devboxd.errors import DevboxError, PortInUse, WrongState
from devboxd.model.box import BoxRef
from devboxd.model.forward import Facts, ForwardState, Saved, Spec, overlap, wanted_port
from devboxd.model.memory import facts_of

RESTORE_WAIT: Final = 3.0  # seconds that the start of the daemon waits for the forwards of an earlier one
RETRY_EVERY: Final = 30.0  # seconds between two tries to bind a forward that an earlier daemon had


class Forwards:
    """All forwards of the daemon."""

    def __init__(
        self,
        shared: Shared,
        pools: Pools,
        listeners: Listeners,
        run: Run,
        memory: Memory,
        *,
        wait: Wait,
        changes: Changes | None = None,
        listening: Listening | None = None,
    ) -> None:
        """Make it. ``changes``: as ``AutoForward``; ``listening``: as ``ReverseForward``."""
        self._shared = shared
        self._pools = pools
        self._run = run
        self._memory = memory
        self._listeners = listeners
        self._wait = wait
        self._changes = changes
        self._listening = listening
        self._all: dict[str, Forward | AutoForward] = {}
        self._ephemeral: dict[str, set[object]] = {}  # by id: who holds it
        self._one_removed = Bell()
        self._local = LocalListeners(shared.time, listeners, memory, self._ports)

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
                forward = await self._started(box, spec)
                made.append(forward)
                found.append(forward)
            if auto:
                watcher = next(
                    (f for f in self._all.values() if isinstance(f, AutoForward) and f.box == box), None
                )
                if watcher is None:
                    watcher = self._watcher(Saved(self._new_id(), box, None))
                    await watcher.start()
                    made.append(watcher)
                found.append(watcher)
        except BaseException:
            await asyncio.gather(*(forward.stop() for forward in made))
            raise
        for new in made:
            self._all[new.id] = new
            if ephemeral:
                self._ephemeral[new.id] = set()
            else:
                self._make_lasting(new)
            self._shared.news.tell("forward.added", new.facts().ends, box=box.name, id=new.id)
        for one in found:
            if ephemeral and holder is not None and one.id in self._ephemeral:
                self._ephemeral[one.id].add(holder)
            elif not ephemeral and self._ephemeral.pop(one.id, None) is not None:
                self._make_lasting(one)
        return [forward.facts() for forward in found]

    async def _started(self, box: BoxRef, spec: Spec) -> Forward:
        """A new forward that listens. Raises PortInUse, which says so where it is one of ours that has the port."""
        forward = self._forward(Saved(self._new_id(), box, spec), spec)
        try:
            await forward.start()
        except PortInUse as error:
            if (other := self._holder(spec)) is None:
                raise
            raise _ours(other) from error
        return forward

    def _make_lasting(self, forward: Forward | AutoForward) -> None:
        """Keep it in the journal, and its local end over a restart."""
        if isinstance(forward, Forward):
            self._keep(forward)
        self._remember(forward)

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
            self._all[saved.id] = (
                self._watcher(saved) if saved.spec is None else self._forward(saved, saved.spec)
            )
        binding = [
            self._shared.tasks.spawn(f"forward {forward.id}", self._take_up(forward))
            for forward in self._all.values()
        ]
        if binding:
            await asyncio.wait(binding, timeout=RESTORE_WAIT)
        self._listeners.drop_rest()

    def _forward(self, saved: Saved, spec: Spec) -> Forward:
        if spec.reverse:
            return ReverseForward(
                self._shared,
                self._pools,
                self._listeners,
                saved.box,
                spec,
                id_=saved.id,
                wait=self._wait,
                listening=self._listening,
            )
        return Forward(
            self._shared, self._pools, self._listeners, saved.box, spec, id_=saved.id, wait=self._wait
        )

    def _watcher(self, saved: Saved) -> AutoForward:
        return AutoForward(
            self._shared,
            self._pools,
            self._listeners,
            self._run,
            self._local,
            saved.box,
            id_=saved.id,
            wait=self._wait,
            changes=self._changes,
        )

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
                return msgspec.structs.replace(facts_of(lost), state=ForwardState.REMOVED)
        matches = [known for known in self._all if known == id_] or [
            known for known in self._all if known.startswith(id_)
        ]
        if len(matches) != 1:
            self._check_mirror(id_)
            return None
        forward = self._all.pop(matches[0])
        self._ephemeral.pop(forward.id, None)
        self._one_removed.ring()
        self._memory.drop_forward(forward.id)
        self._listeners.drop(f"forward-{forward.id}")
        self._shared.news.clear_condition("forward-failed", forward.id)
        await forward.stop()
        facts = forward.facts()
        self._shared.news.tell("forward.removed", facts.ends, box=facts.box, id=facts.id)
        return facts

    def list(self) -> list[Facts]:
        """All forwards, the mirrors of auto forwards behind their watcher."""
        facts: list[Facts] = []
        for forward in self._all.values():
            facts.append(forward.facts())
            if isinstance(forward, AutoForward):
                facts += [mirror.facts() for _, mirror in sorted(forward.forwards.items())]
        return facts + [facts_of(lost) for lost in self._memory.unusable]

    def pause(self) -> bool:
        """Accept nothing more where the local end can be left to another daemon. Whether nothing is being accepted now."""
        is_quiet = True
        for one in self._all.values():
            if isinstance(one, Forward) and one.id not in self._ephemeral:
                is_quiet = one.pause() and is_quiet
        return is_quiet

    def leave_listeners(self) -> dict[str, Sequence[int]]:
        """Leave the local ends of those that are kept to another daemon: descriptors, by the names they are taken by."""
        found = {
            f"forward-{one.id}": one.leave_listener()
            for one in self._all.values()
            if isinstance(one, Forward) and one.id not in self._ephemeral
        }
        return {name: descriptors for name, descriptors in found.items() if descriptors}

    def of(self, id_: str) -> Forward | None:
        """The forward of this id."""
        found = self._all.get(id_)
        return found if isinstance(found, Forward) else None

    async def stop(self) -> None:
        """Close all, and forget none: the journal keeps them for the next daemon."""
        await asyncio.gather(*(forward.stop() for forward in self._all.values()))

    def _holder(self, spec: Spec) -> Forward | None:
        """Which forward of ours has the local end that is asked for."""
        wanted = (spec.local_path, None) if spec.local_path is not None else (None, wanted_port(spec))
        for forward in self._standing():
            listener = forward.listener
            if listener is None:
                continue
            has = (str(listener.path), None) if listener.path is not None else (None, listener.port)
            if wanted == has and (spec.local_path is not None or overlap(spec.bind, forward.spec.bind)):
                return forward
        return None

    def _standing(self) -> Iterator[Forward]:
        """Every forward that listens, mirrors too."""
        for one in self._all.values():
            if isinstance(one, AutoForward):
                yield from one.forwards.values()
            else:
                yield one

    def _ports(self) -> dict[int, str]:
        """The local TCP ports that are ours, and who has each."""
        return {
            port: f"the forward to {one.box.name}:{one.spec.remote} has {port}"
            for one in self._standing()
            if one.listener is not None and not one.is_removed and (port := one.listener.port) is not None
        }

    def _check_mirror(self, id_: str) -> None:
        """A mirror goes with what it mirrors, or with all others. Raises WrongState if this is one."""
        for watcher in self._all.values():
            for mirror in watcher.forwards.values() if isinstance(watcher, AutoForward) else ():
                if mirror.id == id_:
                    raise WrongState(
                        f"{mirror.local} mirrors what listens on {mirror.box.name}",
                        hint=f"all mirrors of that box end with: devboxctl forward rm {watcher.id}",
                    )

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


def _ours(forward: Forward) -> PortInUse:
    """The error for a local end that one of our own forwards has."""
    hint = f"devboxctl forward rm {forward.id}, or choose another local end (0 for any free port)"
    if forward.auto:
        hint = "choose another local end (0 for any free port)"
    return PortInUse(
        f"{forward.local} is the local end of a forward already: {forward.box.name}:{forward.spec.remote}",
        hint=hint,
    )

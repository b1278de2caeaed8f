"""Faults by name, as tests, ``make demo`` and the control route ask for them. One method, one fault."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from types import NoneType
from typing import Any, Final, Protocol, get_args, get_type_hints

from devboxd.simulator.clock import Clock
from devboxd.simulator.ec2.errors import Ec2Error
from devboxd.simulator.ec2.faults import KINDS, Fault
from devboxd.simulator.ec2.records import InstanceState
from devboxd.simulator.faults import Direction, Faults, Refusal
from devboxd.simulator.gateway.gateway import IDLE_TEXT, Gateway
from devboxd.simulator.gateway.session import Session
from devboxd.simulator.imds import Imds, Said
from devboxd.simulator.machines import Machines


class World(Protocol):
    """What faults need of the simulator."""

    faults: Faults
    gateway: Gateway
    machines: Machines
    imds: Imds
    clock: Clock

    def notice(self, box_id: str, seconds: float) -> None: ...

    def box_id(self, name: str) -> str: ...

    async def power_cycle(self, box_id: str, *, silent: bool) -> None: ...


_ERROR_CODE: Final = re.compile(r"[A-Za-z0-9._]{1,100}")  # it travels in a header
_STANDING: Final = (
    InstanceState.PENDING, InstanceState.RUNNING, InstanceState.STOPPING, InstanceState.STOPPED,
)  # fmt: skip
_CLOSE_REASON: Final = 123  # bytes: what a websocket's close frame holds (RFC 6455, 5.5)


class BadFault(Exception):
    """No such fault, or parameters it does not take."""


class Chaos:
    """Applies faults. Every method returns how many sessions (boxes, rules) it touched.

    ``session``: an id, ``last``, or None for all that are not over; ``box`` narrows that to one box.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.names: Mapping[str, Callable[..., Awaitable[int]]] = {
            name.removeprefix("do_").replace("_", "-"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }

    async def apply(self, fault: str, **parameters: Any) -> int:
        """Inject one fault by its name.

        Raises:
            BadFault: unknown name or parameter, or a value of the wrong kind.
        """
        method = self.names.get(fault)
        if method is None:
            raise BadFault(f"no fault is named {fault!r}; there are: {', '.join(sorted(self.names))}")
        try:
            inspect.signature(method).bind(**parameters)
            hints = get_type_hints(method)
            values = {name: _checked(name, value, hints[name]) for name, value in parameters.items()}
            return await method(**values)
        except KeyError as error:
            raise BadFault(f"{fault}: {error.args[0]}") from error
        except (TypeError, ValueError, Ec2Error) as error:
            raise BadFault(f"{fault}: {error}") from error

    @classmethod
    def catalogue(cls) -> dict[str, str]:
        """Every fault's name and what it does, in a line."""
        return {
            name.removeprefix("do_").replace("_", "-"): (getattr(cls, name).__doc__ or "").splitlines()[0]
            for name in sorted(vars(cls))
            if name.startswith("do_")
        }

    # -- the client's socket -------------------------------------------------------------------------

    async def do_rst(self, session: str | None = None, box: str | None = None) -> int:
        """Reset the client's socket (TCP RST)."""
        return self._cut("rst", session, box)

    async def do_fin(self, session: str | None = None, box: str | None = None) -> int:
        """Close the client's socket without a websocket close (TCP FIN)."""
        return self._cut("fin", session, box)

    async def do_close(
        self, code: int = 1000, text: str = "Bye", session: str | None = None, box: str | None = None
    ) -> int:
        """Close the client's websocket with a code; 1000 "Bye" is the service's hourly routine."""
        if not 1000 <= code <= 4999:
            raise ValueError("code must be in 1000..4999")
        if len(text.encode()) > _CLOSE_REASON:
            raise ValueError(f"text must have at most {_CLOSE_REASON} bytes")
        return self._cut(f"{code} {text}", session, box)

    async def do_blackhole(self, seconds: float, session: str | None = None) -> int:
        """Deliver nothing in either direction, sockets stay open; without a session the APIs, too."""
        chosen = self._sessions(session, None) if session else []
        for one in chosen:
            self._world.faults.open_hole(one.id, seconds)
        if not session:
            self._world.faults.open_hole(None, seconds)
        return len(chosen) or 1

    async def do_wire(
        self,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        delay: float = 0.0,
        direction: str = "both",
        session: str | None = None,
    ) -> int:
        """Lose, repeat, reorder (shares 0..1) or delay (seconds) frames; all zero: cleanly again."""
        directions: dict[str, tuple[Direction, ...]] = {
            "both": ("up", "down"),
            "up": ("up",),
            "down": ("down",),
        }
        if direction not in directions:
            raise ValueError(f"direction must be one of: {', '.join(directions)}")
        if max(drop, duplicate, reorder) > 1:
            raise ValueError("drop, duplicate and reorder are shares from 0 to 1")
        chosen = [one.id for one in self._sessions(session, None)] if session else [None]
        for one in chosen:
            for way in directions[direction]:
                self._world.faults.set_wire(
                    one, way,
                    drop=drop, duplicate=duplicate, reorder=reorder, delay=delay,
                )  # fmt: skip
        return len(chosen)

    async def do_mute(self, session: str | None = None) -> int:
        """The far end is dead and the gateway lives: every frame is lost, pings are answered."""
        return await self.do_wire(drop=1.0, session=session)

    # -- the session ---------------------------------------------------------------------------------

    async def do_terminate(self, text: str = "", session: str | None = None, box: str | None = None) -> int:
        """End the session as a third party's TerminateSession does; ``text`` travels in channel_closed."""
        chosen = self._sessions(session, box)
        for one in chosen:
            await self._world.gateway.terminate(one, text)
        return len(chosen)

    async def do_idle(self, session: str | None = None, box: str | None = None) -> int:
        """End the session as the service does for inactivity."""
        return await self.do_terminate(IDLE_TEXT, session, box)

    async def do_end_silently(self, session: str | None = None, box: str | None = None) -> int:
        """The session is over without channel_closed; ResumeSession answers without a token."""
        chosen = self._sessions(session, box)
        for one in chosen:
            self._world.gateway.end_silently(one)
        return len(chosen)

    async def do_forget(self, session: str | None = None, box: str | None = None) -> int:
        """The service forgets the session; ResumeSession answers DoesNotExistException."""
        chosen = self._sessions(session, box)
        for one in chosen:
            self._world.gateway.forget(one)
        return len(chosen)

    # -- the APIs ------------------------------------------------------------------------------------

    async def do_refuse(
        self,
        call: str,
        code: str = "InternalServerError",
        status: int = 400,
        times: int | None = None,
        seconds: float | None = None,
        text: str = "",
    ) -> int:
        """Refuse an API call by name (``*``: all, ``dial``: the upgrade), some times or for some seconds."""
        if not 400 <= status <= 599:
            raise ValueError("status must be in 400..599")
        if not _ERROR_CODE.fullmatch(code):
            raise ValueError("code must be an error code: letters, digits, dots")
        until = float("inf") if seconds is None else self._world.faults.clock() + seconds
        self._world.faults.refuse(call, Refusal(code, status, until, times, text))
        return 1

    async def do_refuse_resume(
        self,
        code: str = "InternalServerError",
        status: int = 500,
        times: int | None = None,
        seconds: float | None = None,
    ) -> int:
        """Refuse ResumeSession."""
        return await self.do_refuse("ResumeSession", code, status, times, seconds)

    async def do_refuse_start(
        self,
        code: str = "TargetNotConnected",
        status: int = 400,
        times: int | None = 1,
        seconds: float | None = None,
    ) -> int:
        """Refuse StartSession."""
        return await self.do_refuse("StartSession", code, status, times, seconds)

    async def do_refuse_dial(
        self, status: int = 403, times: int | None = None, seconds: float | None = None
    ) -> int:
        """Refuse websocket upgrades."""
        return await self.do_refuse("dial", "Forbidden", status, times, seconds)

    async def do_expire_credentials(self, seconds: float | None = None) -> int:
        """Every API call and upgrade fails with ExpiredTokenException."""
        text = "The security token included in the request is expired"
        return await self.do_refuse("*", "ExpiredTokenException", 403, None, seconds, text)

    async def do_throttle(
        self, call: str = "*", times: int | None = None, seconds: float | None = None
    ) -> int:
        """Refuse calls with ThrottlingException."""
        return await self.do_refuse(call, "ThrottlingException", 400, times, seconds, "Rate exceeded")

    # -- the box -------------------------------------------------------------------------------------

    async def do_agent_cut(
        self, seconds: float = 0.0, session: str | None = None, box: str | None = None
    ) -> int:
        """Cut the agent's socket; it comes back, at the earliest after ``seconds``. Over about 6: never."""
        chosen = self._sessions(session, box)
        for one in chosen:
            await self._world.gateway.cut_agent(one, seconds)
        return len(chosen)

    async def do_agent_restart(self, seconds: float = 2.0, drops: int = 0, box: str | None = None) -> int:
        """The agent restarts: no new sessions (TargetNotConnected), open ones go on; the first `drops` new ones get lost."""
        boxes = self._boxes(box)
        for one in boxes:
            self._world.machines.keep_away(one, seconds)
            self._world.machines.agents[one].drops = drops
        return len(boxes)

    async def do_reboot(self, silent: bool = False, box: str | None = None) -> int:
        """The running box reboots: its sessions end; ``silent``: nobody tells the client."""
        boxes = self._boxes(box, InstanceState.RUNNING)
        await self._console("RebootInstances", boxes, silent=silent)
        return len(boxes)

    async def do_box_stop(self, box: str | None = None) -> int:
        """Somebody stops the box from the console."""
        return await self._console("StopInstances", self._boxes(box, InstanceState.RUNNING))

    async def do_box_start(self, box: str | None = None) -> int:
        """Somebody starts the box from the console."""
        return await self._console("StartInstances", self._boxes(box, InstanceState.STOPPED))

    async def do_box_terminate(self, box: str | None = None) -> int:
        """Somebody terminates the box from the console; protection is lifted first."""
        boxes = self._boxes(box, *_STANDING)
        for one in boxes:
            if self._world.machines.state(one) in _STANDING:
                await self._world.machines.console(
                    "ModifyInstanceAttribute", InstanceId=one, DisableApiTermination={"Value": False}
                )
        return await self._console("TerminateInstances", boxes)

    async def do_box_poweroff(self, box: str | None = None) -> int:
        """``poweroff`` on the box itself: it stops, or is terminated if it was launched so."""
        return await self._happen("power_off", box)

    async def do_box_interrupt(self, box: str | None = None) -> int:
        """EC2 takes a spot box back."""
        return await self._happen("interrupt_spot", box)

    async def do_box_notice(self, seconds: float = 120.0, box: str | None = None) -> int:
        """EC2 gives a spot box notice, and takes it back after so many seconds; ``clear`` withdraws it."""
        boxes = self._spot_boxes(box)
        for one in boxes:
            self._world.notice(one, seconds)
        return len(boxes)

    async def do_box_rebalance(self, box: str | None = None) -> int:
        """EC2 tells a spot box that it is likelier than before to be taken back."""
        boxes = self._spot_boxes(box)
        for one in boxes:
            self._world.imds.said.setdefault(one, Said()).likelier = self._world.clock.wall()
        return len(boxes)

    async def do_box_lose_host(self, box: str | None = None) -> int:
        """The hardware under the box dies: stopped, and what was only in memory is lost."""
        return await self._happen("lose_host", box)

    # -- EC2 -----------------------------------------------------------------------------------------

    async def do_ec2(
        self,
        kind: str,
        operation: str = "*",
        what: str = "*",
        code: str = "InternalError",
        share: float = 1.0,
        times: int | None = None,
        seconds: float = 10.0,
        depth: int = 3,
        region: str | None = None,
    ) -> int:
        """Break EC2: ``kind`` is one of the model's faults, such as lose-answer, stale, image-fails."""
        if kind not in KINDS:
            raise ValueError(f"kind must be one of: {', '.join(KINDS)}")
        if not _ERROR_CODE.fullmatch(code):
            raise ValueError("code must be an error code: letters, digits, dots")
        if share > 1 or depth < 1:
            raise ValueError("share is from 0 to 1, depth from 1 on")
        models = [self._world.machines.region(region)] if region else self._world.machines.regions.values()
        for model in models:
            model.faults.add(
                Fault(
                    kind,
                    operation,
                    what=what,
                    code=code,
                    share=share,
                    times=times,
                    seconds=seconds,
                    depth=depth,
                )
            )
        return len(models)

    async def do_clear(self) -> int:
        """No faults any more; what was cut stays cut."""
        self._world.faults.clear()
        self._world.imds.said.clear()
        for model in self._world.machines.regions.values():
            model.faults.clear()
        return 1

    # -- choosing ------------------------------------------------------------------------------------

    def _cut(self, how: str, session: str | None, box: str | None) -> int:
        return sum(self._world.gateway.cut(one, how) for one in self._sessions(session, box))

    def _sessions(self, session: str | None, box: str | None) -> list[Session]:
        live = [one for one in self._world.gateway.sessions.values() if not one.is_over]
        if box is not None:
            box_id = self._world.box_id(box)
            live = [one for one in live if one.target == box_id]
        if session is None:
            return live
        return live[-1:] if session == "last" else [one for one in live if one.id == session]

    def _boxes(self, box: str | None, *states: InstanceState) -> list[str]:
        """The one named, in whatever state; without a name all, but for those in no state of ``states``."""
        if box is not None:
            return [self._world.box_id(box)]
        machines = self._world.machines
        return [one for one in machines.agents if not states or machines.state(one) in states]

    def _spot_boxes(self, box: str | None) -> list[str]:
        """The one named, or all spot boxes that run."""
        machines = self._world.machines
        found = self._boxes(box, InstanceState.RUNNING)
        spot = [
            one for one in found if (known := machines.instance(one)) is not None and known.spot is not None
        ]
        if box is not None and not spot:
            raise ValueError(f"{box} is no spot instance")
        return spot

    async def _console(self, operation: str, boxes: list[str], *, silent: bool = False) -> int:
        """A call by the user in the console; returns how many boxes it changed."""
        if not boxes:
            return 0
        with self._world.machines.silence(boxes if silent else ()):
            answer = await self._world.machines.console(operation, InstanceIds=boxes)
        changes: list[dict[str, Any]] = next(iter(answer.values()), [])
        return sum(one["PreviousState"] != one["CurrentState"] for one in changes)

    async def _happen(self, what: str, box: str | None) -> int:
        boxes = self._boxes(box, InstanceState.RUNNING)
        for one in boxes:
            await self._world.machines.happen(what, one)
        return len(boxes)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """A parameter as its annotation wants it; numbers are finite and not negative.

    Raises:
        ValueError: it is of another kind.
    """
    kinds = get_args(hint) or (hint,)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number from 0 on")
    if (value is None and NoneType in kinds) or (isinstance(value, bool) and bool in kinds):
        return value
    if is_number and float in kinds:
        return float(value)
    if is_number and int in kinds and value == int(value):
        return int(value)
    if str in kinds and (isinstance(value, str) or is_number):
        return str(value)  # a box may be named 7
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    raise ValueError(f"{name} must be {words[next(kind for kind in kinds if kind is not NoneType)]}")

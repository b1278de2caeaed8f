"""Find out what is wrong, in the order in which things depend on each other; say how to mend it."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from devboxd.control.connect.audience import Capture
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.daemon import Daemon
from devboxd.errors import Denied, DevboxError
from devboxd.model.box import Account, BoxRef
from devboxd.model.identity import principal
from devboxd.model.login import Method
from devboxd.model.states import BridgeUse, Connection, Result, Severity

LOOK_TIMEOUT: Final = 45.0  # seconds for one check
_TOOLS: Final = (
    'for t in zellij tmux python3 ssh-keyscan git; do command -v $t >/dev/null 2>&1 && echo "has $t"; done; '
    'echo "user $(id -un)"; echo "free $(df -Pk "$HOME" | awk \'NR==2 {print $4}\')"'
)


class Finding(msgspec.Struct, frozen=True):
    """What one check found."""

    name: str
    result: Result
    text: str
    hint: str | None = None
    seconds: float | None = None


class Doctor:
    """Checks this machine, the account, and a box."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._clock = daemon.shared.time

    async def machine(self, account: Account) -> list[Finding]:
        """What needs no box: this machine, and the AWS settings that were asked for."""
        findings = [
            Finding(
                "condition",
                Result.FAILED if item.severity is Severity.ERROR else Result.WARNING,
                item.text,
                item.hint,
            )
            for item in self._daemon.shared.news.conditions()
        ]
        ssh = shutil.which("ssh")
        findings.append(
            Finding("ssh", Result.OK, f"OpenSSH's client is {ssh}")
            if ssh
            else Finding(
                "ssh", Result.WARNING, "there is no ssh here", "install OpenSSH to use ssh, scp and rsync"
            )
        )

        async def identity() -> Finding:
            who = await self._daemon.identity(account)
            me = principal(who.arn)
            text = f"you are {me.kind} {me.name} in account {who.number}, {who.region}"
            by = "the environment" if who.source.method is Method.ENVIRONMENT else f"profile {who.profile}"
            return Finding("aws", Result.OK, f"{text}, by {by}")

        async def list_boxes() -> Finding:
            instances, _, old = await self._daemon.boxes.all(account)
            if old is not None:
                text = f"EC2 could not be asked: {old.why.message}; names come from memory"
                return Finding("ec2", Result.WARNING, text, old.why.hint)
            return Finding("ec2", Result.OK, f"EC2 shows {len(instances)} instances")

        findings.append(await self._checked("aws", identity))
        findings.append(await self._checked("ec2", list_boxes, denied_is=Result.WARNING))
        return findings

    async def box(self, box: BoxRef) -> list[Finding]:
        """What one box needs to be reached."""
        findings = await self.machine(box.account)

        async def state() -> Finding:
            instance = await self._daemon.boxes.instance(box)
            if instance is None:
                return Finding(
                    "instance", Result.SKIPPED, f"EC2 does not show {box.target}: that is no obstacle"
                )
            if not instance.is_running:
                hint = f"start the instance {box.target}, in the EC2 console for example"
                return Finding("instance", Result.FAILED, f"{box.name} is {instance.state}", hint)
            return Finding(
                "instance", Result.OK, f"{box.name} is running ({instance.type or 'unknown type'})"
            )

        async def agent() -> Finding:
            status = await self._daemon.boxes.connection(box)
            if status is Connection.NOT_CONNECTED:
                hint = "does the instance profile allow Session Manager, and can the box reach its endpoints?"
                return Finding("agent", Result.FAILED, f"the agent of {box.name} is not connected", hint)
            result = Result.OK if status is Connection.CONNECTED else Result.SKIPPED
            return Finding("agent", result, f"Session Manager says: {status}")

        async def session() -> Finding:
            trips, opened, version = await self._daemon.ping(box, 3, 30.0)
            best = min(trips) * 1000
            way = "a session is open" if opened is None else f"a session opened in {opened:.2f} s"
            text = f"{way}; round trip {best:.0f} ms; agent {version or 'unknown'}"
            return Finding("session", Result.OK, text)

        findings += [
            await self._checked("instance", state),
            await self._checked("agent", agent),
            await self._checked("session", session),
        ]
        if findings[-1].result is Result.OK:
            findings += await self._tools(box)
            findings += self._bridge(box)
        return findings

    def _bridge(self, box: BoxRef) -> list[Finding]:
        """How connections to this box are carried; the command before this has asked for a bridge."""
        if self._daemon.config.bridge.use is BridgeUse.NEVER:
            text = "connections end with their sessions: the configuration says bridge.use = never"
            return [Finding("bridge", Result.SKIPPED, text)]
        found = [one for one in self._daemon.bridges() if one.target == box.target]
        for one in found:
            if one.without is None and one.lanes:
                text = f"connections outlive their sessions; {len(one.lanes)} of those now"
                return [Finding("bridge", Result.OK, text)]
        if not found:
            return []
        why = found[0].without or "it did not come up"
        hint = "without one a connection ends with its session; docs/bridge.md says what it needs"
        return [Finding("bridge", Result.WARNING, f"there is no bridge to {box.name}: {why}", hint)]

    async def _tools(self, box: BoxRef) -> list[Finding]:
        capture = Capture()
        found: list[Finding] = []

        async def look() -> Finding:
            leaving = await self._daemon.execute(
                ExecSpec(box=box, argv=["sh", "-lc", _TOOLS], wait=20.0), capture
            )
            if leaving.error is not None:
                raise leaving.error
            return Finding("command", Result.OK, "commands run")

        found.append(await self._checked("command", look))
        if found[0].result is not Result.OK:
            return found
        words = [line.partition(" ") for line in capture.stdout.decode("utf-8", "replace").splitlines()]
        has = {value for word, _, value in words if word == "has"}
        free = next((value for word, _, value in words if word == "free"), "")
        mux = "zellij" if "zellij" in has else "tmux" if "tmux" in has else None
        found.append(
            Finding("mux", Result.OK, f"{mux} keeps sessions alive")
            if mux
            else Finding(
                "mux",
                Result.FAILED,
                "neither zellij nor tmux is on the box",
                "install zellij: work outlives the link in it",
            )
        )
        if "python3" not in has:
            found.append(
                Finding(
                    "python3",
                    Result.WARNING,
                    "no python3: exec shows output only at the end",
                    "install python3",
                )
            )
        if re.fullmatch(r"[0-9]{1,15}", free) and int(free) < 1 << 20:
            found.append(
                Finding("disk", Result.WARNING, f"{int(free) >> 10} MiB are free in the home folder")
            )
        return found

    async def _checked(
        self, name: str, check: Callable[[], Awaitable[Finding]], *, denied_is: Result = Result.FAILED
    ) -> Finding:
        began = self._clock.monotonic()
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                finding = await check()
        except TimeoutError:
            finding = Finding(name, Result.FAILED, f"no answer within {LOOK_TIMEOUT:g} s")
        except DevboxError as error:
            result = denied_is if isinstance(error, Denied) else Result.FAILED
            finding = Finding(name, result, error.message, error.hint)
        return msgspec.structs.replace(finding, seconds=self._clock.monotonic() - began)

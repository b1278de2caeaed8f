"""Build every object, join policy to the outside, run until told to stop.

This is the one place that knows all parts. Nothing here decides anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
from watchfiles import awatch

from devboxd import __version__
from devboxd.api import wire
from devboxd.api.handlers.context import Context
from devboxd.api.server import build, serving
from devboxd.api.views import failure
from devboxd.aws.clients import Accounts, credential_sources
from devboxd.aws.cloud import AwsCloud
from devboxd.aws.login import Login
from devboxd.control.base.logins import LoginWatch
from devboxd.control.base.shared import Shared
from devboxd.control.base.steady import steadily
from devboxd.control.connect.forward import ListenerStore
from devboxd.control.daemon import Daemon, Memory
from devboxd.control.doctor import Doctor
from devboxd.errors import DevboxError
from devboxd.host.clock import Clock
from devboxd.host.config import ConfigFiles, Loaded
from devboxd.host.files import replace_file
from devboxd.host.journal import Journal
from devboxd.host.logfile import trim
from devboxd.host.notify import notice
from devboxd.host.paths import Paths
from devboxd.host.ssh_config import (
    SshConfigState,
    SshEntry,
    SshFiles,
    ensure_identity,
    render,
    write_known_hosts,
)
from devboxd.host.systemd import Notifier
from devboxd.host.wake import wakeups
from devboxd.model.box import BoxRef
from devboxd.model.config import Config
from devboxd.model.states import LoginState
from devboxd.net.dial import DialSettings
from devboxd.net.link import Dialer
from devboxd.net.listen import Listener, adopt
from devboxd.net.unix import DaemonSocket, inherited_sockets, open_daemon_socket
from devboxd.text import rfc3339

log = logging.getLogger(__name__)

LOGIN_LOOK: Final = 1000  # milliseconds between two looks for a login that somebody made elsewhere
LOG_LOOK: Final = 200  # log records between two looks at the size of the file
NO_DAEMON: Final = 69  # EX_UNAVAILABLE: the exit status of a daemon that could not start


def main() -> int:
    """Run the daemon; returns its exit status."""
    os.umask(0o077)
    environment = os.environ
    inherited = inherited_sockets(environment)
    notifier = Notifier.from_environment(environment)
    paths = Paths.from_environment(environment)
    _set_up_logging("info", paths.log)
    try:
        paths.prepare()
        listening = open_daemon_socket(paths.socket, inherited, state=paths.state)
    except DevboxError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return NO_DAEMON
    try:
        asyncio.run(_run(paths, environment, listening, notifier, _Listeners(notifier, inherited)))
    finally:
        listening.close()
    return 0


async def _run(
    paths: Paths,
    environment: Mapping[str, str],
    listening: DaemonSocket,
    notifier: Notifier,
    listeners: _Listeners,
) -> None:
    clock = Clock()
    shared = Shared.of(clock)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    # A user name or host name is no secret, but it need not be readable in every account's session list.
    journal = Journal(paths.journal)
    memory, owner = _remembered(journal)
    shared.sessions.owner = owner
    saver = _Saver(journal, memory, owner)
    files = ConfigFiles(paths, environment)
    loaded = files.load()
    _set_level(loaded.config)
    accounts = Accounts(clock)
    dialer = Dialer(DialSettings.from_environment(environment))
    keys = LocalKeys(paths, memory, saver.remember)
    daemon = Daemon(
        shared,
        AwsCloud(accounts),
        dialer,
        keys,
        loaded.config,
        memory,
        saver.remember,
        listeners,
    )
    current = _Current(loaded)
    doctor = Doctor(daemon)
    context = Context(
        daemon=daemon,
        socket=str(paths.socket),
        activation=listening.activation,
        started=clock.wall(),
        stop=stopping.set,
        config=current.view,
        ssh_config=keys,
        login=lambda asked: _login(accounts, shared, clock, asked),
        doctor=lambda asked, box: _doctor(doctor, box),
    )
    _config_condition(shared, loaded)
    if journal.problem:
        shared.news.raise_condition("journal-lost", problem=journal.problem)
    watch = LoginWatch(shared, accounts.known, notice)

    async def follow_config() -> None:
        async for new in files.watch():
            current.loaded = new
            _config_condition(shared, new)
            if new.error is None:
                _set_level(new.config)
                daemon.apply(new.config)

    async def follow_logins() -> None:
        while True:
            folders = [folder for folder in credential_sources() if folder.is_dir()]
            if not folders:
                await asyncio.sleep(60.0)
                continue
            async for _ in awatch(*folders, debounce=500, step=LOGIN_LOOK, recursive=False):
                await accounts.refresh()
                shared.bells.logins.ring()
                if [folder for folder in credential_sources() if folder.is_dir()] != folders:
                    break

    async def follow_network() -> None:
        async for wake in wakeups(clock):
            what = f"slept for {wake.slept:.0f} s" if wake.slept else "the network changed"
            shared.news.tell("wake", what, slept=wake.slept)
            dialer.network_changed()
            await accounts.refresh()  # connections that wait for the next call lead nowhere any more
            shared.bells.network.ring()
            shared.bells.logins.ring()  # a login may have ended meanwhile: look

    async def be_alive() -> None:
        interval = notifier.interval
        while interval:
            notifier.alive()
            await asyncio.sleep(interval)

    saving = asyncio.ensure_future(saver.run())
    try:
        async with serving(build(context), listening.socket):
            await daemon.start()
            for name, work in (
                ("configuration", follow_config),
                ("logins", follow_logins),
                ("login expiry", watch.run),
                ("network", follow_network),
                ("watchdog", be_alive),
            ):
                shared.tasks.spawn(name, steadily(shared, name, work))
            notifier.ready(f"serving {paths.socket}")
            log.info("devboxd %s serves %s", __version__, paths.socket)
            await stopping.wait()
            notifier.stopping("ending sessions")
            await daemon.stop()
    finally:
        await saver.finish(saving)
        await dialer.close()
        await accounts.close()


# Configuration ----------------------------------------------------------------------------------------


class _Current:
    """The configuration in force, for ``devboxctl config show``."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    def view(self) -> wire.ConfigView:
        """As clients see it."""
        loaded = self.loaded
        return wire.ConfigView(
            settings=[wire.Setting(item.name, item.value, item.origin) for item in loaded.merged.settings()],
            files=[str(path) for path in loaded.files],
            error=failure(loaded.error) if loaded.error is not None else None,
        )


def _config_condition(shared: Shared, loaded: Loaded) -> None:
    if loaded.error is None:
        shared.news.clear_condition("config-invalid")
    else:
        error = loaded.error
        shared.news.raise_condition("config-invalid", problem=error.message, hint=error.hint)


class _Listeners(ListenerStore):
    """Listeners of forwards in systemd's descriptor store: a restart refuses no connection."""

    def __init__(self, notifier: Notifier, inherited: dict[str, list[socket.socket]]) -> None:
        self._notifier = notifier
        self._inherited = inherited

    def take(self, name: str) -> Listener | None:
        sockets = self._inherited.pop(name, [])
        return adopt(*sockets) if sockets else None

    def keep(self, name: str, listener: Listener) -> None:
        self._notifier.unstore(name)  # a name holds as many as were ever stored under it
        self._notifier.store(name, [one.fileno() for one in listener.sockets])

    def drop(self, name: str) -> None:
        self._notifier.unstore(name)

    def drop_rest(self) -> None:
        for name in [name for name in self._inherited if name.startswith("forward-")]:
            for one in self._inherited.pop(name):
                one.close()
            self._notifier.unstore(name)


# Memory -----------------------------------------------------------------------------------------------


def _remembered(journal: Journal) -> tuple[Memory, str]:
    """What the last daemon left, and the name that marks our sessions at AWS."""
    state = journal.read()
    owner = state.get("owner")
    if not isinstance(owner, str) or not owner:
        owner = f"{getpass.getuser()}@{socket.gethostname()}"[:60] + f"/{secrets.token_hex(4)}"
    try:
        memory = msgspec.convert(state.get("memory", {}), Memory, str_keys=True)
    except msgspec.ValidationError as error:
        journal.problem = f"the journal is of another version and was not used ({error})"
        memory = Memory()
    return memory, owner


class _Saver:
    """Writes the journal soon after each change; many changes at once are one write."""

    def __init__(self, journal: Journal, memory: Memory, owner: str) -> None:
        self._journal = journal
        self._memory = memory
        self._owner = owner
        self._changed = asyncio.Event()

    def remember(self, memory: Memory) -> None:
        """Something in the memory changed."""
        self._changed.set()

    async def run(self) -> None:
        """Write whenever something changed."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._save()

    async def finish(self, running: asyncio.Future[None]) -> None:
        """Write what is left."""
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        await self._save()

    async def _save(self) -> None:
        state = {"owner": self._owner, "memory": msgspec.to_builtins(self._memory, str_keys=True)}
        try:
            await self._journal.save(state)
        except OSError as error:
            log.error("the journal could not be written: %s", error)


class LocalKeys:
    """Our ssh key, the pinned host keys and the generated ssh configuration, on this machine."""

    def __init__(self, paths: Paths, memory: Memory, remember: Any) -> None:
        self._paths = paths
        self._memory = memory
        self._remember = remember
        self._files = SshFiles(paths.ssh_config, paths.user_ssh_config)

    async def public_key(self) -> str:
        """Our public key, one line; made on first use."""
        return await asyncio.to_thread(ensure_identity, self._paths.identity)

    async def pin(self, boxes: list[str], port: int, keys: list[str]) -> None:
        """Replace what is pinned for these boxes."""
        for box in boxes:
            self._memory.host_keys.setdefault(box, {})[port] = list(keys)
        self._remember(self._memory)
        await asyncio.to_thread(write_known_hosts, self._paths.known_hosts, self._memory.host_keys)

    async def note_user(self, name: str, user: str) -> None:
        """Let the generated configuration log in to this box as ``user``, where there is one."""
        if self._memory.users.get(name) == user:
            return
        self._memory.users[name] = user
        self._remember(self._memory)
        if self._paths.ssh_config.exists():
            # Only our own file: whether ~/.ssh/config includes it is the user's to say.
            await asyncio.to_thread(self._files.write_include, self._text(None))

    async def look(self, command: str | None) -> wire.SshConfigResult:
        """Compare what is on disk with what would be written."""
        return self._result(await asyncio.to_thread(self._files.check, self._text(command)))

    async def write(self, command: str | None) -> wire.SshConfigResult:
        """Write both files."""
        await self.public_key()
        await asyncio.to_thread(write_known_hosts, self._paths.known_hosts, self._memory.host_keys)
        return self._result(await asyncio.to_thread(self._files.write, self._text(command)))

    async def remove(self) -> wire.SshConfigResult:
        """Take out what was written."""
        return self._result(await asyncio.to_thread(self._files.remove))

    def paths(self) -> tuple[str, str, str]:
        """Identity file, known hosts file, configuration file (written where it is missing or outdated)."""
        self._files.write_include(self._text(None))
        return str(self._paths.identity), str(self._paths.known_hosts), str(self._paths.ssh_config)

    @property
    def _command(self) -> Path | None:
        kept = self._files.command()  # the user may have named one
        if kept is not None and os.access(kept, os.X_OK):
            return kept
        beside = Path(sys.executable).with_name("devboxctl")
        found = beside if beside.exists() else shutil.which("devboxctl")
        return Path(found) if found else None

    def _text(self, command: str | None) -> str:
        path = Path(command) if command else self._command or Path("devboxctl")
        entries = [SshEntry(name, user) for name, user in sorted(self._memory.users.items())]
        return render(path, entries, identity=self._paths.identity, known_hosts=self._paths.known_hosts)

    def _result(self, state: SshConfigState) -> wire.SshConfigResult:
        return wire.SshConfigResult(
            config_file=str(self._paths.ssh_config),
            user_config=str(self._paths.user_ssh_config),
            included=state.included,
            current=state.current,
            changed=[str(path) for path in state.changed],
        )


# Requests that need more than control -------------------------------------------------------------------


async def _login(
    accounts: Accounts, shared: Shared, clock: Clock, asked: wire.LoginRequest
) -> AsyncIterator[wire.LoginStep]:
    """Run a login and pass its steps on; at the end, everything that waited for it goes on."""
    done = False
    try:
        async for step in Login(accounts.account(asked.profile, asked.region), clock, replace_file).run():
            done = step.state is LoginState.DONE
            yield wire.LoginStep(
                state=step.state,
                text=step.text,
                url=step.url,
                code=step.code,
                expires=None if step.expires is None else rfc3339(step.expires.timestamp()),
                failure=failure(step.failure) if step.failure is not None else None,
            )
    except DevboxError as error:
        yield wire.LoginStep(LoginState.FAILED, error.message, failure=failure(error))
    if done:  # else there is nothing new, and every account would have to be set up again
        await accounts.refresh()
        shared.bells.logins.ring()


async def _doctor(doctor: Doctor, box: BoxRef | None) -> wire.Doctor:
    findings = await (doctor.machine() if box is None else doctor.box(box))
    return wire.Doctor([wire.Check(f.name, f.result, f.text, f.hint, f.seconds) for f in findings])


# Logging ------------------------------------------------------------------------------------------------


class _Lines(logging.Formatter):
    """One JSON object a line; under systemd with the priority in front that journald reads."""

    _PRIORITY: Final = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}

    def __init__(self, *, journald: bool) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        """Everything that is known, nothing that is secret: messages are written with that in mind."""
        fields: dict[str, object] = {
            "time": rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (box := getattr(record, "box", None)) is not None:
            fields["box"] = box
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        line = json.dumps(fields, ensure_ascii=False)
        return f"<{self._PRIORITY.get(record.levelname, 6)}>{line}" if self._journald else line


def _set_level(config: Config) -> None:
    logging.getLogger("devboxd").setLevel(config.log.level.upper())


class _ToStderr(logging.StreamHandler[TextIO]):
    """Writes to standard error; where that is our own log file, keeps it from growing without bound."""

    def __init__(self, path: Path) -> None:
        super().__init__(sys.stderr)
        self._path = path
        self._until_look = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if self._until_look <= 0:
            self._until_look = LOG_LOOK
            trim(2, self._path)
        self._until_look -= 1
        super().emit(record)


def _set_up_logging(level: str, path: Path) -> None:
    handler = _ToStderr(path)
    handler.setFormatter(_Lines(journald="JOURNAL_STREAM" in os.environ))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)  # libraries at debug print requests, and those hold secrets
    logging.getLogger("devboxd").setLevel(level.upper())

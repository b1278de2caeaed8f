"""Clock, paths, journal, secrets, service manager and notices."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.errors
import pytest

from devboxd.api import client
from devboxd.errors import Denied, StateNotSaved
from devboxd.host import files, notify, secrets, systemd
from devboxd.host.clock import Clock
from devboxd.host.journal import Journal
from devboxd.host.paths import Paths
from devboxd.host.secrets import NoKeyring, delete_secret, get_secret, set_secret
from devboxd.host.systemd import DescriptorStore, Notifier, left
from tests.kit.tasks import beside


class TestClock:
    def test_clocks_go_forward(self) -> None:
        clock = Clock()
        for read in (clock.monotonic, clock.boottime):
            assert read() <= read()
        assert abs(clock.wall_ms() / 1000 - clock.wall()) < 5


class TestPaths:
    @pytest.mark.parametrize("platform", ["linux", "darwin"])
    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"XDG_RUNTIME_DIR": "/run/user/1"},
            {"XDG_RUNTIME_DIR": "relative", "XDG_STATE_HOME": "relative", "XDG_CONFIG_HOME": "relative"},
            {"XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c"},
            {"DEVBOX_SOCKET": "/tmp/x/../d.sock", "XDG_RUNTIME_DIR": "/run/user/1"},
        ],
    )
    def test_client_and_daemon_agree_on_every_path(
        self, environment: dict[str, str], platform: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Or the CLI would start a second daemon beside the first."""
        environment = {"HOME": "/home/u", **environment}
        monkeypatch.setattr(sys, "platform", platform)
        paths = Paths.from_environment(environment, platform=platform)
        assert str(paths.socket) == client.socket_path(environment)
        assert str(paths.state) == client.state_directory(environment)
        assert str(paths.config) == client.config_directory(environment)
        assert str(paths.log) == f"{client.state_directory(environment)}/{client.LOG_NAME}"

    def test_folders_are_private(self, tmp_path: Path) -> None:
        paths = Paths.from_environment({"HOME": str(tmp_path)})
        (tmp_path / ".config" / "devbox").mkdir(parents=True)
        (tmp_path / ".config" / "devbox").chmod(0o777)
        paths.prepare()
        assert stat.S_IMODE(paths.state.stat().st_mode) == 0o700
        assert stat.S_IMODE(paths.socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(paths.config.stat().st_mode) == 0o755

    @pytest.mark.parametrize("mode", [0o1777, 0o777, 0o775])
    def test_a_folder_that_the_user_named_keeps_its_mode(self, tmp_path: Path, mode: int) -> None:
        """DEVBOX_SOCKET=/tmp/x as root: nobody else could use /tmp any more."""
        shared = tmp_path / "shared"
        shared.mkdir()
        shared.chmod(mode)
        given = {"HOME": str(tmp_path), "DEVBOX_SOCKET": str(shared / "d.sock")}
        with pytest.raises(Denied, match="others may write to"):
            Paths.from_environment(given).prepare()
        assert stat.S_IMODE(shared.stat().st_mode) == mode

    def test_what_is_missing_is_made_private_whatever_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            Paths.from_environment({"HOME": str(tmp_path / "new" / "home")}).prepare()
        finally:
            os.umask(before)
        for below in ("new", "new/home", "new/home/.local", "new/home/.local/state", "new/home/.config"):
            assert stat.S_IMODE((tmp_path / below).stat().st_mode) == 0o700

    @pytest.mark.parametrize("home", ["~", "relative", "."])
    def test_without_a_home_it_says_so(self, home: str) -> None:
        """A container's user without a passwd entry: a folder named ~ in the current one helps nobody."""
        with pytest.raises(Denied, match="is no home folder"):
            Paths.from_environment({"HOME": home}).prepare()
        with pytest.raises(client.ClientError, match="is no home folder"):
            client.state_directory({"HOME": home})

    def test_a_folder_that_can_not_be_made_is_named(self, tmp_path: Path) -> None:
        (tmp_path / ".config").write_text("a file")
        with pytest.raises(Denied, match=r"\.config"):
            Paths.from_environment({"HOME": str(tmp_path)}).prepare()


class TestFiles:
    def test_a_failed_write_leaves_the_old_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "f"
        path.write_text("old")

        def fail(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="space"):
            files.replace_file(path, b"new")
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["f"]

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "dotfiles").mkdir()
        (tmp_path / "dotfiles" / "f").write_text("old")
        (tmp_path / "f").symlink_to("dotfiles/f")
        files.replace_file(tmp_path / "f", b"new", mode=0o640)
        assert (tmp_path / "f").is_symlink()
        assert (tmp_path / "dotfiles" / "f").read_text() == "new"
        assert stat.S_IMODE((tmp_path / "dotfiles" / "f").stat().st_mode) == 0o640

    def test_the_same_content_is_not_written_again(self, tmp_path: Path) -> None:
        assert files.replace_if_changed(tmp_path / "f", b"x")
        before = (tmp_path / "f").stat()
        assert not files.replace_if_changed(tmp_path / "f", b"x")
        assert (tmp_path / "f").stat().st_ino == before.st_ino


class TestJournal:
    async def test_what_was_saved_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.json"
        assert Journal(path).read() == {}
        await Journal(path).save({"forwards": [{"port": 1}]})
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert Journal(path).read() == {"forwards": [{"port": 1}]}
        await Journal(path).save({})
        assert Journal(path).read() == {}

    async def test_the_last_of_many_saves_wins(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "journal.json")
        state = {"n": 0}
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                state["n"] = number
                tasks.create_task(journal.save(dict(state)))
        assert journal.read() == {"n": 19}

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 99, "state": {}}', b"\xff", b"[" * 100_000],
        ids=["empty", "torn", "list", "no state", "newer", "not text", "deep"],
    )
    async def test_a_journal_that_makes_no_sense_is_set_aside(self, tmp_path: Path, content: bytes) -> None:
        """The daemon must start whatever a full disk has left behind."""
        path = tmp_path / "journal.json"
        path.write_bytes(content)
        journal = Journal(path)
        assert journal.read() == {}
        assert journal.problem is not None
        assert (tmp_path / "journal.json.unreadable").read_bytes() == content
        await journal.save({"a": 1})
        assert journal.read() == {"a": 1}
        path.write_bytes(b"again")
        Journal(path).read()
        assert (tmp_path / "journal.json.unreadable").read_bytes() == content, (
            "the first is not lost to the next"
        )

    async def test_the_last_good_copy_comes_back_for_one_that_is_damaged(self, tmp_path: Path) -> None:
        """What a broken disk or a bug costs is what changed since the daemon started, not everything."""
        path = tmp_path / "journal.json"
        await Journal(path).save({"forwards": [1, 2, 3]})
        second = Journal(path)
        assert second.read() == {"forwards": [1, 2, 3]}
        await second.save({"forwards": [1, 2, 3, 4]})
        path.write_bytes(path.read_bytes()[:-7])
        third = Journal(path)
        assert third.read() == {"forwards": [1, 2, 3]}
        assert third.problem is not None
        assert "last good copy" in third.problem
        await third.save({"forwards": [1]})
        assert Journal(path).read() == {"forwards": [1]}

    async def test_one_that_cannot_be_set_aside_is_never_written_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "journal.json"
        path.write_bytes(b"who knows")

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, "no")

        monkeypatch.setattr(os, "replace", refuse)
        journal = Journal(path)
        assert journal.read() == {}
        monkeypatch.undo()
        with pytest.raises(StateNotSaved, match="not written over"):
            await journal.save({"a": 1})
        assert path.read_bytes() == b"who knows"

    async def test_a_disk_that_takes_nothing_is_an_error_that_names_the_path(self, tmp_path: Path) -> None:
        """And what was there is there still."""
        path = tmp_path / "journal.json"
        await Journal(path).save({"a": 1})
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            with pytest.raises(StateNotSaved) as caught:
                await Journal(path).save({"a": 2})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert str(path) in caught.value.message
        assert "ulimit" in (caught.value.hint or "")
        assert Journal(path).read() == {"a": 1}
        assert sorted(one.name for one in tmp_path.iterdir()) == ["journal.json", "journal.last.json"]

    async def test_a_write_that_was_left_behind_does_not_take_the_place_of_a_later_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The daemon stops while its disk is slow: the last word is what counts."""
        journal = Journal(tmp_path / "journal.json")
        go, write = threading.Event(), journal._write

        def slow_at_first(data: bytes, number: int) -> None:
            if number == 0:
                go.wait(10)
            write(data, number)

        monkeypatch.setattr(Journal, "_write", lambda self, data, number: slow_at_first(data, number))
        first = beside(journal.save({"n": 1}))
        await asyncio.sleep(0.05)
        first.cancel()
        await asyncio.wait([first])
        await journal.save({"n": 2})
        go.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert journal.read() == {"n": 2}


class Ring(keyring.backend.KeyringBackend):
    """A keyring in memory."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise keyring.errors.PasswordDeleteError


class TestSecrets:
    async def test_a_secret_is_kept_and_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(keyring.core, "_keyring_backend", Ring())
        assert await get_secret("token") is None
        await set_secret("token", "s")
        assert await get_secret("token") == "s"
        await delete_secret("token")
        await delete_secret("token")
        assert await get_secret("token") is None

    async def test_without_a_keyring_the_error_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing: Any = keyring.backends.fail.Keyring
        monkeypatch.setattr(keyring.core, "_keyring_backend", nothing())
        with pytest.raises(NoKeyring):
            await get_secret("token")
        with pytest.raises(NoKeyring) as refused:
            await set_secret("token", "s3cret")
        assert "s3cret" not in str(refused.value)

    def test_the_keyring_is_not_loaded_with_the_daemon(self) -> None:
        assert "keyring" not in vars(secrets)


class TestNotifier:
    @pytest.fixture
    def manager(self, tmp_path_factory: pytest.TempPathFactory) -> Any:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            path = tmp_path_factory.mktemp("n") / "notify"
            manager.bind(str(path))
            manager.settimeout(2)
            yield manager, str(path)

    def test_each_state_is_one_datagram(self, manager: Any) -> None:
        listening, path = manager
        environment = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
        notifier = Notifier.from_environment(environment)
        assert not environment, "children must not speak in our name"
        assert notifier.interval == 10.0
        sent = []
        calls: list[Callable[[], bool]] = [
            lambda: notifier.ready("2 sessions"),
            lambda: notifier.ready(),
            lambda: notifier.status("a\nREADY=0"),
            notifier.alive,
            lambda: notifier.stopping("bye"),
            lambda: notifier.unstore("forward:1"),
        ]
        for call in calls:
            assert call()
            sent.append(listening.recv(4096).decode())
        assert sent == [
            "READY=1\nSTATUS=2 sessions",
            "READY=1",
            "STATUS=a READY=0",
            "WATCHDOG=1",
            "STOPPING=1\nSTATUS=bye",
            "FDSTOREREMOVE=1\nFDNAME=forward-1",
        ]

    def test_descriptors_are_stored_by_name(self, manager: Any) -> None:
        listening, path = manager
        with socket.create_server(("127.0.0.1", 0)) as kept:
            assert Notifier(path).store("forward-1", [kept.fileno()])
            data, descriptors, _, _ = socket.recv_fds(listening, 4096, 4)
            assert data == b"FDSTORE=1\nFDNAME=forward-1\nFDPOLL=0"
            with socket.socket(fileno=descriptors[0]) as again:
                assert again.getsockname() == kept.getsockname()

    @pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
    def test_what_is_left_to_the_next_daemon_comes_back(self, manager: Any) -> None:
        listening, path = manager
        kept: list[tuple[str, int]] = []

        def keep() -> None:
            while True:
                data, descriptors, _, _ = socket.recv_fds(listening, 4096, 253)
                fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
                if "FDSTORE" in fields:
                    kept.extend((fields["FDNAME"], one) for one in descriptors)
                for one in descriptors if "BARRIER" in fields else ():
                    os.close(one)
                    return

        thread = threading.Thread(target=keep)
        thread.start()
        ours = [socket.socketpair() for _ in range(450)]
        clients = [one.fileno() for one, _ in ours]
        with socket.create_server(("127.0.0.1", 0)) as forward:
            data = os.urandom(2_000_000)
            assert Notifier(path).leave(data, clients, {"forward-1": [forward.fileno()]})
        thread.join(10)
        inodes = {os.fstat(one).st_ino for one in clients}
        files = {"parcel": [one for name, one in kept if name == "parcel"]}
        sockets: dict[str, list[socket.socket]] = {}
        for name, one in kept:
            if name != "parcel":
                sockets.setdefault(name, []).append(socket.socket(fileno=one))
        found = left(files, sockets)
        assert found is not None
        assert found[0] == data
        assert {os.fstat(one).st_ino for one in found[1]} == inodes
        assert list(sockets) == ["forward-1"]
        sockets["forward-1"][0].close()
        for number in found[1]:
            os.close(number)
        for pair in ours:
            pair[0].close()
            pair[1].close()

    def test_a_manager_that_takes_nothing_is_not_believed(
        self, manager: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(systemd, "BARRIER", 0.05)
        assert not Notifier(manager[1]).leave(b"x", [], {})
        assert not Notifier().leave(b"x", [], {})

    @pytest.mark.parametrize(("given", "slots"), [("", 256), ("2048", 2048), ("0", 0), ("x", 256)])
    def test_how_much_is_kept(self, given: str, slots: int) -> None:
        """Systemd before 254 does not say."""
        environment = {"NOTIFY_SOCKET": "/run/x", "FDSTORE": given}
        assert Notifier.from_environment(environment).slots == slots
        assert Notifier.from_environment({"FDSTORE": given}).slots == 0

    def test_clients_without_what_is_known_of_them_are_let_go(self) -> None:
        one, peer = socket.socketpair()
        sockets = {"forward-client": [one]}
        assert left({}, sockets) is None
        assert (sockets, peer.recv(1)) == ({}, b"")
        peer.close()

    def test_without_a_manager_nothing_happens(self, tmp_path: Path) -> None:
        assert not Notifier.from_environment({}).ready()
        assert not Notifier(str(tmp_path / "gone")).ready()

    @pytest.mark.parametrize(
        "environment",
        [
            {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "soon"},
            {},
        ],
    )
    def test_a_watchdog_for_somebody_else_is_none(self, environment: dict[str, str]) -> None:
        assert Notifier.from_environment(environment).interval is None


SAVE = f"""#!{sys.executable} -S
import json, sys
json.dump(sys.argv[1:], open({{path!r}}, "w"))
"""


class TestNotice:
    @pytest.mark.parametrize(("platform", "name"), [("linux", "notify-send"), ("darwin", "osascript")])
    async def test_texts_are_arguments_and_never_code(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, name: str
    ) -> None:
        """They may come from a box."""
        program = tmp_path / name
        program.write_text(SAVE.format(path=str(tmp_path / "argv")))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        title, text = '" & (do shell script "id") & "', "--icon=/etc/passwd\n<b>$(id)</b>\x1b[0m"
        assert await notify.notice(title, text, platform=platform)
        arguments = json.loads((tmp_path / "argv").read_text())
        separator = arguments.index("--")
        assert arguments[separator + 1] == title
        assert len(arguments) == separator + 3
        shown = arguments[separator + 2].replace("&lt;", "<").replace("&gt;", ">")
        assert shown == "--icon=/etc/passwd <b>$(id)</b> [0m"

    async def test_a_program_that_hangs_or_is_missing_harms_nobody(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert not await notify.notice("a", "b", platform="linux")
        program = tmp_path / "notify-send"
        program.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
        program.chmod(0o755)
        monkeypatch.setattr(notify, "PATIENCE", 0.05)
        assert not await notify.notice("a", "b", platform="linux")


def test_inherited_listeners_that_no_forward_took_are_closed_and_forgotten() -> None:
    """Their clients would wait for ever in a queue that nobody reads."""
    unstored: list[str] = []

    class Manager(Notifier):
        def unstore(self, name: str) -> bool:
            unstored.append(name)
            return True

    left, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    store = DescriptorStore(Manager.from_environment({}), {"forward-1": [left], "else": [other]})
    store.drop_rest()
    assert (left.fileno(), unstored) == (-1, ["forward-1"])
    assert other.fileno() >= 0
    other.close()

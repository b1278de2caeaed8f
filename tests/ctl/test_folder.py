"""devbox.toml as the command line finds it, and what it makes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from devboxctl.app import run
from devboxctl.fast import folder
from devboxctl.fast.reply import UsageError
from devboxd.api import wire
from tests.ctl.fake_daemon import FakeDaemon, Peer

Capture = pytest.CaptureFixture[str]
TEXT = 'box = "api"\n'


@pytest.fixture
def inside(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """We are in a folder of a project, deep below home."""
    deep = home / "src" / "project" / "deep"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.delenv(folder.VARIABLE, raising=False)
    return deep


def test_the_nearest_one_upward_counts_but_none_above_home(inside: Path, home: Path) -> None:
    assert folder.said() is None
    (home.parent / "devbox.toml").exists()
    for place in (home, home / "src", inside):
        (place / "devbox.toml").write_text(TEXT)
        assert folder.find(str(inside), str(home)) == str(place / "devbox.toml")
    assert folder.said() == {"path": os.path.realpath(inside / "devbox.toml"), "text": TEXT} or (
        folder.said() == {"path": str(inside / "devbox.toml"), "text": TEXT}
    )
    assert folder.find(str(inside), str(inside.parent)) == str(inside / "devbox.toml")


def test_above_the_home_folder_it_is_somebody_elses(inside: Path, home: Path) -> None:
    (home / "devbox.toml").write_text(TEXT)
    assert folder.find(str(inside), str(home / "src")) is None


def test_what_others_may_have_written_is_not_read(
    inside: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In /tmp and the like anybody could put one; and a strange one hides what lies above it."""
    (home / "devbox.toml").write_text(TEXT)
    strange = inside / "devbox.toml"
    strange.write_text("")
    strange.chmod(0o666)
    assert folder.find(str(inside), str(home)) is None
    strange.chmod(0o644)
    assert folder.find(str(inside), str(home)) == str(strange)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if strange.stat().st_uid != 0:
        assert folder.find(str(inside), str(home)) is None


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling"])
def test_what_is_no_file_is_passed_over(inside: Path, home: Path, kind: str) -> None:
    """And never waited for."""
    path = inside / "devbox.toml"
    match kind:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "dangling":
            path.symlink_to(inside / "nothing")
    assert folder.said() is None
    (home / "src" / "devbox.toml").write_text(TEXT)
    assert folder.find(str(inside), str(home)) == str(home / "src" / "devbox.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"#" * (folder.MOST + 1), "larger than 8192 bytes"), (b"\xff\xfe", "not UTF-8")],
)
def test_what_cannot_be_sent_is_said(inside: Path, content: bytes, says: str) -> None:
    (inside / "devbox.toml").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        folder.said()


def test_a_variable_names_another_one_or_none(
    inside: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way out for whoever does not want it."""
    (inside / "devbox.toml").write_text(TEXT)
    (home / "mine.toml").write_text('box = "mine"\n')
    monkeypatch.setenv(folder.VARIABLE, str(home / "mine.toml"))
    assert folder.said() == {"path": str(home / "mine.toml"), "text": 'box = "mine"\n'}
    monkeypatch.setenv(folder.VARIABLE, "")
    assert folder.said() is None
    monkeypatch.setenv(folder.VARIABLE, str(home / "nothing"))
    with pytest.raises(UsageError, match="cannot be read"):
        folder.said()


def test_the_bound_is_that_of_the_wire_format() -> None:
    assert folder.MOST == wire.FOLDER_MAX


def settings(**values: object) -> dict[str, Any]:
    return {"settings": [{"name": name, "value": value, "origin": "/x"} for name, value in values.items()]}


def test_requests_say_where_they_come_from(daemon: FakeDaemon, inside: Path, capsys: Capture) -> None:
    """The daemon reads it: there is one set of rules."""
    (inside / "devbox.toml").write_text(TEXT)
    where = folder.said()
    daemon.routes["GET boxes/api"] = {"name": "api", "id": "i-1"}
    daemon.routes["GET config"] = settings(box="api")

    def ended(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        peer.exit(status=0)

    daemon.streams["exec"] = ended
    assert run(["exec", "api", "true"]) == 0
    assert daemon.requests[-1][2]["folder"] == where
    for words in (["show", "api"], ["config", "show"]):
        assert run(words) == 0
        assert "folder=%7B%22path%22" in daemon.requests[-1][1]


def test_without_one_nothing_is_said(daemon: FakeDaemon, inside: Path) -> None:
    daemon.routes["GET boxes/api"] = {"name": "api", "id": "i-1"}
    assert run(["show", "api"]) == 0
    assert daemon.requests[-1][1] == "boxes/api"


def test_its_box_is_taken_where_none_is_named_and_that_is_said(
    daemon: FakeDaemon, inside: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repository may name another box than its reader has in mind."""
    (inside / "devbox.toml").write_text(TEXT)
    daemon.routes["GET config"] = settings(box="api", forwards=["8080"])
    daemon.routes["GET boxes/api"] = {"name": "api", "id": "i-1"}
    daemon.routes["GET boxes/mine"] = {"name": "mine", "id": "i-2"}
    assert run(["show"]) == 0
    assert f"box: api ({inside}/devbox.toml)" in capsys.readouterr().err
    monkeypatch.setenv("DEVBOX_BOX", "mine")
    assert run(["show"]) == 0
    assert daemon.requests[-1][1].startswith("boxes/mine")
    assert capsys.readouterr().err == ""


def test_its_forwards_are_made_where_none_is_named(daemon: FakeDaemon, inside: Path, capsys: Capture) -> None:
    """On this machine only: the daemon has refused anything else."""
    (inside / "devbox.toml").write_text(TEXT)
    daemon.routes["GET config"] = settings(box="api", forwards=["8080", "9000:80"])
    daemon.routes["POST forwards"] = {"forwards": []}
    assert run(["forward", "add"]) == 0
    asked = daemon.requests[-1][2]
    assert asked["box"] == "api"
    assert [(one["local_port"], one["port"], one.get("bind", "127.0.0.1")) for one in asked["forwards"]] == [
        (8080, 8080, "127.0.0.1"),
        (9000, 80, "127.0.0.1"),
    ]
    daemon.routes["GET config"] = settings(box="api")
    assert run(["forward", "add"]) == 2
    assert "there is nothing to forward" in capsys.readouterr().err


def test_what_is_wrong_with_it_is_said_before_anything_is_done(
    daemon: FakeDaemon, inside: Path, capsys: Capture
) -> None:
    (inside / "devbox.toml").write_text("[defaults]\nprofile = 'x'\n")
    refusal = {"code": "config-invalid", "message": "not for a devbox.toml", "exit_status": 2}
    daemon.routes["GET boxes/api"] = (400, refusal)
    assert run(["show", "api"]) == 2
    assert capsys.readouterr().err == "error: not for a devbox.toml\n"


def test_a_folder_that_is_gone_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell can stand in a folder that somebody has removed."""
    monkeypatch.delenv("DEVBOX_TOML", raising=False)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert folder.said() is None
    monkeypatch.setenv("DEVBOX_TOML", "here.toml")
    assert folder.said() is None
    monkeypatch.chdir(tmp_path)

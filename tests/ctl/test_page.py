"""ui: the link reaches the browser through a private file, and nobody else."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from devboxctl.app import run
from devboxctl.commands import page
from tests.ctl.fake_daemon import FakeDaemon

Capture = pytest.CaptureFixture[str]
URL = "http://127.0.0.1:4711/?link=secret&x"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """What a browser was told to open: address, mode and content of the file."""
    found: list[tuple[str, int, str]] = []

    def open_(url: str) -> bool:
        file = Path(unquote(urlsplit(url).path))
        found.append((url, file.stat().st_mode & 0o777, file.read_text("utf-8")))
        return True

    monkeypatch.setattr(webbrowser, "open", open_)
    monkeypatch.setattr(page, "READ_WITHIN", 0.0)
    return found


def test_the_secret_is_in_no_argument(
    daemon: FakeDaemon, capsys: Capture, opened: list[tuple[str, int, str]]
) -> None:
    daemon.routes["POST page"] = {"url": URL}
    assert run(["ui"]) == 0
    ((url, mode, text),) = opened
    assert url.startswith("file://")
    assert "secret" not in url
    assert mode == 0o600
    assert "127.0.0.1:4711/?link=secret&amp;x" in text
    assert not Path(unquote(urlsplit(url).path)).exists(), "it is gone afterwards"
    assert capsys.readouterr().out == ""


def test_without_a_browser_the_link_is_printed(
    daemon: FakeDaemon, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.routes["POST page"] = {"url": URL}
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    assert run(["ui"]) == 0
    assert capsys.readouterr().out == URL + "\n"
    assert run(["ui", "--no-open"]) == 0
    assert capsys.readouterr().out == URL + "\n"


def test_nothing_but_a_page_of_this_machine_is_opened(
    daemon: FakeDaemon, opened: list[tuple[str, int, str]]
) -> None:
    daemon.routes["POST page"] = {"url": "https://evil.example/"}
    assert run(["ui"]) == 0
    assert opened == []

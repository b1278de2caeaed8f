"""A home of its own and a fake daemon for every test of the CLI."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ctl.fake_daemon import FakeDaemon

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, on a short path: unix sockets take about 100 bytes."""
    with tempfile.TemporaryDirectory(prefix="dbx") as name:
        folder = Path(name)
        for variable in (
            "DEVBOX_BOX",
            "DEVBOX_SOCKET",
            "DEVBOX_DEBUG",
            "XDG_STATE_HOME",
            "DEVBOX_CONFIG",
            "NO_COLOR",
        ):
            monkeypatch.delenv(variable, raising=False)
        # With it, Python itself loses the rest of a short write without a word.
        monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
        monkeypatch.setenv("HOME", name)
        monkeypatch.setenv("XDG_RUNTIME_DIR", f"{name}/run")
        monkeypatch.setenv("XDG_CONFIG_HOME", f"{name}/config")
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        yield folder


@pytest.fixture
def daemon(home: Path) -> Iterator[FakeDaemon]:
    """A daemon where the CLI looks for one."""
    with FakeDaemon(f"{os.environ['XDG_RUNTIME_DIR']}/devbox/devboxd.sock") as running:
        yield running

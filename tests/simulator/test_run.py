"""The command line of the simulator, and what the demo takes from the user's environment (nothing)."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

import pytest

from devboxd.simulator import __main__ as run
from devboxd.simulator.chaos import Chaos
from devboxd.simulator.demo import private_environment
from tests.kit.sim import MakeSimulator


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_prints_one_line_and_leaves_nothing(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devboxd.simulator", "serve", "--fast", "--boxes", "one,two", "--stopped", "two",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            up = json.loads(await process.stdout.readline())
            root = Path(up["boxes"][0]["disk"]).parent
            assert root.is_dir()
            assert [box["name"] for box in up["boxes"]] == ["one", "two"]
            assert up["environment"]["AWS_ENDPOINT_URL"] == up["endpoint"]
            words = ["fault", "throttle", "times=1", "--endpoint", up["endpoint"]]
            assert await asyncio.to_thread(run.main, words) == 0
            process.send_signal(number)
            assert await process.stdout.read() == b""
            assert await process.wait() == 0
        assert not root.exists()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_fault_command_says_what_is_wrong(
    simulator: MakeSimulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = await simulator()
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert await asyncio.to_thread(run.main, ["fault", "rst"]) == 2
    monkeypatch.setenv("AWS_ENDPOINT_URL", sim.url)
    assert await asyncio.to_thread(run.main, ["fault", "rst", "colour"]) == 2
    assert await asyncio.to_thread(run.main, ["fault", "earthquake"]) == 1
    assert await asyncio.to_thread(run.main, ["fault", "blackhole", "seconds=0"]) == 0
    assert await asyncio.to_thread(run.main, ["fault", "refuse", "call=ResumeSession", "code=Nope"]) == 0
    shown = capsys.readouterr()
    assert "no fault is named 'earthquake'" in shown.err
    assert "refuse: 1 touched" in shown.out


def test_every_fault_has_a_line_of_help() -> None:
    catalogue = Chaos.catalogue()
    assert {"rst", "fin", "close", "blackhole", "wire", "agent-cut", "expire-credentials"} <= set(catalogue)
    assert all(text.endswith(".") or ";" in text for text in catalogue.values())


def test_the_demo_sees_no_setting_of_the_user(tmp_path: Path) -> None:
    """A demo that talked to a real account would be a catastrophe."""
    env = private_environment(
        tmp_path,
        {
            "PATH": "/bin",
            "AWS_PROFILE": "production",
            "AWS_ENDPOINT_URL_SSM": "https://real",
            "DEVBOX_SOCKET": "/run/real.sock",
            "HTTPS_PROXY": "http://proxy",
            "TMUX": "/tmp/tmux-0/default",
            "HOME": "/home/me",
            "XDG_RUNTIME_DIR": "/run/user/1000",
            "TERM": "xterm-kitty",
        },
    )
    assert not [key for key in env if key.startswith(("AWS_", "DEVBOX_", "TMUX"))]
    assert "HTTPS_PROXY" not in env
    assert env["TERM"] == "xterm-kitty"
    for key in ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        assert Path(env[key]).parent == tmp_path
        assert Path(env[key]).stat().st_mode & 0o777 == 0o700


async def test_a_box_cannot_reach_for_the_machine(simulator: MakeSimulator) -> None:
    """A simulated box that shuts itself down must not shut down the laptop."""
    sim = await simulator()
    bin_folder = sim.root / "bin"
    for name in ("sudo", "shutdown", "poweroff", "reboot", "loginctl", "systemctl"):
        process = await asyncio.create_subprocess_exec(
            str(bin_folder / name), "now", stderr=asyncio.subprocess.PIPE
        )
        _, text = await process.communicate()
        assert process.returncode == 1
        assert b"not on a simulated box" in text

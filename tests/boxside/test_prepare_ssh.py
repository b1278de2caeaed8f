"""How a box tells the host keys of its sshd: with a program in the place of ssh-keyscan."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from devboxd.boxside.script import load, squeeze

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOurs"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAITheirs"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """A home; what ssh-keyscan was asked stands in ``asked``, and each kind of key is answered with ``OTHER``."""
    (tmp_path / "bin").mkdir()
    scan = tmp_path / "bin" / "ssh-keyscan"
    scan.write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\necho "# 127.0.0.1:$6 SSH-2.0-x"\n'
        f'case "$4" in ed25519) echo "127.0.0.1 ssh-ed25519 {OTHER}";; rsa) echo "127.0.0.1 ssh-rsa {OTHER}";; esac\n'
    )
    scan.chmod(0o755)
    (tmp_path / "etc").mkdir()
    for kind in ("ed25519", "rsa"):
        (tmp_path / "etc" / f"ssh_host_{kind}_key.pub").write_text(f"ssh-{kind} Made root@box\n")
    return tmp_path


def prepare(box: Path, port: str) -> list[str]:
    """Run it; the lines that tell host keys, without the word before each."""
    script = squeeze(load("prepare_ssh.sh", common=False)).replace("/etc/ssh/", f"{box}/etc/")
    done = subprocess.run(
        ["sh", "-c", script, "devbox", port],
        input=KEY + "\n",
        env={"HOME": str(box), "PATH": f"{box}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert {"key yes", "done yes"} <= set(lines)
    return [line.removeprefix("host ") for line in lines if line.startswith("host ")]


def asked(box: Path) -> list[str]:
    file = box / "asked"
    return file.read_text().splitlines() if file.exists() else []


def test_an_sshd_of_its_own_keys_is_asked_for_one_kind_after_the_other(box: Path) -> None:
    """All kinds in one call are that many connections at once, of which sshd may drop some, and ssh with them."""
    assert prepare(box, "2222") == [f"ssh-ed25519 {OTHER}", f"ssh-rsa {OTHER}"]
    assert asked(box) == [f"-T 3 -t {kind} -p 2222 127.0.0.1" for kind in ("ed25519", "ecdsa", "rsa")]


def test_an_sshd_that_shows_a_key_of_the_system_is_asked_once(box: Path) -> None:
    """Each connection that does not log in counts against the address of all."""
    (box / "etc" / "ssh_host_ed25519_key.pub").write_text(f"ssh-ed25519 {OTHER} root@box\n")
    assert sorted(prepare(box, "22")) == [f"ssh-ed25519 {OTHER}", "ssh-rsa Made"]
    assert len(asked(box)) == 1


def test_an_sshd_that_nobody_asks_for_is_left_alone(box: Path) -> None:
    assert prepare(box, "") == []
    assert asked(box) == []

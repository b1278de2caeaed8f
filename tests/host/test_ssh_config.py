"""The generated ssh configuration, as the real ssh reads it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from devboxd.errors import BadRequest, Denied
from devboxd.host.ssh_config import (
    SshConfigState,
    SshEntry,
    SshFiles,
    command_in,
    ensure_identity,
    render,
    write_known_hosts,
)

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH here")
ENTRIES = [SshEntry("gpu", "ubuntu"), SshEntry("Build.1", "ec2-user"), SshEntry("plain")]


def text(folder: Path, entries: list[SshEntry] = ENTRIES, program: str = "/opt/my tools/devboxctl") -> str:
    return render(Path(program), entries, identity=folder / "id_ed25519", known_hosts=folder / "known_hosts")


@pytest.fixture
def files(tmp_path: Path) -> SshFiles:
    return SshFiles(tmp_path / "config dir" / "ssh_config", tmp_path / ".ssh" / "config")


def ask_ssh(config: Path, host: str) -> dict[str, str]:
    """What ssh would do for a host."""
    done = subprocess.run(["ssh", "-G", "-F", config, "--", host], capture_output=True, text=True, check=True)
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@needs_ssh
def test_ssh_understands_it_as_we_mean_it(files: SshFiles, tmp_path: Path) -> None:
    files.user_config.parent.mkdir()
    files.user_config.write_text("Host *\n    User me\n    ProxyJump bastion\n    StrictHostKeyChecking no\n")
    files.write(text(tmp_path))
    gpu = ask_ssh(files.user_config, "gpu.devbox")
    assert gpu["user"] == "ubuntu"
    assert (
        gpu["proxycommand"]
        == "'/opt/my tools/devboxctl' proxy --fdpass --ssh-user '%r' --ssh-host '%h' '%n' %p"
    )
    assert gpu["proxyusefdpass"] == "yes"
    assert gpu["compression"] == "yes"
    assert gpu["stricthostkeychecking"] in ("true", "yes")
    assert gpu["userknownhostsfile"] == str(tmp_path / "known_hosts")
    assert gpu["identityfile"] == str(tmp_path / "id_ed25519")
    assert gpu.get("proxyjump", "none") == "none"
    assert ask_ssh(files.user_config, "Build.1.devbox")["user"] == "ec2-user"
    assert ask_ssh(files.user_config, "plain.devbox")["user"] == "me"
    assert ask_ssh(files.user_config, "i-0123456789abcdef0.devbox")["proxyusefdpass"] == "yes"
    other = ask_ssh(files.user_config, "example.com")
    assert other["user"] == "me"
    assert "proxycommand" not in other


@needs_ssh
def test_a_host_name_with_a_quote_gets_no_proxy_command(files: SshFiles, tmp_path: Path) -> None:
    """Old ssh versions hand it to a shell, and git takes host names from strangers."""
    files.write(text(tmp_path))
    done = subprocess.run(
        ["ssh", "-G", "-F", files.user_config, "--", "x';id;'.devbox"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "proxycommand" not in done.stdout


@needs_ssh
@pytest.mark.parametrize("user", ["x'y", "';id;'", "'", "a'"])
def test_a_user_name_with_a_quote_gets_no_proxy_command_of_ours(
    files: SshFiles, tmp_path: Path, user: str
) -> None:
    """From where ssh knows the name first: above our lines, or its command line (refused since 10.1)."""
    files.write(text(tmp_path))
    above = tmp_path / "above"
    above.write_text(f'User "{user}"\nInclude "{files.include}"\n')
    for host in ("gpu.devbox", "plain.devbox"):
        found = ask_ssh(above, host)
        assert found["user"] == user
        assert "%r" not in found["proxycommand"]
        assert found["proxyusefdpass"] == "no"
    done = subprocess.run(
        ["ssh", "-G", "-F", files.user_config, "-l", user, "--", "gpu.devbox"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "%r" not in done.stdout


@needs_ssh
def test_a_refused_user_name_runs_nothing(files: SshFiles, tmp_path: Path) -> None:
    files.write(text(tmp_path))
    ran = tmp_path / "ran"
    above = tmp_path / "above"
    above.write_text(f'User "\';touch {ran};\'"\nInclude "{files.include}"\n')
    done = subprocess.run(
        ["ssh", "-F", above, "--", "gpu.devbox"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 255
    assert not ran.exists()


def test_names_and_users_that_would_be_lines_of_their_own_are_left_out(tmp_path: Path) -> None:
    bad = [
        SshEntry("a\nProxyCommand id", "x"),
        SshEntry("a", "x\n    ProxyCommand id"),
        SshEntry("*", "root"),
        SshEntry("-x", "y"),
        SshEntry("a b", "y"),
    ]
    assert text(tmp_path, bad) == text(tmp_path, [])


def test_the_text_does_not_depend_on_the_order(tmp_path: Path) -> None:
    assert text(tmp_path, ENTRIES) == text(tmp_path, ENTRIES[::-1])


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "a*b", "a$b"])
def test_a_path_that_ssh_can_not_be_told_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequest):
        text(tmp_path / name)


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"Host *\n  User me\n",
        b"Host *\r\n  User me\r\n",
        b"# no line break at the end",
        b"\xff\xfe not text \x00\n",
        b"Include ~/other\n\n\nHost x\n",
    ],
)
def test_every_other_byte_of_the_users_file_survives(files: SshFiles, tmp_path: Path, before: bytes) -> None:
    files.user_config.parent.mkdir()
    files.user_config.write_bytes(before)
    files.user_config.chmod(0o640)
    state = files.write(text(tmp_path))
    assert state.changed == (files.include, files.user_config)
    after = files.user_config.read_bytes()
    assert after == f'Include "{files.include}"\n'.encode() + before
    assert stat.S_IMODE(files.user_config.stat().st_mode) == 0o640
    assert files.check(text(tmp_path)) == SshConfigState(included=True, current=True)
    assert files.write(text(tmp_path)).changed == (), "a second time there is nothing to do"
    files.remove()
    assert not files.include.exists()
    assert (files.user_config.read_bytes() if files.user_config.exists() else b"") == before
    assert files.check(text(tmp_path)) == SshConfigState(included=False, current=False)
    assert files.remove().changed == ()


def test_without_a_config_one_is_made_and_removed_again(files: SshFiles, tmp_path: Path) -> None:
    files.write(text(tmp_path))
    assert stat.S_IMODE(files.user_config.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.user_config.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(files.include.stat().st_mode) == 0o600
    files.remove()
    assert not files.user_config.exists()


def test_a_link_into_a_dotfiles_folder_stays(files: SshFiles, tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "ssh"
    real.write_text("Host x\n")
    files.user_config.parent.mkdir()
    files.user_config.symlink_to(real)
    files.write(text(tmp_path))
    assert files.user_config.is_symlink()
    assert real.read_text().startswith("Include")
    files.remove()
    assert files.user_config.is_symlink()
    assert real.read_text() == "Host x\n"


def test_a_line_that_the_user_wrote_or_moved_counts(files: SshFiles, tmp_path: Path) -> None:
    files.user_config.parent.mkdir()
    files.user_config.write_text(f'# mine\n  include = "{files.include}"  \nHost x\n')
    assert files.write(text(tmp_path)).changed == (files.include,)


def test_a_line_below_a_host_line_has_no_effect_and_does_not_count(files: SshFiles, tmp_path: Path) -> None:
    files.user_config.parent.mkdir()
    files.user_config.write_text(f'Host x\n  Include "{files.include}"\n')
    assert not files.check(text(tmp_path)).included
    files.write(text(tmp_path))
    assert files.check(text(tmp_path)).included


@pytest.mark.parametrize("program", ["/opt/my tools/devboxctl", "/o'p/100%/devboxctl", "/usr/bin/devboxctl"])
def test_the_command_is_found_again_in_what_was_written(tmp_path: Path, program: str) -> None:
    assert command_in(text(tmp_path, program=program)) == Path(program)
    assert command_in("ProxyCommand a b proxy --fdpass ") is None
    assert command_in("ProxyCommand 'a proxy --fdpass ") is None
    assert command_in("") is None


def test_the_include_file_is_written_without_the_users(files: SshFiles, tmp_path: Path) -> None:
    assert files.command() is None
    assert files.write_include(text(tmp_path))
    assert not files.write_include(text(tmp_path))
    assert files.command() == Path("/opt/my tools/devboxctl")
    assert not files.user_config.exists()


def test_an_outdated_file_is_seen(files: SshFiles, tmp_path: Path) -> None:
    files.write(text(tmp_path))
    assert files.check(text(tmp_path, [])) == SshConfigState(included=True, current=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_can_not_be_written_is_named(files: SshFiles, tmp_path: Path) -> None:
    files.user_config.parent.mkdir(mode=0o500)
    with pytest.raises(Denied, match="config"):
        files.write(text(tmp_path))


def test_a_config_that_is_a_folder_is_refused_unharmed(files: SshFiles, tmp_path: Path) -> None:
    files.user_config.mkdir(parents=True)
    with pytest.raises(Denied):
        files.write(text(tmp_path))
    with pytest.raises(Denied):
        files.check(text(tmp_path))


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHkX5rVpDmJgZ1lQkzOqVxN8C6bUeA0sX8n0z4c1oHhB"


def test_host_keys_are_pinned_under_the_names_ssh_looks_up(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    keys = {
        "*": {22: [KEY]},
        "a b": {22: [KEY]},
        "@revoked": {22: [KEY]},
        "GPU": {22: [f"{KEY} root@gpu", "not a key at all!", f"{KEY}\nevil.com {KEY}"], 2222: [KEY]},
    }
    assert write_known_hosts(path, keys)
    assert not write_known_hosts(path, keys)
    lines = path.read_text().splitlines()[1:]
    assert lines == [f"gpu.devbox {KEY}", f"[gpu.devbox]:2222 {KEY}"], "and nothing of what rode along"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no OpenSSH here")
def test_the_key_pair_is_one_that_openssh_takes(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    public = ensure_identity(path)
    assert public.startswith("ssh-ed25519 ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = subprocess.run(
        ["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True
    ).stdout
    assert shown.split()[:2] == public.split()[:2]
    assert (tmp_path / "id_ed25519.pub").read_text() == f"{public}\n"
    path.chmod(0o644)
    assert ensure_identity(path) == public, "an old key is kept"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_in_the_place_of_the_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "id_ed25519"
    path.write_text("something of the user's")
    with pytest.raises(BadRequest):
        ensure_identity(path)
    assert path.read_text() == "something of the user's"

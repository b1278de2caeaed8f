"""Credentials that the daemon cannot find by itself: a person lends or types them, and they are written nowhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from tests.e2e.kit import World, until
from tests.e2e.test_login import ASSUMED, KEYS, Sts

CODE = "314159"


class Device(Sts):
    """Gives a role to whoever has the code."""

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        is_right = asked.get("TokenCode") == [CODE]
        said = "MultiFactorAuthentication failed with invalid MFA one time pass code."
        refused = f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{said}</Message></Error></ErrorResponse>"
        body = (ASSUMED if is_right else refused).encode()
        self.send_response(200 if is_right else 403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def device() -> Iterator[str]:
    """The address of that STS."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Device)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def world(device: str) -> Iterator[World]:
    """A daemon that was started without credentials; ``keys`` has those of the shell."""
    with World() as one:
        one.stop_daemon()
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            one.env.pop(name, None)
        (one.folder / "home" / ".aws").mkdir(parents=True, exist_ok=True)
        yield one


def keys_of(world: World) -> dict[str, str]:
    return {name: world.env.pop(name) for name in KEYS if name in world.env}


def left_behind(world: World, secret: str) -> list[Path]:
    """Files of the product that hold a text."""
    own = [world.folder / name for name in ("state", "config", "run", "home", "devboxd.log")]
    files = [file for one in own for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
    return [file for file in files if secret.encode() in file.read_bytes()]


def test_the_credentials_of_a_shell_are_lent_and_written_nowhere(world: World) -> None:
    """The daemon was started first: without this, only a restart with other sessions' loss would help."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIASHELLSHELL", "AWS_SECRET_ACCESS_KEY": "shell-secret-of-the-test"}
    keys_of(world)
    world.start_daemon()
    refused = world.run("ls", env=keys)
    assert refused.returncode == 4
    assert b"devboxctl login --from-environment" in refused.stderr
    missing = world.run("login", "--from-environment")
    assert missing.returncode == 2
    assert b"AWS_ACCESS_KEY_ID" in missing.stderr
    done = world.run("login", "--from-environment", env=keys)
    assert done.returncode == 0, done.stderr
    assert b"in memory only" in done.stderr + done.stdout
    assert "api" in world.ok("ls")
    assert json.loads(world.ok("--json", "whoami"))["method"] == "lent"
    for secret in keys.values():
        assert left_behind(world, secret) == []


def test_a_profile_with_a_device_asks_for_its_code_on_the_terminal_of_the_command(
    world: World, device: str
) -> None:
    """A question on the daemon's terminal is seen by nobody; a code in argv by everybody."""
    keys = keys_of(world)
    lines = "\n".join(f"{name.lower()} = {value}" for name, value in keys.items())
    aws = world.folder / "home" / ".aws"
    (aws / "credentials").write_text(f"[base]\n{lines}\n")
    (aws / "config").write_text(
        "[profile mfa]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = base\nmfa_serial = arn:aws:iam::1:mfa/me\n"
    )
    world.env["AWS_ENDPOINT_URL_STS"] = device
    world.start_daemon()
    refused = world.run("-p", "mfa", "ls")
    assert refused.returncode == 4
    assert b"devboxctl login --profile mfa" in refused.stderr
    wrong = world.run("-p", "mfa", "login", stdin=b"000000\n")
    assert wrong.returncode == 4
    assert b"does not accept the code" in wrong.stderr
    nothing = world.run("-p", "mfa", "login")
    assert nothing.returncode == 2
    with world.terminal("login", "-p", "mfa") as terminal:
        terminal.until("code of the MFA device arn:aws:iam::1:mfa/me")
        terminal.line(CODE)
        until(lambda: terminal.read() is not None and terminal.program.poll() is not None, "it ends")
        assert terminal.program.returncode == 0, terminal.seen
        assert CODE.encode() not in terminal.seen
    assert "api" in world.ok("-p", "mfa", "ls")
    assert left_behind(world, CODE) == []


def test_an_edit_of_the_aws_settings_drops_what_names_meant(world: World) -> None:
    """The old instance for half a minute is a command on the wrong box."""
    keys = keys_of(world)
    aws = world.folder / "home" / ".aws"
    lines = "\n".join(f"{name.lower()} = {value}" for name, value in keys.items())
    (aws / "credentials").write_text(f"[default]\n{lines}\n")
    (aws / "config").write_text("[default]\noutput = json\n")
    world.start_daemon()
    assert world.boxes["api"]["id"] in world.ok("show", "api")
    (aws / "config").write_text("[default]\nretry_mode = fast\n")
    until(lambda: world.run("show", "api").returncode, "the edit is seen")
    refused = world.run("show", "api")
    assert refused.returncode == 2
    for word in (b"~/.aws/config", b"profile 'default'", b"retry_mode", b"adaptive"):
        assert word in refused.stderr
    (aws / "config").write_text("[default]\noutput = json\n")
    until(lambda: world.run("show", "api").returncode == 0, "the mend is seen")


def test_a_proxy_that_is_not_supported_is_one_sentence_at_once(world: World) -> None:
    """It was silence, for two minutes."""
    world.env |= {"http_proxy": "socks5://127.0.0.1:1", "no_proxy": ""}
    world.start_daemon()
    for words in (("ls",), ("exec", "api", "true")):
        refused = world.run(*words, timeout=20.0)
        assert refused.returncode not in (0, 1), refused.stderr
        assert b"socks5:// proxies are not supported" in refused.stderr

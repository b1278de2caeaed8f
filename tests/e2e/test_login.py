"""Credentials that end, of kinds that are not SSO: told once, and mended by any way there is."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.e2e.kit import BARE, World, fetch, until

COUNT = 20
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>
<Expiration>2100-01-01T00:00:00Z</Expiration></Credentials>
<AssumedRoleUser><AssumedRoleId>A:x</AssumedRoleId><Arn>arn:aws:sts::1:assumed-role/r/x</Arn></AssumedRoleUser>
</AssumeRoleResult></AssumeRoleResponse>"""


class Sts(BaseHTTPRequestHandler):
    """Gives a role to whoever asks."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/xml")
        self.end_headers()
        self.wfile.write(ASSUMED.encode())

    def log_message(self, *_: object) -> None:
        """Nothing to say."""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A daemon whose credentials stand in ~/.aws: keys, a role on top of them, and a helper program."""
    sts = ThreadingHTTPServer(("127.0.0.1", 0), Sts)
    threading.Thread(target=sts.serve_forever, daemon=True).start()
    try:
        with World(env=BARE) as one:
            one.stop_daemon()
            for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
                one.env.pop(name, None)
            keys = {name: one.env.pop(name) for name in KEYS if name in one.env}
            aws = one.folder / "home" / ".aws"
            aws.mkdir(parents=True)
            lines = [f"{name.lower()} = {value}" for name, value in keys.items()]
            (aws / "credentials").write_text("\n".join(["[keys]", *lines, ""]))
            answer = {"Version": 1, "AccessKeyId": "AKID", "SecretAccessKey": "s"}
            (aws / "answer.json").write_text(json.dumps(answer))
            (aws / "config").write_text(
                "[profile role]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = keys\n"
                f"[profile process]\ncredential_process = cat {aws}/answer.json\n"
                f"[profile slow]\ncredential_process = sh {aws}/slow.sh\n"
            )
            (aws / "slow.sh").write_text(
                f"until [ -e {aws}/logged-in ]; do sleep 0.05; done\ncat {aws}/answer.json\n"
            )
            one.env["AWS_ENDPOINT_URL_STS"] = f"http://127.0.0.1:{sts.server_port}"
            one.start_daemon()
            yield one
    finally:
        sts.shutdown()
        sts.server_close()


def conditions(world: World) -> list[dict[str, str]]:
    found: list[dict[str, str]] = world.json("status")["conditions"]
    return found


def states(world: World) -> list[str]:
    return sorted(one["state"] for one in world.json("status")["held_sessions"])


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        ("keys", "profile 'keys' in ~/.aws"),
        ("role", "profile 'keys' in ~/.aws"),
        ("process", "credential_proc"),
    ],
)
def test_twenty_sessions_without_credentials_are_one_condition_that_names_the_mend(
    world: World, profile: str, word: str
) -> None:
    added = world.json("-p", profile, "forward", "api", "0:80", *(f"0:{9000 + n}" for n in range(COUNT - 1)))
    addresses = [
        (host, int(port)) for one in added["forwards"] for host, _, port in [one["local"].rpartition(":")]
    ]
    for address in addresses:
        with socket.create_connection(address, 10) as one:
            one.sendall(b"x")
    until(lambda: states(world) == ["online"] * COUNT, "twenty sessions are up")

    def lose() -> None:
        seen = events(world)
        world.fault("expire-credentials")
        world.fault("rst")
        until(lambda: conditions(world), "a condition is raised")
        until(lambda: states(world) == ["reconnecting"] * COUNT, "all wait")
        [condition] = conditions(world)
        assert condition["code"] == "login-needed"
        assert word in condition["hint"]
        assert profile in condition["text"]
        assert events(world) == seen + 1, "raised once"

    def is_back() -> bool:
        return states(world) == ["online"] * COUNT and not conditions(world)

    lose()
    world.fault("clear")
    credentials = world.folder / "home" / ".aws" / "credentials"
    credentials.write_text(credentials.read_text() + "\n")
    until(is_back, "a login elsewhere brings all back", 15.0)
    assert "box" in fetch(addresses[0])

    lose()
    world.fault("clear")
    world.ok("-p", profile, "ls")
    until(is_back, "a call that works brings all back", 8.0)

    lose()
    world.fault("clear")
    world.run("-p", profile, "login")  # these are not SSO; but whoever asks may have mended them by hand
    until(is_back, "devboxctl login brings all back", 8.0)
    world.remove_forwards()
    world.fault("terminate")
    until(lambda: states(world) == [], "the sessions are ended")


@pytest.mark.parametrize(
    ("words", "then"),
    [
        (("ls",), "web"),
        (("exec", "api", "--", "echo", "well"), "well"),
        (("exec", "-t", "api", "--", "echo", "well"), "well"),
    ],
)
def test_who_waits_for_a_helper_that_waits_for_a_person_is_told(
    world: World, words: tuple[str, ...], then: str
) -> None:
    """And has what was asked for once it gives credentials."""
    done = world.folder / "home" / ".aws" / "logged-in"
    done.unlink(missing_ok=True)
    world.ok("daemon", "restart", "--yes")  # it has what was given before
    with world.terminal("-p", "slow", *words, size=(120, 30)) as terminal:
        terminal.until(r"waiting for the credential_process of profile slow")
        done.touch()
        terminal.until(then)


def events(world: World) -> int:
    return world.ok("events").count("condition.login-needed")

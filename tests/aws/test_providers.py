"""Credentials as they come in the wild: helpers that fail in every way, devices that want a code, console logins."""

from __future__ import annotations

import asyncio
import base64
import getpass
import json
import logging
import shutil
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from botocore.utils import generate_login_cache_key
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from devboxd.aws import clients
from devboxd.aws import helper as helper_module
from devboxd.aws.asker import ASKER, Asker
from devboxd.aws.clients import Caller, Callers
from devboxd.aws.console import dpop
from devboxd.aws.login import Login, LoginStep
from devboxd.errors import BadRequest, DevboxError, LoginNeeded
from devboxd.host.files import replace_file
from devboxd.model.login import Method
from tests.aws.conftest import FixedClock
from tests.aws.fake import Call, FakeAws, error, fake_aws, xml
from tests.kit.processes import is_alive

SECRET = "hunter2-of-the-helper"
GOOD = {"Version": 1, "AccessKeyId": "AKIDP", "SecretAccessKey": SECRET, "SessionToken": "t"}


def helper(home: Path, script: str) -> Path:
    """A profile whose helper is this shell script."""
    program = home / "helper.sh"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    (home / ".aws" / "config").write_text(
        f"[profile work]\nregion = eu-north-1\ncredential_process = {program} --any\n"
    )
    return program


def printed(home: Path, output: bytes) -> None:
    """A profile whose helper prints this."""
    (home / "out").write_bytes(output)
    helper(home, f"cat {home}/out")


def spelled(**more: object) -> bytes:
    return json.dumps(GOOD | more).encode()


@pytest.mark.parametrize(
    ("output", "word"),
    [
        (b"", "printed nothing"),
        (b"\n \n", "printed nothing"),
        (SECRET.encode(), "not JSON"),
        (b"Welcome " + SECRET.encode() + b"\n" + spelled(), "not JSON"),
        (spelled() + b"\nbye " + SECRET.encode(), "not JSON"),
        (b"\xff\xfe" + spelled(), "not JSON"),
        (spelled(AccessKeyId="AK").replace(b"AK", b"\xe9\xff"), "not JSON"),
        (spelled()[:-5], "not JSON"),
        (b"[" + spelled() + b"]", "no credentials"),
        (b'"' + SECRET.encode() + b'"', "no credentials"),
        (b"null", "no credentials"),
        (b"5", "no credentials"),
        (b"{}", "no credentials"),
        (spelled(Version=2), "no credentials"),
        (spelled(Version="1"), "no credentials"),
        (spelled(AccessKeyId=None), "no credentials"),
        (spelled(AccessKeyId=""), "no credentials"),
        (spelled(SecretAccessKey=[SECRET]), "no credentials"),
        (spelled(AccessKeyId="AKID\r\nX-Evil: 1"), "no credentials"),
        (spelled(Expiration="2001-01-01T00:00:00Z"), "expired already"),
        (spelled(Expiration="2001-01-01T00:00:00"), "expired already"),
        (spelled(Expiration="tomorrow"), "no time"),
        (spelled(Expiration=""), "no time"),
        (spelled(Expiration="9999999-01-01T00:00:00Z"), "no time"),
        (spelled(Expiration=4102444800), "no credentials"),
        (spelled(Expiration={"at": SECRET}), "no credentials"),
        (spelled() + b" " * (2 << 20), "far more"),
    ],
)
async def test_a_helper_that_prints_no_credentials_is_named_and_never_quoted(
    callers: Callers, home: Path, output: bytes, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever uses it has to know that it is this program, and what is wrong; what it printed may be a secret."""
    printed(home, output)
    caplog.set_level(logging.DEBUG, "devboxd")
    with pytest.raises(LoginNeeded, match="credential_process of profile 'work'") as needed:
        await callers.caller("work").credentials()
    assert word in needed.value.message
    assert "run the credential_process of profile 'work' by hand" in (needed.value.hint or "")
    for said in (needed.value.message, needed.value.hint or "", caplog.text):
        assert SECRET not in said


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (f"echo {SECRET} >&2; exit 3", "exit status 3"),
        (f"echo {SECRET}; exit 255", "exit status 255"),
        ("kill -9 $$", "signal 9"),
        ("read answer || exit 4; echo $answer", "exit status 4"),
        ("exec 3</dev/tty || exit 5", "exit status"),
    ],
)
async def test_a_helper_that_fails_is_named_and_has_no_terminal_to_ask_on(
    callers: Callers, home: Path, script: str, word: str
) -> None:
    """A question on the daemon's terminal is seen by nobody, and freezes everybody's sessions."""
    helper(home, script)
    with pytest.raises(LoginNeeded, match="credential_process of profile 'work'") as needed:
        await callers.caller("work").credentials()
    assert word in needed.value.message
    assert SECRET not in f"{needed.value.message} {needed.value.hint}"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("/nowhere/helper --secret x", "/nowhere/helper: No such file"),
        ("no-such-helper-at-all", "devboxd has its own PATH"),
        ("/tmp", "Permission denied"),
        ("helper 'open", "quotation mark"),
    ],
)
async def test_a_helper_that_cannot_be_started_says_why(
    callers: Callers, home: Path, command: str, word: str
) -> None:
    """The PATH of a service is not that of a shell, and nothing else tells."""
    (home / ".aws" / "config").write_text(
        f"[profile work]\nregion = eu-north-1\ncredential_process = {command}\n"
    )
    with pytest.raises(LoginNeeded) as needed:
        await callers.caller("work").credentials()
    assert word in needed.value.message
    assert "--secret" not in needed.value.message


async def test_a_helper_that_hangs_is_ended_with_all_that_it_started(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every call would hang behind it, and each left a process behind."""
    helper(home, f"sleep 60 & echo $! > {home}/pid; wait")
    monkeypatch.setattr(helper_module, "HELPER_WITHIN", 2.0)
    with pytest.raises(LoginNeeded, match="did not end within"):
        await callers.caller("work").credentials()
    pid = int((home / "pid").read_text())
    async with asyncio.timeout(20):
        while is_alive(pid):
            await asyncio.sleep(0.02)


@pytest.mark.skipif(shutil.which("setsid") is None, reason="no setsid program here")
@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("yes", "far more"),
        ("setsid -f yes; sleep 60", "far more"),
        ("setsid -f sh -c 'sleep 1; yes'; exit 3", "exit status 3"),
        ("setsid -f sleep 3; sleep 60", "did not end within"),
    ],
)
async def test_a_helper_whose_children_flee_holds_nobody_up(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch, script: str, word: str
) -> None:
    """Who left its group is not ended with it, and still has its output open."""
    helper(home, script)
    monkeypatch.setattr(helper_module, "HELPER_WITHIN", 2.0)
    async with asyncio.timeout(20):
        with pytest.raises(LoginNeeded, match=word):
            await callers.caller("work").credentials()


@pytest.mark.parametrize("leave", ["sleep 20 &", "(sleep 0.1; sleep 20) &", "nohup sleep 20 2>&1 &"])
@pytest.mark.parametrize("order", ["before", "after"])
async def test_an_agent_that_a_helper_leaves_behind_holds_nobody_up(
    callers: Callers, home: Path, leave: str, order: str
) -> None:
    """As gpg, pass and keyrings start theirs: with the helper's output, and for hours."""
    (home / "out").write_bytes(spelled())
    keys = f"cat {home}/out"
    helper(home, f"{leave}\n{keys}\n" if order == "before" else f"{keys}\n{leave}\n")
    async with asyncio.timeout(10):
        assert (await callers.caller("work").credentials()).access_key == GOOD["AccessKeyId"]


@pytest.mark.parametrize("circle", [("work",), ("other", "work"), ("other", "third", "other")])
async def test_a_circle_of_profiles_is_one_sentence(
    callers: Callers, home: Path, circle: tuple[str, ...]
) -> None:
    """With the profile that was asked for, and the setting."""
    text, name = "", "work"
    for source in circle:
        text += f"[profile {name}]\nregion = eu-north-1\nsource_profile = {source}\n"
        text += f"role_arn = arn:aws:iam::123456789012:role/{name}\n"
        name = source
    (home / ".aws" / "config").write_text(text)
    with pytest.raises(BadRequest, match="source_profile links of profile 'work' form a circle"):
        await callers.caller("work").credentials()


async def test_a_failing_helper_is_run_once_a_call(callers: Callers, home: Path) -> None:
    """Some open a page in the browser."""
    helper(home, f"echo x >> {home}/runs; exit 1")
    with pytest.raises(LoginNeeded):
        await callers.caller("work").credentials()
    assert (home / "runs").read_text() == "x\n"


@pytest.mark.parametrize(
    "more",
    [{}, {"Expiration": None}, {"Expiration": "2100-01-01T00:00:00"}, {"Other": [1]}, {"AccountId": "1"}],
)
async def test_a_helper_that_works_is_used(callers: Callers, home: Path, more: dict[str, object]) -> None:
    """Other fields and a time without a zone are in use."""
    printed(home, spelled(**more))
    assert (await callers.caller("work").credentials()).access_key == "AKIDP"


def slow(home: Path, **more: object) -> None:
    """A helper that ends when a file is there, as when a person has logged in on its page."""
    (home / "out").write_bytes(spelled(**more))
    helper(home, f"echo x >> {home}/runs; while ! [ -e {home}/done ]; do sleep 0.02; done; cat {home}/out")


async def asked(callers: Callers, within: float | None, told: list[str], region: str | None = None) -> str:
    """Credentials for a request that has to be answered within these seconds: their access key."""
    until = None if within is None else asyncio.get_running_loop().time() + within
    token = ASKER.set(Asker(told.append, until))
    try:
        return str((await callers.caller("work", region).credentials()).access_key)
    finally:
        ASKER.reset(token)


async def test_a_helper_that_waits_for_a_person_is_named_and_goes_on_for_the_next_one(
    callers: Callers, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "HELPER_TOLD", 0.1)
    slow(home)
    told: list[str] = []
    with pytest.raises(LoginNeeded, match="credential_process of profile 'work' has not ended yet") as needed:
        await asked(callers, 0.3, told)
    assert "page" in (needed.value.hint or "")
    assert told == ["waiting for the credential_process of profile work"]
    async with asyncio.TaskGroup() as tasks:
        again = [tasks.create_task(asked(callers, None, told, region)) for region in (None, "eu-west-1")]
        while len(told) < 3:  # both wait for it
            await asyncio.sleep(0.01)
        (home / "done").touch()
    assert [one.result() for one in again] == ["AKIDP", "AKIDP"]
    assert (home / "runs").read_text() == "x\n", "one run for all who have asked"


async def test_what_a_helper_gives_when_nobody_waits_is_for_the_next_one(
    callers: Callers, home: Path
) -> None:
    slow(home)
    with pytest.raises(LoginNeeded):
        await asked(callers, 0.1, [])
    while not (home / "runs").exists():
        await asyncio.sleep(0.01)
    (home / "done").touch()
    while not callers._helpers._kept:
        await asyncio.sleep(0.01)
    assert await asked(callers, 0.1, []) == "AKIDP"
    assert (home / "runs").read_text() == "x\n"
    assert not callers._helpers._kept, "it is given once"


async def test_what_has_expired_while_nobody_asked_is_not_given(
    callers: Callers, home: Path, clock: FixedClock
) -> None:
    slow(home, Expiration="2100-01-01T00:00:00Z")
    with pytest.raises(LoginNeeded):
        await asked(callers, 0.1, [])
    (home / "done").touch()
    while not callers._helpers._kept:
        await asyncio.sleep(0.01)
    clock.now = 4_200_000_000.0
    (home / "out").write_bytes(spelled())
    assert await asked(callers, None, []) == "AKIDP"
    assert (home / "runs").read_text() == "x\nx\n"


async def test_who_waits_for_another_ones_renewal_is_answered_in_time_too(
    callers: Callers, home: Path, clock: FixedClock
) -> None:
    """botocore renews behind a lock: the second one never comes to the helper."""
    (home / "done").touch()
    slow(home, Expiration="2100-01-01T00:00:00Z")
    assert await asked(callers, None, []) == "AKIDP"
    (home / "done").unlink()
    caller = callers.caller("work")
    credentials: Any = await caller._current().session.get_credentials()
    assert credentials is not None
    credentials._expiry_time -= timedelta(days=365 * 200)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(asked(callers, None, []))
        while (home / "runs").read_text() != "x\nx\n":
            await asyncio.sleep(0.01)
        with pytest.raises(LoginNeeded, match="has not ended yet"):
            await asked(callers, 0.2, [])
        (home / "done").touch()
    assert first.result() == "AKIDP"


async def test_what_has_taken_long_already_does_not_fail_over_its_credentials(
    callers: Callers, home: Path
) -> None:
    """A request that changes much takes minutes, and its credentials may have to be renewed on the way."""
    printed(home, spelled())
    assert await asked(callers, -60.0, []) == "AKIDP"


async def test_a_failure_that_nobody_waited_for_is_not_kept(callers: Callers, home: Path) -> None:
    """The page was closed: who asks next gets another one."""
    helper(
        home, f"echo x >> {home}/runs; while ! [ -e {home}/done ]; do sleep 0.02; done; echo no >&2; exit 4"
    )
    with pytest.raises(LoginNeeded, match="not ended yet"):
        await asked(callers, 0.1, [])
    (home / "done").touch()
    while callers._helpers._runs:
        await asyncio.sleep(0.01)
    with pytest.raises(LoginNeeded, match="exit status 4"):
        await asked(callers, None, [])
    assert (home / "runs").read_text() == "x\nx\n"


async def test_the_end_of_the_daemon_ends_helpers(callers: Callers, home: Path) -> None:
    helper(home, f"sleep 60 & echo $! > {home}/pid.new; mv {home}/pid.new {home}/pid; wait")
    with pytest.raises(LoginNeeded):
        await asked(callers, 0.1, [])
    while not (home / "pid").exists():
        await asyncio.sleep(0.01)
    await callers.close()
    for _ in range(500):
        if not is_alive(int((home / "pid").read_text())):
            return
        await asyncio.sleep(0.01)
    pytest.fail("it still runs")


async def test_a_role_over_a_failing_helper_names_the_helper_too(callers: Callers, home: Path) -> None:
    """The profile that is to be mended is the source, not the one that was asked for."""
    helper(home, "exit 1")
    with (home / ".aws" / "config").open("a") as file:
        file.write(
            "[profile role]\nregion = eu-north-1\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = work\n"
        )
    with pytest.raises(LoginNeeded, match="credential_process of profile 'work'"):
        await callers.caller("role").credentials()


MFA = """[profile base]
region = eu-north-1
aws_access_key_id = AKIDBASE
aws_secret_access_key = s
[profile role]
region = eu-north-1
role_arn = arn:aws:iam::111122223333:role/r
source_profile = base
mfa_serial = arn:aws:iam::111122223333:mfa/me
[profile over]
region = eu-north-1
role_arn = arn:aws:iam::444455556666:role/s
source_profile = role
"""


def assumed(key: str, ends: str = "2100-01-01T00:00:00Z") -> str:
    return (
        '<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>'
        f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
        f"<Expiration>{ends}</Expiration></Credentials><AssumedRoleUser><AssumedRoleId>A:x</AssumedRoleId>"
        "<Arn>arn:aws:sts::1:assumed-role/r/x</Arn></AssumedRoleUser></AssumeRoleResult></AssumeRoleResponse>"
    )


def sts_error(code: str, message: str, status: int = 403) -> web.Response:
    """An error as STS writes it."""
    text = f"<ErrorResponse><Error><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return web.Response(status=status, text=text, content_type="text/xml")


def login(caller: Caller, clock: FixedClock, code: str | None = None) -> AsyncGenerator[LoginStep, None]:
    return Login(caller, clock, replace_file, code=code).run()


WRONG_CODE = "MultiFactorAuthentication failed with invalid MFA one time pass code."


@pytest.fixture
async def sts(home: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """An STS that gives a role, and whatever else a test asks of it."""
    (home / ".aws" / "config").write_text(MFA)

    def never(*_: object, **__: object) -> str:
        pytest.fail("somebody was asked on the daemon's terminal")

    monkeypatch.setattr(getpass, "getpass", never)
    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        fake.on("AssumeRole", xml(assumed("ASIAROLE")))
        fake.on("GetConnectionStatus", {"Target": "i-1", "Status": "connected"})
        yield fake


async def ask(caller: Caller) -> dict[str, object]:
    return await caller.call("ssm", "get_connection_status", Target="i-1")


@pytest.mark.parametrize("profile", ["role", "over"])
async def test_a_device_is_never_asked_about_in_the_daemon(
    sts: FakeAws, callers: Callers, profile: str
) -> None:
    """getpass on the daemon's terminal freezes every session of everybody."""
    caller = callers.caller(profile)
    with pytest.raises(LoginNeeded, match="code of your MFA device") as needed:
        await ask(caller)
    assert f"devboxctl login --profile {profile}" in (needed.value.hint or "")
    assert caller.device() == "arn:aws:iam::111122223333:mfa/me"
    assert caller.source().method is Method.MFA
    assert not sts.made("AssumeRole")


async def test_a_code_opens_the_profile_in_every_region_until_the_role_ends(
    sts: FakeAws, callers: Callers
) -> None:
    """A code is good once: a refresh after a change of network must not cost another."""
    caller, other = callers.caller("role"), callers.caller("role", "eu-west-1")
    await caller.take_code("123456")
    await ask(caller)
    await callers.refresh()
    await ask(caller)
    await ask(other)
    (call,) = sts.made("AssumeRole")
    assert call.body["TokenCode"] == "123456"
    assert call.body["SerialNumber"] == "arn:aws:iam::111122223333:mfa/me"
    assert "ASIAROLE" in sts.made("GetConnectionStatus")[-1].headers["Authorization"]
    assert "123456" not in repr(caller)


async def test_a_wrong_code_is_said_and_what_worked_goes_on(
    sts: FakeAws, callers: Callers, clock: FixedClock
) -> None:
    """A slip of the finger must not end the sessions that are up."""
    caller = callers.caller("role")
    steps = [step async for step in login(caller, clock)]
    assert [step.state for step in steps] == ["code"]
    assert "mfa/me" in steps[0].text
    sts.on("AssumeRole", sts_error("AccessDenied", WRONG_CODE), xml(assumed("ASIAROLE")))
    (step,) = [step async for step in login(caller, clock, code="000000")]
    assert step.failure is not None
    assert step.failure.code == "login-needed"
    assert "does not accept the code" in step.text
    (step,) = [step async for step in login(caller, clock, code="123456")]
    assert step.state == "done"
    await ask(caller)
    sts.on("AssumeRole", sts_error("AccessDenied", WRONG_CODE))
    await anext(login(caller, clock, code="999999"))
    await ask(caller)


async def test_a_role_that_aws_no_longer_takes_wants_a_new_code(sts: FakeAws, callers: Callers) -> None:
    """What is kept must not be shown to AWS for ever."""
    caller = callers.caller("role")
    await caller.take_code("123456")
    sts.on("GetConnectionStatus", error("ExpiredTokenException", "expired"))
    with pytest.raises(LoginNeeded) as needed:
        await ask(caller)
    assert "devboxctl login --profile role" in (needed.value.hint or "")


KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
CONSOLE = "arn:aws:iam::111122223333:user/me"


def console(home: Path, **more: object) -> Path:
    """A profile of ``aws login`` and its cache file."""
    (home / ".aws" / "config").write_text(f"[profile work]\nregion = eu-north-1\nlogin_session = {CONSOLE}\n")
    token = {
        "accessKeyId": "ASIACONSOLE",
        "secretAccessKey": SECRET,
        "sessionToken": "t",
        "accountId": "111122223333",
        "expiresAt": "2100-01-01T00:00:00Z",
    }
    content = {
        "accessToken": token,
        "refreshToken": "r1",
        "clientId": "c",
        "dpopKey": PEM,
        "idToken": "i",
    } | more
    file = home / ".aws" / "login" / "cache" / f"{generate_login_cache_key(CONSOLE)}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


async def test_a_console_login_works_as_it_is(home: Path, callers: Callers) -> None:
    """botocore asks for a further package first."""
    console(home)
    assert (await callers.caller("work").credentials()).access_key == "ASIACONSOLE"
    assert callers.caller("work").source().method is Method.CONSOLE


async def test_a_console_login_is_renewed_with_a_proof_of_its_key(
    home: Path, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds for a quarter of an hour; sessions are held for weeks."""
    old = {"accessKeyId": "O", "secretAccessKey": "s", "sessionToken": "t", "accountId": "1", "expiresAt": "2020-01-01T00:00:00Z"}  # fmt: skip
    file = console(home, accessToken=old)
    new = {"accessKeyId": "ASIANEW", "secretAccessKey": "s2", "sessionToken": "t2"}
    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        fake.on(
            "POST /v1/token",
            {"accessToken": new, "refreshToken": "r2", "expiresIn": 900, "tokenType": "urn:x"},
        )
        assert (await callers.caller("work").credentials()).access_key == "ASIANEW"
        (call,) = fake.calls
        assert call.body["refreshToken"] == "r1"
        head, body, signature = call.headers["DPoP"].split(".")
        assert json.loads(unbase64(body))["htu"].startswith(fake.url)
        raw = unbase64(signature)
        pair = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        KEY.public_key().verify(encode_dss_signature(*pair), f"{head}.{body}".encode(), ec.ECDSA(SHA256()))
    kept = json.loads(file.read_text())
    assert (kept["refreshToken"], kept["idToken"], kept["accessToken"]["accountId"]) == ("r2", "i", "1")
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "more",
    [
        {"accessToken": None},
        {"accessToken": "x"},
        {"accessToken": {"accessKeyId": 5}},
        {"refreshToken": None},
        {"dpopKey": 5},
        {
            "accessToken": {
                "accessKeyId": "A",
                "secretAccessKey": SECRET,
                "sessionToken": "t",
                "expiresAt": "soon",
            }
        },
    ],
)
async def test_a_damaged_console_login_says_to_log_in_again(
    home: Path, callers: Callers, more: dict[str, object]
) -> None:
    """It is a file that several tools write."""
    console(home, **more)
    with pytest.raises(LoginNeeded, match=r"aws login.* of profile 'work'") as needed:
        await callers.caller("work").credentials()
    assert "aws login --profile work" in (needed.value.hint or "")
    assert SECRET not in needed.value.message


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff", b"5"])
async def test_a_console_login_without_a_usable_file_says_so(
    home: Path, callers: Callers, content: bytes | None
) -> None:
    """The profile is set up, and nobody has logged in yet."""
    file = console(home)
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(LoginNeeded, match=r"aws login.* of profile 'work'"):
        await callers.caller("work").credentials()


async def test_a_console_login_that_has_ended_says_to_log_in_again(
    home: Path, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh token ends, too: after half a day, or with a new password."""
    old = {
        "accessKeyId": "O",
        "secretAccessKey": "s",
        "sessionToken": "t",
        "expiresAt": "2020-01-01T00:00:00Z",
    }
    console(home, accessToken=old)
    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        fake.on("POST /v1/token", error("AccessDeniedException", "no", 401))
        with pytest.raises(LoginNeeded, match="has ended") as needed:
            await callers.caller("work").credentials()
    assert "aws login" in (needed.value.hint or "")


OVER = {"accessKeyId": "O", "secretAccessKey": "s", "sessionToken": "t", "expiresAt": "2020-01-01T00:00:00Z"}
NEW = {"accessKeyId": "ASIANEW", "secretAccessKey": "s2", "sessionToken": "t2"}


async def test_the_regions_of_a_profile_renew_a_console_login_once(
    home: Path, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refresh token is good once: whoever came second with it would be sent to log in again."""
    file = console(home, accessToken=OVER)
    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        fake.on(
            "POST /v1/token",
            {"accessToken": NEW, "refreshToken": "r2", "expiresIn": 900, "tokenType": "urn:x"},
            error("AccessDeniedException", "no", 401),
        )
        regions = [callers.caller("work", region) for region in ("eu-north-1", "eu-west-1", "us-east-1")]
        found = await asyncio.gather(*(one.credentials() for one in regions))
        assert [one.access_key for one in found] == ["ASIANEW"] * 3
        assert len(fake.calls) == 1
    assert json.loads(file.read_text())["refreshToken"] == "r2"


async def test_a_console_login_that_another_tool_has_just_renewed_is_taken_from_its_file(
    home: Path, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The aws CLI can be faster between our look at the file and our call."""
    console(home, accessToken=OVER)

    def faster(call: Call) -> web.Response:
        console(home, refreshToken="r2")
        return error("AccessDeniedException", "no", 401)

    async with fake_aws() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        fake.on("POST /v1/token", faster)
        caller = callers.caller("work")
        assert caller.region
        before = caller._generation
        assert (await caller.credentials()).access_key == "ASIACONSOLE"
        assert len(fake.calls) == 1
        assert caller._generation is before, "no session was given up over it"


def test_a_proof_names_the_request_and_the_key() -> None:
    """RFC 9449: who steals the refresh token alone gets nothing."""
    head, body, _ = dpop(KEY, "https://signin.example/v1/token", "n-1", 1_800_000_000).split(".")
    assert json.loads(unbase64(head))["typ"] == "dpop+jwt"
    assert json.loads(unbase64(body)) == {
        "htm": "POST", "htu": "https://signin.example/v1/token", "iat": 1_800_000_000, "jti": "n-1",
    }  # fmt: skip
    x = json.loads(unbase64(head))["jwk"]["x"]
    assert int.from_bytes(unbase64(x), "big") == KEY.public_key().public_numbers().x


@pytest.mark.parametrize(
    "raised", [KeyError("x"), AttributeError(SECRET), AssertionError(), EOFError(), ZeroDivisionError()]
)
async def test_what_botocore_trips_over_is_a_failure_with_a_name(
    sts: FakeAws,
    callers: Callers,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing that it raises may end as a failure of the daemon; its text may quote a secret."""
    caller = callers.caller("base")
    await ask(caller)

    async def trip(*_: object, **__: object) -> object:
        raise raised

    monkeypatch.setattr("aiobotocore.client.AioBaseClient._make_api_call", trip)
    with pytest.raises(DevboxError, match="ssm:GetConnectionStatus failed") as failed:
        await ask(caller)
    assert failed.value.code == "aws-failed"
    assert SECRET not in failed.value.message + caplog.text
    assert "trip" in caplog.text, "where it arose is in the log"


@pytest.mark.parametrize(
    "raised", [KeyError("x"), AttributeError(SECRET), ValueError(SECRET), EOFError(), OSError(SECRET)]
)
async def test_what_a_source_of_credentials_trips_over_is_a_login(
    sts: FakeAws,
    callers: Callers,
    monkeypatch: pytest.MonkeyPatch,
    raised: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It read a file or an answer that others wrote: whoever owns the profile has to look at that."""

    async def trip(*_: object, **__: object) -> object:
        raise raised

    monkeypatch.setattr("aiobotocore.credentials.AioSharedCredentialProvider.load", trip)
    with pytest.raises(LoginNeeded, match=r"credentials of profile 'base' can not be read"):
        await ask(callers.caller("base"))
    assert SECRET not in caplog.text


def unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

"""What ssh and a prompt wait for must start at once, and speak the daemon's language without importing it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from devboxctl.fast import boxes, framed
from devboxd.api import client, wire
from devboxd.host import paths
from tests.ctl.conftest import ROOT
from tests.ctl.fake_daemon import FakeDaemon, Peer

# Everything that proxy, attach, exec and completion may load beyond what the interpreter has at its start.
# Each of the others costs more than it brings: typing 8 ms, asyncio 55, typer 50, msgspec 45, ssl 25.
ALLOWED = {
    "__future__": "a few flags",
    "_collections": "of socket",
    "_functools": "of socket",
    "_operator": "of socket",
    "_signal": "of signal",
    "_socket": "of socket",
    "array": "of socket",
    "collections": "of socket",
    "collections.abc": "of socket",
    "enum": "of socket",
    "errno": "no daemon is not an error",
    "functools": "of socket",
    "itertools": "of socket",
    "keyword": "of socket",
    "math": "of socket",
    "operator": "of socket",
    "reprlib": "of socket",
    "select": "poll",
    "selectors": "of socket",
    "signal": "Ctrl-C",
    "socket": "the daemon",
    "termios": "raw mode",
    "time": "deadlines",
    "types": "of enum",
    # Once something has to be read from the daemon; a status arrives while one waits anyway.
    "_json": "of json",
    "_sre": "of re",
    "copyreg": "of re",
    "json": "of what the daemon says",
    "json.decoder": "of json",
    "json.encoder": "of json",
    "json.scanner": "of json",
    "re": "of json",
    "re._casefix": "of re",
    "re._compiler": "of re",
    "re._constants": "of re",
    "re._parser": "of re",
}


@pytest.mark.parametrize(
    "words",
    [
        ["proxy", "gpu", "22"],
        ["attach", "gpu"],
        ["exec", "gpu", "--", "true"],
        ["ls", "--json"],
        ["_complete", "bash", "2", "devboxctl", "show", ""],
    ],
    ids=lambda words: str(words[0]),
)
def test_the_fast_commands_import_next_to_nothing(daemon: FakeDaemon, words: list[str]) -> None:
    """One innocent import can double what every ssh connection waits for."""

    def ended(peer: Peer, _: FakeDaemon) -> None:
        peer.upgrade()
        if peer.request.get("port") is None:
            peer.exit(status=0)

    daemon.streams |= {"proxy": ended, "attach": ended, "exec": ended}
    daemon.routes["GET boxes"] = {"boxes": []}
    # -S: site-packages may hold start-up hooks (editable installs have) that are not ours.
    code = "from devboxctl.entry import main; main()"
    line = [sys.executable, "-S", "-X", "importtime", "-c", code, *words]
    master, slave = os.openpty()  # attach wants a terminal
    done = subprocess.run(line, capture_output=True, check=False, stdin=slave)
    os.close(slave)
    os.close(master)
    assert done.returncode == 0, done.stderr
    loaded = set(re.findall(r"^import time:[\s\d|]*\| +(\S+)$", done.stderr.decode(), re.MULTILINE))
    bare = subprocess.run(
        [sys.executable, "-S", "-X", "importtime", "-c", "import os"], capture_output=True, check=True
    )
    started = set(re.findall(r"^import time:[\s\d|]*\| +(\S+)$", bare.stderr.decode(), re.MULTILINE))
    ours = {name for name in loaded if name.split(".")[0] in ("devboxctl", "devboxd")}
    assert loaded - started - ours - ALLOWED.keys() == set()
    assert ours <= {
        *("devboxctl", "devboxctl.entry", "devboxctl.fast", "devboxd", "devboxd.api", "devboxd.api.client"),
        *("devboxd.errors", "devboxd.text", "devboxd.typed"),
        *(f"devboxctl.fast.{path.stem}" for path in (ROOT / "devboxctl" / "fast").glob("*.py")),
    }


def test_importing_the_cli_loads_no_aws_sdk_and_no_event_loop() -> None:
    forbidden = [
        "botocore",
        "boto3",
        "aiobotocore",
        "aiohttp",
        "asyncio",
        "keyring",
        "watchfiles",
        "rich",
        "cryptography",
    ]
    code = f"import devboxctl.app, sys; print([m for m in {forbidden!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_numbers_of_the_stream_are_those_of_the_wire_format() -> None:
    for kind in wire.StreamType:
        assert getattr(framed, kind.name) == kind
    assert wire.STREAM_HEADER.size == framed.HEADER_SIZE
    assert framed.STREAM_MAX == wire.STREAM_MAX
    assert framed.INPUT_WINDOW == wire.INPUT_WINDOW
    assert client.UPGRADE == wire.UPGRADE
    assert f"/v{wire.API_VERSION}/" == client.API_PREFIX
    assert framed.frame(0x01, b"abc") == wire.STREAM_HEADER.pack(0x01, 3) + b"abc"
    assert wire.WINDOW_SIZE.pack(80, 24) == bytes((0, 80, 0, 24))


@pytest.mark.parametrize(
    ("table", "struct"),
    [(boxes.LIST, wire.BoxList), (boxes.BOX, wire.Box), (boxes.CONDITION, wire.Condition)],
)
def test_the_defaults_of_the_fast_ls_are_those_of_the_wire_format(
    table: dict[str, object], struct: type
) -> None:
    required: dict[str, object] = {f.name: "" for f in msgspec.structs.fields(struct) if f.required}
    required |= {"boxes": []} if struct is wire.BoxList else {}
    whole = struct(**required)
    assert list(table.items()) == [(name, getattr(whole, name)) for name in whole.__struct_fields__]


def test_what_the_fast_path_asks_for_is_what_the_wire_format_knows() -> None:
    """A misspelt field would be ignored by the daemon, not refused."""
    sources = {
        "attach.py": wire.AttachRequest,
        "execute.py": wire.ExecRequest,
        "proxy.py": wire.ProxyRequest,
    }
    for name, struct in sources.items():
        text = (ROOT / "devboxctl" / "fast" / name).read_text()
        asked = set(re.findall(r'^ +"(\w+)": ', text, re.MULTILINE))
        assert asked, name
        assert asked <= set(struct.__struct_fields__), name


def test_the_tables_of_the_fast_path_are_those_of_the_commands() -> None:
    """A new option that only the slow parser knows costs 50 ms; one that completion does not know is not found."""
    line = [sys.executable, str(ROOT / "tools" / "grammar.py"), "--check"]
    done = subprocess.run(
        line, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_paths_are_those_of_the_daemon(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for environ in (
        dict(os.environ),
        {"HOME": "/h"},
        {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "relative"},
        {"HOME": "/h", "XDG_CONFIG_HOME": "/c", "DEVBOX_SOCKET": "/x/y.sock"},
    ):
        theirs = paths.Paths.from_environment(environ)
        assert str(theirs.socket) == client.socket_path(environ)
        assert str(theirs.state) == client.state_directory(environ)
        assert str(theirs.config) == client.config_directory(environ)
        assert str(theirs.log) == f"{client.state_directory(environ)}/{client.LOG_NAME}"

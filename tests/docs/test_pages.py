"""What the documents list is what the code has: settings, routes, permissions, commands, links."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec
import pytest

from devboxctl import grammar
from devboxctl.app import command, run
from devboxd.api import wire
from devboxd.api.describe import table
from devboxd.aws.errors import action
from devboxd.errors import STATUS, Kind
from devboxd.model import config
from devboxd.model.policy import Audience
from devboxd.model.policy import policy as model_policy
from devboxd.ssm import documents

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TYPER: Any = command()  # click's, under typer's private name


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def first_column(page: str, pattern: str) -> list[str]:
    return re.findall(rf"^\| `({pattern})`", page, re.MULTILINE)


# Settings ---------------------------------------------------------------------------------------------


def settings(kind: type[msgspec.Struct], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names with defaults; a table of boxes is ``boxes.NAME``."""
    for field in msgspec.structs.fields(kind):
        inner, at = field.type, f"{prefix}{field.name}."
        if get_origin(inner) is dict:
            inner, at = get_args(inner)[1], f"{at}NAME."
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            yield from settings(inner, at)
        else:
            made = field.default_factory
            yield f"{prefix}{field.name}", field.default if made is msgspec.NODEFAULT else made()


def test_the_page_lists_every_setting_with_its_default() -> None:
    rows = re.findall(
        r"^\| `([a-z]+\.[A-Za-z_.]+)` \| [^|]+ \| (?:`([^`]*)`|unset) \|", text("docs/configuration.md"), re.M
    )
    listed = {name: default or None for name, default in rows}
    assert listed == {
        name: None if default is None else str(default) for name, default in settings(config.Config)
    }


def test_the_page_lists_every_variable() -> None:
    rows = re.findall(
        r"^\| `(DEVBOX_[A-Z_]+)` \| `([a-z]+)\.([a-z_]+)` \|", text("docs/configuration.md"), re.M
    )
    assert {variable: (section, name) for variable, section, name in rows} == config.VARIABLES


def test_pages_name_settings_that_exist() -> None:
    named = set(re.findall(r"`((?:defaults|boxes|forward|bridge|projects)\.[A-Za-z_.]+)`", text("README.md")))
    for page in ("forwards", "projects", "security", "troubleshooting"):
        named |= set(re.findall(r"`((?:defaults|forward|bridge)\.[a-z_]+)`", text(f"docs/{page}.md")))
    named -= {"forward.added", "projects.db"}  # an event, and a file
    assert len(named) >= 3
    assert named <= {name for name, _ in settings(config.Config)}


def test_examples_of_configuration_are_accepted() -> None:
    indented = re.findall(r"^((?:    \[.*\n)(?:    .*\n|\n)+)", text("docs/configuration.md"), re.MULTILINE)
    examples = [textwrap.dedent(example) for example in indented]
    assert len(examples) == 2
    for example in examples:
        config.merge([config.Layer("example", tomllib.loads(example))])


# The control API --------------------------------------------------------------------------------------


def test_the_page_lists_the_routes_as_they_are() -> None:
    assert table() in text("docs/api.md"), "run: make api-page"


def test_the_page_names_types_of_the_contract() -> None:
    page = text("docs/api.md")
    assert [
        name
        for name in re.findall(r"`([A-Z][a-zA-Z]+)`", page)
        if name != "Upgrade" and not hasattr(wire, name)
    ] == []


def test_the_page_lists_the_stream_frames() -> None:
    rows = re.findall(r"^\| (0x[0-9a-f]{2}) \| ([A-Z_]+) \|", text("docs/api.md"), re.MULTILINE)
    assert {name: int(number, 16) for number, name in rows} == {one.name: int(one) for one in wire.StreamType}
    assert str(wire.INPUT_WINDOW) in text("docs/api.md")
    assert str(wire.OUTPUT_WINDOW) in text("docs/api.md")


def test_the_page_lists_the_http_statuses() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d) \| (\d{3}) \|", text("docs/api.md"), re.MULTILINE)
    answered = {kind: statuses for kind, statuses in STATUS.items() if kind is not Kind.NO_DAEMON}
    assert {kind: (int(status), int(http)) for kind, status, http in rows} == answered


# Permissions ------------------------------------------------------------------------------------------


def policy(name: str) -> dict[str, Any]:
    match = re.search(rf"<!-- policy: {name} -->\n```json\n(.*?)```", text("docs/permissions.md"), re.DOTALL)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def flat(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def modules_that_connect() -> set[Path]:
    """What a connection asks of AWS. The life of projects has a policy of its own, in iac/."""
    folder, found = ROOT / "devboxd" / "aws", set[Path]()
    waiting = ["sessions", "instances", "identity", "connect_keys"]
    while waiting:
        path = folder / f"{waiting.pop()}.py"
        if path not in found:
            found.add(path)
            waiting += re.findall(r"^from devboxd\.aws\.(\w+) import", path.read_text("utf-8"), re.MULTILINE)
    return found


def test_the_policy_allows_exactly_what_is_called_to_connect() -> None:
    allowed = {one for statement in policy("user")["Statement"] for one in flat(statement["Action"])}
    called = {"ssmmessages:OpenDataChannel"}  # the signed websocket
    for path in modules_that_connect():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="call" | "pages"),
                    args=[ast.Constant(value=str(service)), ast.Constant(value=str(operation)), *_],
                ):
                    called.add(action(service, operation))
    assert allowed == called


def test_every_call_is_in_some_policy() -> None:
    """What init account deploys must do, or people hunt for permissions one by one."""
    allowed = [
        one
        for audience in Audience
        for statement in model_policy(audience)["Statement"]
        for one in flat(statement["Action"])
    ]
    called = set()
    for path in (ROOT / "devboxd" / "aws").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="call" | "pages"),
                    args=[ast.Constant(value=str(service)), ast.Constant(value=str(operation)), *_],
                ):
                    called.add(action(service, operation))
    unsigned = {"sso-oauth:CreateToken", "sso-oauth:RegisterClient", "sso-oauth:StartDeviceAuthorization"}
    # A transaction needs the permissions of what is in it.
    made_of_others = {"dynamodb:TransactWriteItems"}
    assert [
        one
        for one in sorted(called - unsigned - made_of_others)
        if not any(fnmatchcase(one, pattern) for pattern in allowed)
    ] == []


def test_the_policy_names_every_document() -> None:
    resources = [one for statement in policy("user")["Statement"] for one in flat(statement["Resource"])]
    named = {one.rpartition("document/")[2] for one in resources if "document/" in one}
    used = {value for name, value in vars(documents).items() if name.isupper()}
    assert named == used
    # The policy that init account writes is model's, which knows nothing of ssm: the same names again.
    source = text("devboxd/model/policy.py")
    assert used == set(re.findall(r"(?:AWS-Start|SSM-Session)\w+", source))


@pytest.mark.parametrize("name", ["user", "box"])
def test_a_policy_fits_into_a_managed_policy(name: str) -> None:
    assert len(json.dumps(policy(name), separators=(",", ":"))) < 6144


# Commands ---------------------------------------------------------------------------------------------


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every devboxctl line in a block, and in running text between back-ticks."""
    for path in PAGES:
        page = path.read_text("utf-8")
        blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL) + re.findall(
            r"^    (.*)$", page, re.MULTILINE
        )
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"`(devboxctl [^`]*)`", page)
        for line in lines:
            for part in re.split(r"\|\s", line):
                if part.strip().startswith("devboxctl "):
                    yield path.name, shlex.split(part.replace("…", ""), comments=True)[1:]


def test_every_command_line_is_one_that_devboxctl_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that is copied from a page and refused is the worst first impression."""
    monkeypatch.setattr(grammar.Command, "invoke", lambda *_: None)
    lines = list(command_lines())
    assert len(lines) > 30
    wrong = []
    for page, words in lines:
        if words and words[0].isupper():  # `devboxctl COMMAND --help`
            continue
        if run(words) != 0 and "missing argument" not in (said := capsys.readouterr().err):  # a mere name
            wrong.append((page, words, said))
    assert wrong == []


def test_every_command_is_on_a_page_for_people() -> None:
    """What only the list of all commands names is found by nobody."""
    written = "".join(
        page.read_text("utf-8") for page in PAGES if page.name not in ("commands.md", "CHANGELOG.md")
    )
    missing = [
        name for name, one in TYPER.commands.items() if not one.hidden and f"devboxctl {name}" not in written
    ]
    assert missing == ["version"]


def test_nothing_in_the_readme_breaks_what_is_pasted() -> None:
    """A profile that the reader does not have would stop every command: no block writes one."""
    for block in re.findall(r"```sh\n(.*?)```", text("README.md"), re.DOTALL):
        assert "profile =" not in block
        assert ">" not in re.sub(r"#.*|->", "", block), "a block that writes a file"


def test_the_readmes_aws_profile_is_one() -> None:
    """As botocore reads it: an SSO profile with its session."""
    block = re.search(r"```ini\n(.*?)```", text("README.md"), re.DOTALL)
    assert block is not None
    settings = configparser.ConfigParser()
    settings.read_string(block[1])
    profile = settings["profile work"]
    assert {"sso_account_id", "sso_role_name", "region"} < set(profile)
    assert set(settings[f"sso-session {profile['sso_session']}"]) >= {"sso_start_url", "sso_region"}


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", text("Makefile"), re.MULTILINE))
    named = {
        word
        for page in PAGES
        for word in re.findall(r"(?:`|^    )make\s([a-z0-9-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert {"demo", "test", "setup", "check", "lock"} <= named
    assert named <= targets


# Links and words --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_files_that_are_named_exist() -> None:
    named = [
        (page.name, name)
        for page in PAGES
        for name in re.findall(
            r"`((?:devboxd|devboxctl|tests|docs|systemd|tools)/[\w./-]+)`", page.read_text("utf-8")
        )
    ]
    assert len(named) > 20
    assert [(page, name) for page, name in named if not (ROOT / name).exists()] == []

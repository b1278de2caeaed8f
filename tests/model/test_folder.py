"""devbox.toml: what a folder may say of itself, and what such a file may not choose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.model.config import Config, ConfigInvalid, Layer, Merged, environment_layer, leaves, merge
from devboxd.model.folder import InFolder, in_folder

PATH = "/src/app/devbox.toml"


def here(text: str, merged: Merged | None = None) -> InFolder:
    return in_folder(merged or merge([]), PATH, text)


def refused(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        here(text)
    assert all(problem.startswith(f"{PATH}: ") for problem in caught.value.problems)
    return caught.value.problems


def test_all_that_it_may_say() -> None:
    found = here(
        'box = "api"\nforwards = [8080, "9000:80"]\n[defaults]\nuser = "ann@corp.example"\nmux = "tmux"\n'
    )
    assert found.folder.box == "api"
    assert found.folder.forwards == ("8080", "9000:80")
    assert (found.merged.config.defaults.user, found.merged.config.defaults.mux) == (
        "ann@corp.example",
        "tmux",
    )
    assert {name: origin for name, origin in found.merged.origins.items() if origin == PATH} == dict.fromkeys(
        ("box", "forwards", "defaults.user", "defaults.mux"), PATH
    )


def test_an_empty_one_changes_nothing() -> None:
    for text in ("", "\ufeff", "# nothing\n", "[defaults]\n", "forwards = []\n"):
        assert here(text).merged.config == Config()


def every_setting() -> Iterator[tuple[str, str]]:
    """Each setting that there is, as a line of a devbox.toml that sets it."""
    whole = msgspec.to_builtins(Config(boxes={}))
    samples = {str: '"x"', int: "5", float: "5.0", bool: "true", list: "[]", tuple: "[]"}
    for name, value in leaves(whole):
        section, _, key = name.partition(".")
        if section != "boxes":
            yield name, f"[{section}]\n{key} = {samples.get(type(value), chr(34) + 'x' + chr(34))}\n"
    for key in ("target", "profile", "region", "user", "mux", "keep_alive", "warm"):
        yield f"boxes.api.{key}", f'[boxes.api]\n{key} = "x"\n'


@pytest.mark.parametrize(
    ("name", "text"), [one for one in every_setting() if one[0] not in ("defaults.user", "defaults.mux")]
)
def test_no_other_setting_is_its_to_make(name: str, text: str) -> None:
    """It may have come with a repository: no account, no credentials, no other instance behind a name, no money."""
    (problem,) = refused(text)
    assert "is not for a devbox.toml" in problem
    assert "config.toml" in problem


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("bx = 1", "there is no setting bx; did you mean box?"),
        ("[defaults]\nusr = 'x'", "did you mean defaults.user?"),
        ("box = 5", "box: Expected"),
        ("box = ' '", "box: ' ' cannot be a box"),
        ("box = ''", "box"),
        ("[defaults]\nuser = '-oProxyCommand=x'", "cannot be a user's name"),
        ("[defaults]\nmux = 'screen'", "one of: zellij, tmux, none"),
        ("defaults = 5", "defaults: Expected a table"),
        ("forwards = 8080", "forwards: Expected"),
        ("forwards = ['db.internal:5432']", "forwards, number 1"),
        ("forwards = ['8080', '0.0.0.0:8080:80']", "forwards, number 2"),
        ("forwards = ['~/.ssh/agent.sock:22']", "forwards, number 1"),
        ("forwards = ['8080\\n']", "forwards"),
        ('forwards = ["8080\\n"]', "forwards, number 1"),
        ("forwards = [true]", "forwards, number 1"),
        ("forwards = [-1]", "forwards, number 1"),
        ("forwards = [[8080]]", "forwards, number 1"),
        ("box = ", "is not TOML"),
        ("\x00", "is not TOML"),
        ("a = " + "[" * 3000, "is not TOML"),
        ("[[boxes]]", "boxes is not for a devbox.toml"),
    ],
)
def test_what_is_wrong_is_named(text: str, says: str) -> None:
    assert says in " ".join(refused(text))


def test_one_bad_value_hides_no_other() -> None:
    assert len(refused("bx = 1\n[defaults]\nprofile = 'p'\nmux = 'screen'\n[link]\nheartbeat = 1\n")) == 4


def test_the_environment_and_what_the_user_says_of_a_box_stand_above_it() -> None:
    """Flag, environment, devbox.toml, config.toml, built in; and a box's own settings before any default."""
    files = Layer(
        "config.toml", {"defaults": {"user": "f", "mux": "zellij"}, "boxes": {"own": {"user": "o"}}}
    )
    text = '[defaults]\nuser = "p"\nmux = "none"\n'
    found = here(text, merge([files, environment_layer({"DEVBOX_MUX": "tmux"})]))
    account = found.merged.config.account_of
    of: Any = found.merged.config.box_ref
    assert account is not None
    plain, own = (of(name, "i-1", msgspec.structs.replace(_nobody())) for name in ("api", "own"))
    assert (plain.user, plain.mux) == ("p", "tmux")
    assert (own.user, own.mux) == ("o", "tmux")
    assert found.merged.origins["defaults.user"] == PATH
    assert found.merged.origins["defaults.mux"] == "environment"
    flags = merge([files, Layer("flag", {"defaults": {"user": "flag"}})])
    assert here(text, flags).merged.config.defaults.user == "flag"


def _nobody() -> Any:
    from devboxd.model.box import Account

    return Account()


def test_everything_else_stays_as_it_is() -> None:
    files = Layer(
        "config.toml",
        {"defaults": {"profile": "p"}, "boxes": {"a": {"warm": [22]}}, "link": {"kms_accounts": ["1" * 12]}},
    )
    before = merge([files])
    after = here('[defaults]\nuser = "u"\n', before).merged
    assert (
        msgspec.structs.replace(
            after.config, defaults=msgspec.structs.replace(after.config.defaults, user=None)
        )
        == before.config
    )


@given(st.text(max_size=300))
def test_whatever_it_holds_is_a_folder_or_a_typed_error(text: str) -> None:
    """It is somebody else's text."""
    try:
        here(text)
    except ConfigInvalid:
        pass

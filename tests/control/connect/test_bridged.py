"""What a client is told of a command that could not be started over a bridge."""

from __future__ import annotations

import pytest

from devboxd.control.connect.bridged import not_started


@pytest.mark.parametrize(
    ("argv", "symbol", "told"),
    [
        (["nosuch"], "ENOENT", "nosuch: No such file or directory (my box)\n"),
        (["nosuch", "a b"], "ENOENT", "nosuch: No such file or directory (my box)\n"),
        (["./data"], "EACCES", "./data: Permission denied (my box)\n"),
        (["./text"], "ENOEXEC", "./text: Exec format error (my box)\n"),
        (["true", "x" * 9], "E2BIG", "true: Argument list too long (my box)\n"),
        (["a\x1b[1mb"], "ENOENT", "a[1mb: No such file or directory (my box)\n"),
        (["\udcff"], "ENOENT", None),
    ],
)
def test_it_is_said_as_a_shell_would(argv: list[str], symbol: str, told: str | None) -> None:
    """The same as without a bridge."""
    text = not_started(argv, symbol, "my box")
    text.encode("utf-8", "replace")
    assert told is None or text.replace(" [1m", "[1m") == told


@pytest.mark.parametrize("line", ["echo hi; id -un", "uname -a", "cd /tmp && ls"])
def test_a_line_in_one_word_as_ssh_takes_it_is_told_what_does_it(line: str) -> None:
    """The habit of whoever comes from ssh."""
    text = not_started([line], "ENOENT", "my box")
    assert text.endswith("\na line for a shell is run by: devboxctl exec 'my box' sh -c 'LINE'\n")

"""JSON to the daemon and failures from it, without importing json before it is needed."""

from __future__ import annotations

import os
import sys

from devboxd.api import client
from devboxd.errors import Kind, exit_status
from devboxd.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Value = str | int | float | bool | None | list[str] | dict[str, str]


STUCK = 0.5  # seconds for a terminal to take what we say
VERSION = 1  # of what ``--json`` prints: fields are added, never renamed


class Manner:
    """How we speak: to people, or to programs."""

    @property
    def json(self) -> bool:
        """Whether programs read it."""
        return not client.is_chatty

    @json.setter
    def json(self, value: bool) -> None:
        client.is_chatty = not value


manner = Manner()


class UsageError(Exception):
    """The command line cannot mean anything. Exit status 2."""

    code = "usage"
    kind = Kind.USAGE

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class OutputFailed(client.ClientError):
    """What there was to say could not be written."""

    code = "output-failed"
    kind = Kind.FAILED
    retryable = False


def cannot_write(where: str, error: OSError) -> OutputFailed:
    """The failure to write, in words."""
    if error.errno == 9:  # EBADF
        return OutputFailed(f"{where} is closed")
    return OutputFailed(f"cannot write to {where}: {error.strerror}")


class ReaderGone(Exception):
    """Nobody reads standard output any more (``| head``). No OSError: typer has ideas of its own about those."""


def write(text: str) -> None:
    """Write data to standard output. What its encoding cannot spell is replaced.

    Raises:
        ReaderGone: nobody reads it.
        OutputFailed: it could not be written (closed, disk full).
    """
    out = sys.stdout
    if out is None:
        raise OutputFailed("standard output is closed")
    try:
        try:
            out.write(text)
        except UnicodeEncodeError:
            out.write(text.encode(out.encoding, "replace").decode(out.encoding))
        out.flush()
    except BrokenPipeError:
        sys.stdout = None  # nothing may be flushed at exit either
        raise ReaderGone from None
    except OSError as error:
        sys.stdout = None
        raise cannot_write("standard output", error) from None


def encode(values: Mapping[str, Value]) -> bytes:
    """Build a JSON object; values that are None are left out (they are the daemon's defaults)."""
    text = ",".join(f"{_quote(k)}:{_encode(v)}" for k, v in values.items() if v is not None)
    try:
        return f"{{{text}}}".encode()
    except UnicodeEncodeError:
        raise UsageError("an argument is not valid UTF-8") from None


def _encode(value: Value) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, list):
        return f"[{','.join(map(_quote, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(k)}:{_quote(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _quote(text: str) -> str:
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    if not text.isprintable():
        text = "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in text)
    return f'"{text}"'


def failure_of(error: client.ClientError) -> dict[str, object]:
    """Read what the daemon said about a refused request; the same shape for failures of our own."""
    if isinstance(error, client.Refused):
        import json

        try:
            found = json.loads(error.body)
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("message"), str):
            return {"code": "internal", "exit_status": 1, "retryable": False, **found}
        hint = "is devboxctl newer than the daemon? try: devboxctl daemon restart"
        return {"code": error.code, "message": error.message, "hint": hint, "exit_status": 1}
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
        "exit_status": exit_status(error.kind),
    }


def usage_failure(error: UsageError) -> dict[str, object]:
    """A command line that cannot mean anything, in the shape of ``failure_of``."""
    return {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_status": exit_status(error.kind),
    }


def show_failure(failure: Mapping[str, object]) -> int:
    """Print ``error: …`` and ``hint: …`` on standard error, or JSON if asked. Returns the exit status."""
    failure = _with_own_keys(failure)
    if manner.json:
        return _show_failure_json(failure)
    lines = f"error: {printable(str(failure.get('message')))}\n"
    if hint := failure.get("hint"):
        lines += f"hint: {printable(str(hint))}\n"
    say(fitted(lines))
    status = failure.get("exit_status")
    return status if isinstance(status, int) else 1


def _with_own_keys(failure: Mapping[str, object]) -> Mapping[str, object]:
    """Where credentials are missing and this shell has some, that is the shortest way to mend it."""
    if failure.get("code") != "login-needed" or not os.environ.get("AWS_ACCESS_KEY_ID"):
        return failure
    lend = "devboxctl login --from-environment"
    mine, hint = f"this shell has credentials; lend them to the daemon with: {lend}", failure.get("hint")
    if hint and lend in str(hint):
        return failure  # that is said already: they have to be renewed here before
    return {**failure, "hint": f"{hint}; or: {mine}" if hint else mine}


def _show_failure_json(failure: Mapping[str, object]) -> int:
    import json

    shown = {key: failure.get(key) for key in ("code", "message", "hint", "retryable")}
    code = shown["code"] or "internal"
    say(json.dumps({**shown, "code": code, "retryable": bool(shown["retryable"]), "version": VERSION}) + "\n")
    status = failure.get("exit_status")
    return status if isinstance(status, int) else 1


def show_unexpected(error: BaseException) -> int:
    """Report a bug in one line; with ``DEVBOX_DEBUG=1`` in full."""
    if os.environ.get("DEVBOX_DEBUG", "") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
        return 1
    text = printable(f"{type(error).__name__}: {error}")[:300]
    return show_failure(
        {
            "code": "internal",
            "message": f"devboxctl failed unexpectedly: {text}",
            "hint": "DEVBOX_DEBUG=1 shows more; the daemon's log: devboxctl daemon logs",
        }
    )


def fitted(text: str, indent: str = "  ", descriptor: int = 2) -> str:
    """The text, its long lines broken between words where a terminal shows it: that would cut a word in two."""
    try:
        columns = int(os.environ.get("COLUMNS", "0")) or os.get_terminal_size(descriptor).columns
    except (OSError, ValueError):
        return text  # no terminal: a line stays a line
    if columns <= 0 or not os.isatty(descriptor) or all(len(line) <= columns for line in text.split("\n")):
        return text
    from devboxctl.fast.lines import wrapped

    return wrapped(text, columns, indent)


def say(text: str) -> None:
    """Write to standard error; a closed one is not worth another error, a stuck terminal no waiting."""
    if sys.stderr is None:
        return
    try:
        if os.isatty(2):
            _say_to_terminal(text)
            return
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        sys.stderr = None  # what is still in its buffer must not be tried once more at exit


def _say_to_terminal(text: str) -> None:
    import time

    from devboxctl.fast.pipe import Output

    sys.stderr.flush()
    output = Output(2)
    output.put(text.encode("utf-8", "replace"))
    until = time.monotonic() + STUCK
    while output.waiting and time.monotonic() < until:
        if not output.flush():
            time.sleep(0.005)


def reported(run: Callable[[], int], lost: int | None = None) -> int:
    """Run something and print its failure; ``lost`` replaces the status of one where a remote one is expected."""
    try:
        return run()
    except client.ClientError as error:
        status = show_failure(failure_of(error))
        return status if lost is None else lost
    except UsageError as error:
        return show_failure(usage_failure(error))


def shell_word(text: str) -> str:
    """A name as one word for a shell, for a line that a person may copy."""
    if text and all((c.isascii() and c.isalnum()) or c in "-_./:@+" for c in text):
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def query(**values: str | None) -> str:
    """Build ``?a=b``; empty when there is nothing to ask."""
    given = [f"{name}={escape(value)}" for name, value in values.items() if value is not None]
    return "?" + "&".join(given) if given else ""


def escape(text: str) -> str:
    """Percent-encode for a path or a query."""
    return "".join(
        chr(b) if (chr(b).isalnum() and b < 128) or b in b"-._~" else f"%{b:02X}"
        for b in text.encode("utf-8", "surrogateescape")
    )

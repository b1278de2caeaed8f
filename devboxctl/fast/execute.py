"""``devboxctl exec BOX [-t] -- CMD…``: run a command on a box; its output byte for byte, its exit status too.

Without ``-t`` standard output and error stay apart and a full pipe holds up the remote command. 255 means
that the command could not be run or was lost, as with ssh.
"""

from __future__ import annotations

import os
import signal
import time

from devboxctl.fast import folder, framed, reply, words
from devboxctl.fast.attach import Attach
from devboxctl.fast.framed import Framed
from devboxctl.fast.pipe import Output
from devboxctl.fast.pump import Left, Pump, notice
from devboxctl.fast.status import LINE, Status
from devboxctl.fast.terminal import Signals, is_dumb
from devboxd.api import client
from devboxd.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devboxctl.fast.pump import Json
    from devboxctl.fast.reply import Value
    from devboxctl.fast.words import Words

LOST = 255
FINDING = "looking for the box"
LINE_AFTER = 1.0  # seconds before a wait is shown: a session takes one to start
GOES_ON_AFTER = (
    2.0  # seconds that a command may need to end of a signal before it is said what another one does
)
# Programs that read what is typed at them: the first always, the others where they are given nothing to read.
FILTERS = ("tee", "tr", "xargs")
READERS = (
    *(
        "ash",
        "bash",
        "bc",
        "cat",
        "dash",
        "dc",
        "fish",
        "gunzip",
        "gzip",
        "ksh",
        "mysql",
        "node",
        "od",
        "perl",
    ),
    *(
        "php",
        "psql",
        "python",
        "python2",
        "python3",
        "redis-cli",
        "ruby",
        "sh",
        "sort",
        "sqlite3",
        "uniq",
        "wc",
    ),
    "zsh",
)


class Execute(Pump):
    """Pipes on a remote command."""

    def __init__(self, request: bytes, *, stdin: bool) -> None:
        super().__init__(interactive=False, stdin=stdin, credit_output=True)
        self.error_output = self._beside = Output(2)
        self.has_output = False
        self._request = request
        self._interrupts = 0
        self._goes_on_at: float | None = None  # when it is said that the command does not end of its signal
        # Only people are told how the session does: standard error belongs to the command.
        is_shown = os.isatty(2) and not is_dumb()
        self._status = Status(LINE, notice, after=LINE_AFTER) if is_shown else None

    def execute(self) -> None:
        """Run to the end of the command. Raises Left, ClientError."""
        connection = self.ask()
        with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT) as signals:
            try:
                self.connected(connection)
                self.pump(signals)
            finally:
                self._make_way()
                if self.connection is not None:
                    self.connection.close()

    def ask(self) -> Framed:
        return Framed(client.connect_or_start(), "exec", self._request)

    def connected(self, connection: Framed) -> None:
        """Until the daemon answers it looks for the box, and AWS may be far away."""
        super().connected(connection)
        if self._status is not None:
            self._write(self._status.set("starting", FINDING, time.monotonic()))

    def on_open(self) -> None:
        super().on_open()
        if self._status is not None:
            self._write(self._status.set("online", "", time.monotonic()))

    def on_status(self, news: Json) -> None:
        state, text = str(news.get("state")), printable(str(news.get("text") or ""))
        if state == "notice":
            self._make_way()
            notice(text)
        elif self._status is not None:
            self._write(self._status.set(state, text, time.monotonic()))

    def _on_frame(self, kind: int, payload: bytes) -> None:
        if kind in (framed.OUTPUT, framed.ERROR_OUTPUT, framed.EXIT):
            self._make_way()
        super()._on_frame(kind, payload)

    def _make_way(self) -> None:
        """Take our line away: the command has something to say."""
        if self._status is not None:
            self._write(self._status.make_way(time.monotonic()))

    def _write(self, data: bytes) -> None:
        """Write our line beside the output, ahead of what comes next: both may be one terminal."""
        if data:
            self._beside.put(data)
            self._beside.flush()

    def next_deadline(self) -> float | None:
        times = (
            super().next_deadline(),
            self._goes_on_at,
            None if self._status is None else self._status.due,
        )
        return min((at for at in times if at is not None), default=None)

    def on_time(self, now: float) -> None:
        super().on_time(now)
        if self._goes_on_at is not None and now >= self._goes_on_at:
            self._goes_on_at = None
            if self.exit is None:
                self._make_way()
                notice("the command goes on; the next Ctrl-C leaves it, and hangs it up")
        if self._status is not None and self._status.due is not None and now >= self._status.due:
            self._write(self._status.draw(now))

    def on_output(self, data: bytes) -> None:
        self.has_output = True
        super().on_output(data)

    def on_signal(self, number: int) -> None:
        """Pass it on and wait for the command to end of it; the second one ends us."""
        self._interrupts += 1
        if self._interrupts > 1 or self.connection is None or not self.connection.open:
            raise Left(128 + number)
        if self._status is not None:
            self._goes_on_at = time.monotonic() + GOES_ON_AFTER
        self.connection.send(framed.SIGNAL, bytes((number,)))


def main(line: list[str]) -> int | None:
    """Run from the words after ``exec``; None leaves them to the full parser."""
    line, command = words.cut(line, words.valued("exec"), 1)
    given = words.parse(line, "exec")
    if given is None or not command or len(given.arguments) != 1 or is_several(given):
        return None
    options = given.options
    try:
        environment = dict(pair(text) for text in given.repeated.get("env", ()))
    except ValueError:
        return None
    return execute(
        given.arguments[0],
        command,
        tty="tty" in given.flags,
        stdin="no_stdin" not in given.flags,
        user=options.get("user"),
        cwd=options.get("cwd"),
        env=environment,
        profile=options.get("profile"),
        region=options.get("region"),
    )


def is_several(given: Words) -> bool:
    """Tell whether more than one box may be meant; ``devboxctl.several`` sees to that."""
    return "tag" in given.repeated or any(c in ",*?[" for c in given.arguments[0])


def pair(text: str) -> tuple[str, str]:
    """Read ``NAME=VALUE``; ``NAME`` alone takes our own value. Raises ValueError.

    A name begins with a letter or ``_``: ``env`` on the box takes ``-i=1`` for options of its own.
    """
    name, equals, value = text.partition("=")
    is_name = name[:1] == "_" or (name[:1].isascii() and name[:1].isalpha())
    if not is_name or (not equals and name not in os.environ):
        raise ValueError(text)
    return name, value if equals else os.environ[name]


def reads_input(command: list[str]) -> bool:
    """Guess whether a command that said nothing was waiting for what is typed."""
    name = command[0].rpartition("/")[2]
    return name in FILTERS or (name in READERS and all(word.startswith("-") for word in command[1:]))


def execute(
    box: str,
    command: list[str],
    *,
    tty: bool = False,
    stdin: bool = True,
    user: str | None = None,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    profile: str | None = None,
    region: str | None = None,
) -> int:
    """Run ``command`` and return its exit status."""
    # Keys typed at a command that has no terminal would be echoed and edited here: keep them for the shell.
    kept = stdin and not tty and os.isatty(0)
    stdin = stdin and not kept
    request: dict[str, Value] = {
        "box": box,
        "argv": command,
        "tty": tty or None,
        "stdin": stdin,
        "user": user,
        "cwd": cwd,
        "env": env or None,
        "term": os.environ.get("TERM") or "xterm-256color",
        "profile": profile,
        "region": region,
    }

    def run() -> int:
        request["folder"] = folder.said()
        try:
            if tty:
                joined = Attach(request, path="exec", escape=None, rejoins=False, stdin=stdin)
                joined.attach()
                end = joined.exit
            else:
                piped = Execute(reply.encode(request), stdin=stdin)
                piped.execute()
                end = piped.exit
                if kept and not piped.has_output and reads_input(command):
                    notice(f"{command[0]} had no input: a terminal is passed on with devboxctl exec -t")
        except Left as left:
            if left.status == 128 + signal.SIGPIPE:
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGPIPE)  # what the shell expects of `exec … | head`
            return left.status
        return _status(end or {})

    return reply.reported(run, lost=LOST)


def _status(end: dict[str, object]) -> int:
    failure, status = end.get("failure"), end.get("status")
    if isinstance(failure, dict):
        reply.show_failure(failure)
        return LOST
    if isinstance(status, int):
        return status
    reply.show_failure({"message": end.get("reason") or "the command ended without an exit status"})
    return LOST

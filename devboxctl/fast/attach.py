"""``devboxctl attach BOX [SESSION]``: a terminal that stays joined to a session, whatever happens to the
network, the daemon or the box.

Rules for keys typed while something is away:

* the link to the box is lost, the session is not (``reconnecting``): keys go to the daemon, which delivers
  them to the same session in order, or not at all;
* the daemon is away, or a new session has to be opened (``reopening``): keys are dropped, with a bell and a
  word in the status line. What comes back may not be what was typed at, and a command typed blindly is
  worse than one typed twice. The escapes (``~.`` and the others) always work.

The terminal is given back as it was on every way out, and modes that the remote program had switched on
(mouse, other screen, bracketed paste, …) are switched off.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time

from devboxctl.fast import folder, framed, reply, screen, status, words
from devboxctl.fast.escape import HELP, HELP_TEXT, LEAVE, SUSPEND, Escapes, escape_character
from devboxctl.fast.framed import Framed
from devboxctl.fast.pump import Left, Pump, notice
from devboxctl.fast.status import Status
from devboxctl.fast.terminal import Signals, Terminal, is_dumb, size, stop_self
from devboxd.api import client
from devboxd.text import printable
from devboxd.typed import INTERRUPT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from devboxctl.fast.pump import Json
    from devboxctl.fast.reply import Value
    from devboxd.api.starting import Starting

FIRST_RETRY, LAST_RETRY = 0.05, 2.0  # seconds between two tries to reach the daemon again
SPAWN_AFTER = 0.5  # seconds without a daemon before we start one
SPAWN_GAP, SPAWN_EVERY = 1.0, 15.0  # seconds before the next, doubling; the last while one is coming
ANSWER = 30.0  # seconds for a daemon that accepts to answer
LINE_AFTER = 0.3  # seconds that trouble must last before it is shown
LEAVE_AFTER = 1.0  # seconds for the daemon to confirm that we leave


class Attach(Pump):
    """One terminal on one session (or, for ``exec -t``, on one command)."""

    def __init__(
        self,
        request: dict[str, Value],
        *,
        path: str = "attach",
        escape: int | None = ord("~"),
        rejoins: bool = True,
        stdin: bool = True,
    ) -> None:
        terminal = os.isatty(0)
        super().__init__(interactive=terminal, stdin=stdin, credit_output=path == "exec")
        self.request = request
        self.path = path
        self.joined = False  # once: from then on a lost daemon is waited for
        self.modes = screen.Modes()
        self._rejoins = rejoins
        self._escape = escape
        self._escapes = Escapes(escape if terminal else None)
        self._terminal = Terminal() if terminal else None
        self._shows = os.isatty(1) and not is_dumb()
        place = status.TITLE if request.get("raw") else status.BOTTOM
        leaves = "" if escape is None else f"; {chr(escape)}. leaves"
        self.status = Status(place if self._shows else status.WORDS, notice, after=LINE_AFTER, leaves=leaves)
        self._seen_output = False
        self._redraw_at: float | None = None
        self._bell_at = 0.0
        self._lost_at: float | None = None
        self._retry_at: float | None = None
        self._retry_delay = FIRST_RETRY
        self._answer_by: float | None = None
        self._spawn_at = 0.0
        self._spawned_at = 0.0
        self._spawn_gap = SPAWN_GAP
        self._starting: Starting | None = None
        self._leave_by: float | None = None
        self._leaving = False

    # Beginning and end.

    def attach(self) -> None:
        """Join, and stay until the end. Raises Left, ClientError. The terminal is restored in every case."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
        job_control = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT)
        connection = self.ask()
        with Signals(*numbers, *job_control) as signals:
            try:
                self.connected(connection)
                self.pump(signals)
            finally:
                self._give_back()

    def _give_back(self) -> None:
        undo = self.status.clear() + self.modes.undo()
        if self._shows and undo:
            self.output.put(undo)
        if self.interactive:  # bounded: a window that takes nothing is left as it is
            until = time.monotonic() + 0.2
            while self.output.waiting and time.monotonic() < until:
                if not self.output.flush():
                    time.sleep(0.005)
        if self._terminal is not None:
            self._terminal.restore()
        if self._starting is not None:
            self._starting.release()
        if self.connection is not None:
            self.connection.close()

    def _request(self) -> bytes:
        columns, rows = size()
        rejoin = True if self._lost_at is not None else None  # this terminal has been here before
        return reply.encode({**self.request, "columns": columns, "rows": rows, "rejoin": rejoin})

    # The daemon.

    def ask(self) -> Framed:
        return Framed(client.connect_or_start(), self.path, self._request())

    def on_open(self) -> None:
        self._retry_delay, self._retry_at, self._answer_by = FIRST_RETRY, None, None
        if self._terminal is not None:
            self._terminal.raw()
        if self._starting is not None:
            self._starting.release()
            self._starting = None
        if self._lost_at is not None:
            self._lost_at = None
            self._set_state("reopening", "the daemon is back: joining again")
            self._send_size()

    def on_lost(self, error: client.ClientError) -> None:
        self.disconnected()
        if self._leaving:
            raise Left(0)
        if not self._rejoins or (self._lost_at is None and not self.joined):
            raise error
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._spawn_at, self._spawn_gap = now + SPAWN_AFTER, SPAWN_GAP
            self._set_state("lost", "the daemon is gone: waiting for it")
        self._retry_at = now + self._retry_delay
        self._retry_delay = min(LAST_RETRY, self._retry_delay * 2)

    def _retry(self, now: float) -> None:
        self._retry_at = None
        from devboxd.api import starting

        path = client.socket_path()
        if starting.is_stopped(path):
            self.status.text = "devboxd was stopped: devboxctl daemon start brings it back"
            self.on_lost(client.ClientError("devboxd was stopped"))
            return
        try:
            connection = client.connect(path)
            self.connected(Framed(connection, self.path, self._request()))
            self._answer_by = now + ANSWER
        except client.NotTrusted:
            raise
        except (OSError, client.ClientError) as error:
            missing = getattr(error, "errno", None) in (errno.ENOENT, errno.ECONNREFUSED)
            if missing and now >= self._spawn_at and not self._one_is_coming(now):
                self._spawned_at, self._spawn_at = now, now + self._spawn_gap
                self._spawn_gap = min(SPAWN_EVERY, self._spawn_gap * 2)
                try:
                    if self._starting is not None:
                        self._starting.release()
                    self._starting = starting.Starting(path)
                except client.ClientError as failure:
                    self.status.text = failure.message
            self.on_lost(client.ClientError("devboxd is gone and did not come back"))

    def _one_is_coming(self, now: float) -> bool:
        """Say whether the daemon that we have started is still on its way."""
        return self._starting is not None and now < self._spawned_at + SPAWN_EVERY and self._starting.alive()

    def refused(self, error: client.Refused) -> bool:
        """Say whether to go on trying after the daemon has refused to let us join again."""
        if self._lost_at is None:
            return False
        failure = reply.failure_of(error)
        if not failure.get("retryable") and error.status < 500:
            return False
        self.status.text = str(failure["message"])
        self.on_lost(error)
        return True

    def _receive(self, connection: Framed) -> None:
        try:
            super()._receive(connection)
        except client.Refused as error:
            if not self.refused(error):
                raise

    def on_hung(self, error: client.NotAnswering) -> None:
        if not self.joined and self._lost_at is None:
            super().on_hung(error)
        elif error.is_sure:  # a line over the screen for a machine that is only busy would be worse than none
            self._set_state("silent", error.message)  # keys go to it all the same

    def on_answering(self) -> None:
        if self.status.state == "silent":
            self._set_state("online", "")

    # News and output.

    def on_output(self, data: bytes) -> None:
        self.output.put(self.status.make_way(time.monotonic()))
        self._seen_output = self.joined = True
        if self._shows:
            self.modes.watch(data)
        self.output.put(data)

    def on_status(self, news: Json) -> None:
        state, text = str(news.get("state")), printable(str(news.get("text") or ""))
        if state == "notice":
            self.status.tell(text, time.monotonic())
            return
        self.joined = self.joined or state == "online"
        self._set_state(state, text)
        if text and state == "online" and news.get("mux") in (None, "none"):
            # No mux, so no screen to spoil: a plain shell is joined and there is something to know about it.
            if self._shows:
                self.output.put(f"\r\n[devbox: {text}]\r\n".encode())
            else:
                notice(text)

    def _set_state(self, state: str, text: str) -> None:
        now = time.monotonic()
        self.output.put(self.status.set(state, text, now))
        self._draw_again(now)

    def _draw_again(self, now: float) -> None:
        if self.status.erased:
            self.status.erased = False
            self._redraw(now)

    def _draw(self, now: float) -> None:
        if self.output.waiting:  # the window is stuck, or output is still coming
            self.status.due = now + 1.0
            return
        self.output.put(self.status.draw(now))
        self._draw_again(now)

    def _redraw(self, now: float) -> None:
        """Make the mux draw everything again: it ignores a size that does not change, so change it twice."""
        if not self._seen_output or self.request.get("raw"):
            return
        columns, rows = size()
        self._send_size(columns, max(1, rows - 1))
        self._redraw_at = now + 0.15  # longer than the daemon collects sizes

    def _send_size(self, columns: int = 0, rows: int = 0) -> None:
        if not columns:
            columns, rows = size()
        if self.connection is not None and self.connection.open:
            self.connection.send(framed.RESIZE, columns.to_bytes(2, "big") + rows.to_bytes(2, "big"))

    # Keys and signals.

    def _keys_are_dropped(self) -> bool:
        return self._lost_at is not None or self.status.drops_keys

    def on_input(self, data: bytes) -> None:
        if self.interactive and not self.joined and INTERRUPT in data:
            self._detach()  # nothing is on the screen yet that it could be meant for
            raise Left(128 + signal.SIGINT)
        for item in self._escapes.feed(data):
            if isinstance(item, bytes):
                if self.interactive and self._keys_are_dropped():
                    self._ring()
                else:
                    self.queue(item)
            elif item == LEAVE:
                self.leave()
            elif item == SUSPEND:
                self._suspend(whole_group=True)
            elif item == HELP and self._escape is not None:
                text = HELP_TEXT.format(e=chr(self._escape))
                self.output.put(f"\r\n{text}".encode())

    def _ring(self) -> None:
        now = time.monotonic()
        if self._shows and now - self._bell_at > 1.0 and not self.output.waiting:
            self._bell_at = now
            self.output.put(b"\a")
            self.status.hurry(now)

    def on_end_of_input(self) -> None:
        if self.interactive:
            raise Left(128 + signal.SIGHUP)  # the window was closed
        super().on_end_of_input()

    def leave(self) -> None:
        """Leave the session to itself; the daemon is given a moment to confirm it."""
        self._leaving = True
        if self.connection is None or not self.connection.open:
            raise Left(0)
        self.unsent.clear()
        self.connection.send(framed.DETACH)
        self._leave_by = time.monotonic() + LEAVE_AFTER

    def on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self.status.hurry(time.monotonic())
            self._send_size()
        elif number == signal.SIGTSTP:
            self._suspend(whole_group=False)
        elif number == signal.SIGCONT:
            self._resumed()
        else:
            self._detach()
            raise Left(128 + number)

    def _detach(self) -> None:
        """Tell the daemon that we leave, without waiting for its answer."""
        if self.connection is not None and self.connection.open:
            self.connection.send(framed.DETACH)
            try:
                self.connection.flush()
            except client.ClientError:
                pass

    def _suspend(self, *, whole_group: bool) -> None:
        if self._shows:
            self.output.put(self.status.clear() + self.modes.undo())
            self.output.flush()
        if self._terminal is not None:
            self._terminal.restore()
        stop_self(whole_group)
        self._resumed()

    def _resumed(self) -> None:
        if self._terminal is not None and (self._seen_output or (self.connection and self.connection.open)):
            self._terminal.raw()
        self._send_size()
        self._redraw(time.monotonic())

    def on_broken_output(self) -> None:
        if self.interactive:
            raise Left(128 + signal.SIGHUP)
        super().on_broken_output()

    # Time.

    def next_deadline(self) -> float | None:
        times = (
            *(self.status.due, self._redraw_at, self._retry_at, self._answer_by, self._leave_by),
            super().next_deadline(),
        )
        return min((t for t in times if t is not None), default=None)

    def on_time(self, now: float) -> None:
        if self._leave_by is not None and now >= self._leave_by:
            raise Left(0)
        if self._redraw_at is not None and now >= self._redraw_at:
            self._redraw_at = None
            self._send_size()
        if self._retry_at is not None and now >= self._retry_at:
            self._retry(now)
        if self._answer_by is not None and now >= self._answer_by:
            self._answer_by = None
            self.on_lost(client.DaemonLost("devboxd does not answer"))
        super().on_time(now)
        if self.status.due is not None and now >= self.status.due:
            self._draw(now)


def main(line: list[str]) -> int | None:
    """Run from the words after ``attach``; None leaves them to the full parser."""
    given = words.parse(line, "attach")
    if given is None or not 0 < len(given.arguments) < 3 or os.environ.get("DEVBOX_BOX"):
        return None
    try:
        escape = escape_character(given.options.get("escape", "~"))
    except ValueError:
        return None
    options = given.options
    box, session = given.arguments[0], given.arguments[1] if len(given.arguments) > 1 else "main"
    return attach(
        box,
        session,
        raw="raw" in given.flags,
        command=options.get("command"),
        user=options.get("user"),
        mux=options.get("mux"),
        forward_agent="forward_agent" in given.flags,
        up="up" in given.flags,
        escape=escape,
        profile=options.get("profile"),
        region=options.get("region"),
    )


def attach(
    box: str,
    session: str = "main",
    *,
    raw: bool = False,
    command: str | None = None,
    user: str | None = None,
    mux: str | None = None,
    forward_agent: bool = False,
    up: bool = False,
    escape: int | None = ord("~"),
    profile: str | None = None,
    region: str | None = None,
) -> int:
    """Attach this terminal and return the exit status when it has been given back."""
    environment = os.environ
    request: dict[str, Value] = {
        "box": box,
        "session": session,
        "raw": raw or None,
        "command": command,
        "user": user,
        "term": environment.get("TERM") or "xterm-256color",
        "colorterm": environment.get("COLORTERM"),
        "locale": environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG"),
        "mux": mux,
        "forward_agent": forward_agent or None,
        "ssh_auth_sock": environment.get("SSH_AUTH_SOCK") if forward_agent else None,
        "profile": profile,
        "region": region,
    }

    if not os.isatty(0):
        hint = f"to run a command: devboxctl exec {reply.shell_word(box)} -- COMMAND"
        return reply.show_failure(
            reply.usage_failure(reply.UsageError("attach needs a terminal as its standard input", hint))
        )

    def run() -> int:
        request["folder"] = folder.said()
        session_of = Attach(request, escape=escape, rejoins=not raw)
        place = f"{session} on {box}" if not raw else f"the shell on {box}"
        again = f"devboxctl attach {reply.shell_word(box)}" + (f" {session}" if session != "main" else "")
        try:
            session_of.attach()
        except Left as left:
            if not session_of.joined and left.status >= 128:
                notice(f"left before {place} was there")
            elif left.status < 128 or sys.stderr.isatty():
                text = f"detached from {place}" if not raw else f"left {place}"
                notice(text + ("" if raw else f"; attach again with: {again}"))
            return left.status
        except client.Refused as error:
            from devboxctl import progress  # whoever is asked something can wait for imports

            status = progress.offer(box, error, up=up)
            if status is None:
                raise
            return status or run()
        except client.DaemonLost as error:
            if raw:
                notice(f"{place} is lost: {error.message}. Only mux sessions survive that")
                return 7
            raise
        return _report(session_of.exit or {}, place, "" if raw else again)

    return reply.reported(run)


def _report(end: Json, place: str, again: str) -> int:
    """Say how it ended. Returns the exit status."""
    failure = end.get("failure")
    reason = str(end.get("reason") or "")
    if end.get("reattach"):
        notice(f"detached from {place}" + (f": {reason}" if reason else "") + f"; attach again with: {again}")
    elif failure is None:
        notice(f"{place} has ended" + (f": {reason}" if reason else ""))
    if isinstance(failure, dict):
        return reply.show_failure({"exit_status": 1, **failure})
    status = end.get("status")
    return status if isinstance(status, int) else 0

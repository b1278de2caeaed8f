"""What runs on the box for an attach: the start command, and the marks it leaves in the output.

Session Manager starts a command with a bare environment: no USER, no login shell, the service's folder,
a terminal of 0 by 0, and whatever user the account says. The start script repairs all of that, finds the
multiplexer, and reports what it found and how it ended through marks: application program commands
(``ESC _ … ESC \\``) that carry a nonce. Terminals ignore such strings, and we take them out.
"""

from __future__ import annotations

import base64
import shlex
from typing import Final

import msgspec

from devboxd.errors import BadRequest

MUXES: Final = ("zellij", "tmux", "none")
PARAMETER_LIMIT: Final = 65535  # characters of one document parameter (ssm API model)

# $0 is this text itself, so that it can start itself again as another user.
# $1 stage, $2 nonce, $3 user or empty, $4 mux or empty, $5 session, $6 TERM, $7 COLORTERM, $8 LANG, $9 command
_ATTACH: Final = r"""
mark() { printf '\033_devbox;%s;%s\033\\' "$n" "$1"; }
n=$2
if [ "$1" = 1 ]; then
  i=0
  while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ $i -lt 40 ]; do sleep 0.1 2>/dev/null || sleep 1; i=$((i+1)); done
  me=$(id -un); want=$3
  if [ -z "$want" ] && [ "$me" = ssm-user ]; then
    want=$(getent passwd 1000 2>/dev/null | cut -d: -f1)
    [ -n "$want" ] && ! sudo -n -u "$want" true 2>/dev/null && want=
  fi
  if [ -n "$want" ] && [ "$want" != "$me" ]; then
    if ! id "$want" >/dev/null 2>&1; then mark "fail;no-user;$want"; exit 1; fi
    if [ "$(id -u)" = 0 ]; then
      if command -v runuser >/dev/null 2>&1; then runuser -u "$want" -- sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5" "$6" "$7" "$8" "$9"
      else su -s /bin/sh "$want" -c 'exec sh -c "$0" "$0" 2 "$@"' -- "$0" "$2" "$want" "$4" "$5" "$6" "$7" "$8" "$9"; fi
    elif sudo -n -u "$want" true 2>/dev/null; then
      sudo -n -H -u "$want" sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5" "$6" "$7" "$8" "$9"
    else mark "fail;no-sudo;$want"; exit 1; fi
    exit
  fi
fi
USER=$(id -un); LOGNAME=$USER; u=$(id -u)
entry=$(getent passwd "$u" 2>/dev/null || grep "^[^:]*:[^:]*:$u:" /etc/passwd)
home=$(printf %s "$entry" | cut -d: -f6); SHELL=$(printf %s "$entry" | cut -d: -f7)
if [ -n "$home" ] && [ -d "$home" ] && [ -z "$DEVBOX_KEEP_HOME" ]; then HOME=$home; fi
case "$SHELL" in ''|*/nologin|*/false) SHELL=/bin/sh;; esac
[ -x "$SHELL" ] || SHELL=/bin/sh
TERM=$6
if command -v infocmp >/dev/null 2>&1 && ! infocmp "$TERM" >/dev/null 2>&1; then
  case "$TERM" in *256color*|*kitty*|*ghostty*|alacritty*|foot*|wezterm*) TERM=xterm-256color;; *) TERM=xterm;; esac
fi
case "${LC_ALL:-${LANG:-}}" in *[Uu][Tt][Ff]*) ;; *) LANG=${8:-C.UTF-8};; esac
[ -n "$7" ] && COLORTERM=$7 && export COLORTERM
export USER LOGNAME HOME SHELL TERM LANG
# A runtime directory goes with the last login unless lingering is on; sockets in it would go, too.
if [ -z "$XDG_RUNTIME_DIR" ] && [ -d "/run/user/$u" ] && [ -O "/run/user/$u" ]; then
  [ -e "/var/lib/systemd/linger/$USER" ] || loginctl enable-linger "$USER" >/dev/null 2>&1 || sudo -n loginctl enable-linger "$USER" >/dev/null 2>&1
  if [ -e "/var/lib/systemd/linger/$USER" ]; then XDG_RUNTIME_DIR=/run/user/$u; export XDG_RUNTIME_DIR; fi
fi
unset ZELLIJ ZELLIJ_SESSION_NAME ZELLIJ_PANE_ID TMUX TMUX_PANE
if [ -n "$SSH_AUTH_SOCK" ]; then :; elif [ -S "$HOME/.devbox/agent.sock" ] || [ -d "$HOME/.devbox" ]; then SSH_AUTH_SOCK=$HOME/.devbox/agent.sock; export SSH_AUTH_SOCK; fi
cd "$HOME" 2>/dev/null || cd /
if [ -n "$9" ]; then
  mark "start;command;$USER"
  "$SHELL" -l -c "$9"; rc=$?
else
  mux=$4; path=
  case "$mux" in
    none) ;;
    '') path=$("$SHELL" -l -c 'command -v zellij || command -v tmux' 2>/dev/null </dev/null | tail -n 1); mux=${path##*/};;
    *) path=$("$SHELL" -l -c "command -v $mux" 2>/dev/null </dev/null | tail -n 1)
       if [ -z "$path" ]; then mark "fail;no-mux;$mux"; exit 1; fi;;
  esac
  case "$mux" in
    zellij) mark "start;zellij;$USER"; "$SHELL" -l -c "exec zellij attach --create '$5'"; rc=$?;;
    tmux) mark "start;tmux;$USER"; "$SHELL" -l -c "exec tmux -u new-session -A -s '$5'"; rc=$?;;
    *) mark "start;none;$USER"; "$SHELL" -l; rc=$?;;
  esac
fi
mark "exit;$rc"
"""


def _squeeze(script: str) -> str:
    """Drop blank lines, indentation and comments: CloudTrail and ``ps`` show the start command."""
    lines = (line.strip() for line in script.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def wrap(script: str, *arguments: str) -> str:
    """Make one ``sh -c`` text that runs ``script`` with its own text as ``$0``.

    The script travels as base64: no quoting on the way can change it, and no ``{{ name }}`` in it can be
    taken for a document parameter.

    Raises:
        BadRequest: longer than a document parameter may be.
    """
    encoded = base64.b64encode(_squeeze(script).encode()).decode()
    quoted = " ".join(shlex.quote(argument) for argument in arguments)
    text = f'S=$(printf %s {encoded}|base64 -d) && exec sh -c "$S" "$S" {quoted}'
    if len(text) > PARAMETER_LIMIT:
        raise BadRequest("the command is too long to start", hint="put it into a script on the box")
    return text


def check_session_name(name: str) -> str:
    """Return ``name`` if both multiplexers take it as a session name.

    Raises:
        BadRequest: empty, too long, or with a character that tmux or zellij gives a meaning.
    """
    if not name or len(name) > 64 or not all(c.isalnum() or c in "-_" for c in name) or name.startswith("-"):
        raise BadRequest(
            f"{name!r} cannot name a session", hint="use up to 64 letters, digits, hyphens and underscores"
        )
    return name


def attach_command(
    *,
    nonce: str,
    session: str,
    term: str,
    user: str | None = None,
    mux: str | None = None,
    colorterm: str | None = None,
    locale: str | None = None,
    command: str | None = None,
) -> str:
    """The text that joins or creates the mux session ``session`` on the box (or runs ``command`` there).

    Raises:
        BadRequest: a name that cannot be, or a command that is too long.
    """
    check_session_name(session)
    if mux is not None and mux not in MUXES:
        raise BadRequest(f"{mux!r} is no multiplexer that devbox knows", hint=f"one of: {', '.join(MUXES)}")
    return wrap(
        _ATTACH,
        "1",
        nonce,
        user or "",
        mux or "",
        session,
        term,
        colorterm or "",
        locale or "",
        command or "",
    )


class Mark(msgspec.Struct, frozen=True):
    """A mark of ours in the output: ``words`` are its fields after the nonce."""

    words: tuple[str, ...]


class MarkFilter:
    """Takes our marks out of terminal output, however they are cut.

    Bytes that could be the start of a mark are held back until the next ones decide; ``flush`` gives them
    up when there are none.
    """

    LONGEST = 256  # bytes; a longer string is not ours

    def __init__(self, nonce: str) -> None:
        self._prefix = f"\x1b_devbox;{nonce};".encode()
        self._held = b""

    def feed(self, data: bytes) -> list[bytes | Mark]:
        """Split output into plain bytes and marks, in order."""
        found: list[bytes | Mark] = []
        data = self._held + data if self._held else data
        self._held = b""
        while data:
            start = data.find(b"\x1b_")
            if start < 0:
                if data.endswith(b"\x1b"):
                    self._held, data = data[-1:], data[:-1]
                if data:
                    found.append(data)
                break
            if start:
                found.append(data[:start])
                data = data[start:]
            if not data.startswith(self._prefix[: len(data)]):
                found.append(data[:2])
                data = data[2:]
                continue
            end = data.find(b"\x1b\\", len(self._prefix))
            if end < 0:
                if len(data) <= self.LONGEST:
                    self._held = data
                else:
                    found.append(data)
                break
            words = data[len(self._prefix) : end].decode("utf-8", "replace").split(";")
            found.append(Mark(tuple(words)))
            data = data[end + 2 :]
        return found

    def flush(self) -> bytes:
        """Give up what is held back: no more output will come."""
        held, self._held = self._held, b""
        return held


def printable(text: str, limit: int = 300) -> str:
    """Make text of the far end safe to show: one line, no control characters, bounded."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"

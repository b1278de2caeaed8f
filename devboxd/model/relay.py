"""The relay: a small program on the box that carries one command's streams through a terminal session.

Non-interactive SSM sessions lose what is printed while a link is down, drop bytes that are not UTF-8 and
have no standard input. A terminal session has none of these faults, so a command runs under a relay there,
which speaks lines of base64 both ways: separate streams, byte-exact, compressed, with the exit status, and
with credit in both directions, so that a reader that stops here stops the command there.

Lines from the box, first character the kind: ``r`` ready (JSON), ``o``/``e`` output (deflate), ``c`` input
taken (bytes), ``x`` exit status, ``f`` could not start (status, text). Lines to the box: ``R`` the request
(JSON), ``i`` input, ``z`` end of input, ``s`` signal, ``k`` output taken (bytes).
"""

from __future__ import annotations

import base64
import binascii
import shlex
import zlib
from typing import Any, Final

import msgspec

from devboxd.errors import DevboxError
from devboxd.model.shell import wrap

OUTPUT_WINDOW: Final = 4 << 20  # bytes the relay may send ahead of our credit
INPUT_WINDOW: Final = 64 << 10  # bytes we may send ahead of the relay's credit
INPUT_CHUNK: Final = 3 << 10  # bytes of input in one line: a terminal's buffer is 4 KiB
LONGEST_LINE: Final = 1 << 20  # bytes; the relay's own lines stay far below

# $1 stage, $2 nonce, $3 user or empty, $4 folder or empty, $5 the relay for Python
_START: Final = r"""
if [ "$1" = 1 ]; then
  stty raw -echo 2>/dev/null
  me=$(id -un); want=$3
  if [ -z "$want" ] && [ "$me" = ssm-user ]; then
    want=$(getent passwd 1000 2>/dev/null | cut -d: -f1)
    [ -n "$want" ] && ! sudo -n -u "$want" true 2>/dev/null && want=
  fi
  if [ -n "$want" ] && [ "$want" != "$me" ]; then
    if ! id "$want" >/dev/null 2>&1; then printf '\n%s:f125 no-user\n' "$2"; exit 1; fi
    if [ "$(id -u)" = 0 ]; then
      if command -v runuser >/dev/null 2>&1; then exec runuser -u "$want" -- sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5"
      else exec su -s /bin/sh "$want" -c 'exec sh -c "$0" "$0" 2 "$@"' -- "$0" "$2" "$want" "$4" "$5"; fi
    elif sudo -n -u "$want" true 2>/dev/null; then exec sudo -n -H -u "$want" sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5"
    else printf '\n%s:f125 no-sudo\n' "$2"; exit 1; fi
  fi
fi
USER=$(id -un); LOGNAME=$USER; u=$(id -u)
entry=$(getent passwd "$u" 2>/dev/null || grep "^[^:]*:[^:]*:$u:" /etc/passwd)
home=$(printf %s "$entry" | cut -d: -f6); SHELL=$(printf %s "$entry" | cut -d: -f7)
if [ -n "$home" ] && [ -d "$home" ] && [ -z "$DEVBOX_KEEP_HOME" ]; then HOME=$home; fi
case "$SHELL" in ''|*/nologin|*/false) SHELL=/bin/sh;; esac
PATH="$HOME/.local/bin:$PATH:/usr/local/bin"
export USER LOGNAME HOME SHELL PATH
unset TERM
cd "$HOME" 2>/dev/null || cd /
if [ -n "$4" ] && ! cd "$4" 2>/dev/null; then printf '\n%s:f125 no-folder\n' "$2"; exit 1; fi
p=$(command -v python3 2>/dev/null)
if [ -n "$p" ]; then exec "$p" -I -S -c "$5" "$2"; fi
t=$(mktemp -d) || exit 1
trap 'rm -rf "$t"' EXIT
printf '\n%s:r{"relay":"sh"}\n' "$2"
: > "$t/in"
while IFS= read -r l; do
  case "$l" in
    R*) printf %s "${l##* }" | base64 -d > "$t/cmd";;
    i*) printf %s "${l#i}" | base64 -d >> "$t/in"; printf 'c%s\n' "$(printf %s "${l#i}" | base64 -d | wc -c | tr -d ' ')";;
    z*) break;;
  esac
done
sh "$t/cmd" < "$t/in" > "$t/out" 2> "$t/err"; rc=$?
for s in O:out E:err; do base64 < "$t/${s#*:}" | tr -d '\n' | fold -w 40000 | while IFS= read -r l || [ -n "$l" ]; do printf '%s%s\n' "${s%%:*}" "$l"; done; done
printf 'x%s\n' "$rc"
"""

_PYTHON: Final = r"""
import base64,errno,json,os,select,signal,subprocess,sys,zlib
b64=base64.b64encode
def put(k,b):
    v=memoryview(k+b+b"\n")
    while v:
        v=v[os.write(1,v):]
n=sys.argv[1].encode()
os.write(1,b"\n"+n+b':r{"relay":"python"}\n')
buf=b"";req=None
while req is None:
    d=os.read(0,65536)
    if not d: sys.exit(1)
    buf+=d
    while b"\n" in buf and req is None:
        l,buf=buf.split(b"\n",1)
        if l[:1]==b"R": req=json.loads(base64.b64decode(l[1:].split(b" ")[0]))
env=dict(os.environ);env.update(req["env"])
W=req["window"];rin,win=os.pipe()
try:
    c=subprocess.Popen(req["argv"],stdin=rin if req["stdin"] else subprocess.DEVNULL,stdout=subprocess.PIPE,stderr=subprocess.PIPE,env=env,start_new_session=True,bufsize=0,restore_signals=True)
except OSError as e:
    put(b"f",str(127 if e.errno==errno.ENOENT else 126).encode()+b" "+b64((os.strerror(e.errno)).encode()))
    sys.exit(0)
os.close(rin)
os.set_blocking(win,False)
if not req["stdin"]: os.close(win);win=-1
o=c.stdout.fileno();e=c.stderr.fileno()
z={o:(b"o",zlib.compressobj(6)),e:(b"e",zlib.compressobj(6))}
wr,ww=os.pipe()
os.set_blocking(ww,False)
signal.set_wakeup_fd(ww)
signal.signal(signal.SIGCHLD,lambda *a:None)
def bye(*a):
    try: os.killpg(c.pid,signal.SIGHUP)
    except OSError: pass
    os._exit(1)
signal.signal(signal.SIGHUP,bye)
inq=[];ended=False;sent=0;rc=None;tty=True
def line(l):
    global ended,sent
    k=l[:1]
    if k==b"i" and win>=0: inq.append(base64.b64decode(l[1:]))
    elif k==b"i": put(b"c",str(len(base64.b64decode(l[1:]))).encode())
    elif k==b"z": ended=True
    elif k==b"k": sent-=int(l[1:])
    elif k==b"s":
        try: os.killpg(c.pid,int(l[1:]))
        except OSError: pass
def close_in():
    global win
    if win>=0:
        os.close(win);win=-1
while True:
    while b"\n" in buf:
        l,buf=buf.split(b"\n",1);line(l)
    if ended and not inq: close_in()
    r=[wr]+([0] if tty else [])+(list(z) if sent<W else [])
    t=None
    if rc is not None:
        if not z: break
        t=1.0
    a,b,_=select.select(r,[win] if win>=0 and inq else [],[],t)
    if rc is not None and not a: break
    if wr in a:
        os.read(wr,4096)
        rc=c.poll()
    if 0 in a:
        try: d=os.read(0,65536)
        except OSError: d=b""
        if not d: bye()
        buf+=d
    for f in list(z):
        if f in a:
            d=os.read(f,32768)
            k,zz=z[f]
            if d:
                sent+=len(d)
                put(k,b64(zz.compress(d)+zz.flush(zlib.Z_SYNC_FLUSH)))
            else: del z[f]
    if b:
        try:
            m=os.write(win,inq[0]);g=m
            if m<len(inq[0]): inq[0]=inq[0][m:]
            else: inq.pop(0)
        except BlockingIOError: g=0
        except OSError:
            g=sum(map(len,inq));inq[:]=[];close_in()
        if g: put(b"c",str(g).encode())
    elif win<0 and inq:
        put(b"c",str(sum(map(len,inq))).encode());inq[:]=[]
put(b"x",str(rc if rc>=0 else 128-rc).encode())
"""


class RelayError(DevboxError):
    """The relay on the box said something that it cannot have said."""

    code = "relay-failed"


class RelayReady(msgspec.Struct, frozen=True):
    """The relay runs. ``kind`` is python (everything works) or sh (output comes at the end)."""

    kind: str


class RelayOutput(msgspec.Struct, frozen=True):
    """Bytes of the command."""

    data: bytes
    error: bool


class RelayCredit(msgspec.Struct, frozen=True):
    """The command (or its pipe) took that many input bytes."""

    size: int


class RelayExit(msgspec.Struct, frozen=True):
    """The command's exit status; ``problem`` is set where it could not be started."""

    status: int
    problem: str | None = None


RelayEvent = RelayReady | RelayOutput | RelayCredit | RelayExit


def start_command(*, nonce: str, user: str | None, cwd: str | None) -> str:
    """The text that starts the relay. What to run follows through ``request``, unseen by any log."""
    program = "\n".join(line for line in _PYTHON.strip().splitlines())
    return wrap(_START, "1", nonce, user or "", cwd or "", program)


def request(argv: list[str], *, env: dict[str, str], stdin: bool) -> bytes:
    """The line that tells the relay what to run."""
    spec = {"argv": argv, "env": env, "stdin": stdin, "window": OUTPUT_WINDOW}
    exports = "".join(f"{name}={shlex.quote(value)} " for name, value in env.items())
    # A name that is no shell identifier cannot be set this way; `env` takes them all.
    script = f"exec env {exports}{shlex.join(argv)}\n" if env else f"exec {shlex.join(argv)}\n"
    return (
        b"R" + base64.b64encode(msgspec.json.encode(spec)) + b" " + base64.b64encode(script.encode()) + b"\n"
    )


def data(chunk: bytes) -> bytes:
    """Lines that carry input."""
    view = memoryview(chunk)
    return b"".join(
        b"i" + base64.b64encode(view[at : at + INPUT_CHUNK]) + b"\n"
        for at in range(0, len(chunk), INPUT_CHUNK)
    )


END_OF_INPUT: Final = b"z\n"


def signal(number: int) -> bytes:
    """The line that sends a signal to the command's process group."""
    return b"s%d\n" % number


def credit(size: int) -> bytes:
    """The line that says how many output bytes were taken here."""
    return b"k%d\n" % size


_PROBLEMS: Final = {
    "no-user": "there is no such user on the box",
    "no-sudo": "the session may not become that user (sudo asks for a password)",
    "no-folder": "there is no such folder on the box",
}


class RelayReader:
    """Parses what the relay prints. Everything before its first line is noise and kept for error texts."""

    def __init__(self, nonce: str) -> None:
        self._greeting = nonce.encode() + b":"
        self._buffer = bytearray()
        self._inflate = {True: zlib.decompressobj(), False: zlib.decompressobj()}
        self.ready = False
        self.noise = b""

    def feed(self, chunk: bytes) -> list[RelayEvent]:
        """Take terminal output and return what it means.

        Raises:
            RelayError: a line that does not parse, or one that never ends.
        """
        self._buffer += chunk
        events: list[RelayEvent] = []
        start = 0
        while (end := self._buffer.find(b"\n", start)) >= 0:
            line = bytes(self._buffer[start:end]).rstrip(b"\r")
            start = end + 1
            if not self.ready:
                at = line.find(self._greeting)
                if at < 0:
                    self.noise = (self.noise + line + b"\n")[-2000:]
                    continue
                line = line[at + len(self._greeting) :]
            if line:
                events.append(self._parse(line))
        del self._buffer[:start]
        if len(self._buffer) > LONGEST_LINE:
            raise RelayError("a line of the relay never ends")
        return events

    def _parse(self, line: bytes) -> RelayEvent:
        kind, rest = line[:1], line[1:]
        try:
            match kind:
                case b"o" | b"e":
                    inflate = self._inflate[kind == b"e"]
                    data = inflate.decompress(base64.b64decode(rest, validate=True), LONGEST_LINE)
                    if inflate.unconsumed_tail:
                        raise RelayError("a line of the relay unpacks to more than it can have read")
                    return RelayOutput(data, kind == b"e")
                case b"O" | b"E":
                    return RelayOutput(base64.b64decode(rest, validate=True), kind == b"E")
                case b"c":
                    return RelayCredit(int(rest))
                case b"x":
                    return RelayExit(int(rest))
                case b"f":
                    status, _, text = rest.partition(b" ")
                    known = _PROBLEMS.get(text.decode("ascii", "replace"))
                    problem = known or base64.b64decode(text, validate=True).decode("utf-8", "replace")
                    return RelayExit(int(status), problem)
                case b"r":
                    greeting: dict[str, Any] = msgspec.json.decode(rest, type=dict[str, Any])
                    self.ready = True
                    return RelayReady(str(greeting.get("relay")))
                case _:
                    raise RelayError(f"the relay said something unknown ({kind!r})")
        except (ValueError, binascii.Error, zlib.error, msgspec.MsgspecError) as error:
            raise RelayError(f"a line of the relay does not parse: {error}") from None

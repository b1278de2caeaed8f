"""``make demo``: the whole product on this machine, without an account, and nothing left behind.

A simulator and a daemon run in a private directory with dummy credentials; the user's AWS settings, devbox
settings and files are not looked at. On a terminal the user lands in a shell on a simulated box; without
one a scripted tour runs and says what it did.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import shlex
import signal
import site
import struct
import sys
import tempfile
import termios
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

import aiohttp

import devboxd
from devboxd.simulator.agent import disk
from devboxd.simulator.agent.process import Descriptor
from devboxd.simulator.world import Simulator

_START: Final = 20.0  # seconds for the daemon to answer
_STEP: Final = 60.0  # seconds for one step of the tour
_STOP: Final = 10.0  # seconds for the daemon to go
_FOREIGN: Final = ("AWS_", "DEVBOX_", "LISTEN_", "SYSTEMD_", "TMUX", "ZELLIJ")
_OWN: Final = ("AWS_", "XDG_", "HOME", "PYTHON", "NO_PROXY")  # what another terminal needs of ours
_PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "notify_socket", "ssh_auth_sock")

_CUT: Final = """\
#!/bin/sh
# Cut the link that this very shell runs over.  cut-link [rst|fin|close|blackhole seconds=5|…]
[ $# -gt 0 ] || set -- rst
PYTHONPATH={packages} PYTHONUSERBASE={userbase} exec {python} -m devboxd.simulator fault --endpoint {url} "$@"
"""

# Shown in front of the first prompt on each box, and again by "demo" there: 80 columns, and lines to spare of 24.
_GUIDE: Final = """\
devbox demo. This is the box "{box}", behind a simulated AWS: a folder of your
machine, and a real shell that runs as you ({user}).

  cut-link                        cut the network under this shell; go on typing
  cut-link blackhole seconds=5    five seconds of silence
  cut-link --help                 everything else that can go wrong
  demo                            show this again
  exit                            leave: boxes and AWS are gone then

In a second terminal, on your own machine (bash, zsh, sh):

  . {exports}
  devboxctl ls
  devboxctl exec web -- uname -a
  devboxctl forward web 0:80      a port here that is port 80 of "web"
  devboxctl launch work --instance-profile devbox
  devboxctl terminate work        its disks are saved; only the image costs then
  devboxctl up work               another box, with what was on the disks

"""
_HELP: Final = '#!/bin/sh\ncat "$HOME/.motd"\n'
_ELSEWHERE: Final = """\
#!/bin/sh
echo "devboxctl is for your own machine, and this is a box. In a second terminal: . {exports}" >&2
exit 1
"""
# tmux would show its default line; the keys that matter in the demo are commands.
_STATUS_LINE: Final = """
set -g status-left-length 50
set -g status-left ' devbox demo, box {name} '
set -g status-right-length 60
set -g status-right ' demo: what to try | cut-link | exit: leave '
set -g window-status-current-format ''
"""
_STARTING: Final = """\
  devbox demo: a simulated AWS on {url}, with the boxes {boxes}.
  Joining a terminal to the box "{box}"; what to try stands there, above the prompt.
"""
_EXPORTS: Final = """\
# The demo in another terminal:  . {file}
for name in $(env | sed -n 's/^\\(AWS_[A-Z0-9_]*\\|DEVBOX_[A-Z0-9_]*\\)=.*/\\1/p'); do unset "$name"; done
unset {proxies}
"""


class DemoFailed(Exception):
    """A step did not do what it should; the text says which."""


class Demo:
    """A running simulator with a daemon beside it."""

    def __init__(self, sim: Simulator, folder: Path, env: dict[str, str]) -> None:
        self.sim = sim
        self.folder = folder
        self.env = env
        self.box = sim.boxes[0].name

    def command(self, *words: str) -> list[str]:
        """The argv of ``devboxctl words…``."""
        return [sys.executable, "-m", "devboxctl", *words]

    def prompt(self, line: str) -> None:
        """Show a command that is about to run."""
        self.say(f"\n$ {line}")

    def say(self, text: str) -> None:
        """Show lines."""
        print(text, flush=True)

    async def run(self, *words: str, quiet: bool = False, live: bool = False) -> str:
        """Run ``devboxctl`` and return its standard output. ``live``: what it says meanwhile is seen as it comes.

        Raises:
            DemoFailed: it failed, or took longer than a minute.
        """
        shown = "devboxctl " + shlex.join(words)
        if not quiet:
            self.prompt(shown)
        process = await asyncio.create_subprocess_exec(
            *self.command(*words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if live else asyncio.subprocess.PIPE,
            env=self.env,
            cwd=self.folder,
        )
        try:
            async with asyncio.timeout(_STEP):
                out, err = await process.communicate()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        text, said = out.decode(errors="replace"), (err or b"").decode(errors="replace")
        if not quiet:
            self.say((text + said).rstrip("\n"))
        if process.returncode:
            raise DemoFailed(f"{shown}: exit status {process.returncode}\n{said}")
        return text


def main() -> int:
    """Run the demo; returns the exit status."""
    return asyncio.run(_main())


async def _main() -> int:
    """The demo, with its end guaranteed: whatever signal comes, the folder and the processes go."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    is_interactive = sys.stdin.isatty() and sys.stdout.isatty()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="devbox-", dir="/tmp"))  # short: unix sockets live below
    try:
        async with running(folder) as demo:
            status = await (_interactive(demo) if is_interactive else tour(demo))
        print("demo: the simulator, the daemon and the boxes are gone.", flush=True)
        return status
    except asyncio.CancelledError:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    except (DemoFailed, TimeoutError) as error:
        print(f"\ndemo: failed: {str(error) or 'a step took too long'}", file=sys.stderr)
        return 1
    finally:
        disk.remove(folder)


@contextlib.asynccontextmanager
async def running(folder: Path, kind: type[Demo] = Demo) -> AsyncIterator[Demo]:
    """Simulator and daemon, up and answering; both gone afterwards."""
    async with Simulator(folder / "sim") as sim:
        env = private_environment(folder, os.environ) | sim.environment()
        _add_cut_link(sim)
        log = folder / "devboxd.log"
        with log.open("wb") as output:
            daemon = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "devboxd",
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env=env, cwd=folder, start_new_session=True,  # a Ctrl-C here is not for the daemon
            )  # fmt: skip
        demo = kind(sim, folder, env)
        try:
            await _answering(demo, daemon, log)
            yield demo
        finally:
            await _stop(daemon)


def private_environment(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without anything that leads out of the demo, and with folders of its own."""
    env = {
        key: value
        for key, value in environ.items()
        if not key.startswith(_FOREIGN) and key.lower() not in _PROXIES
    }
    for name in ("run", "config", "state", "cache", "home"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    return env | {
        "HOME": str(folder / "home"),
        "XDG_RUNTIME_DIR": str(folder / "run"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "PYTHONPATH": _packages(),
        "PYTHONUSERBASE": site.getuserbase(),
        "NO_PROXY": "127.0.0.1,localhost",
    }


def _packages() -> str:
    return str(Path(devboxd.__file__).resolve().parent.parent)


def _add_cut_link(sim: Simulator) -> None:
    """Put ``cut-link`` on the path of every box."""
    script = sim.root / "bin" / "cut-link"
    words = {
        "packages": _packages(),
        "userbase": site.getuserbase(),
        "python": sys.executable,
        "url": sim.url,
    }
    script.write_text(_CUT.format(**{k: shlex.quote(v) for k, v in words.items()}), encoding="utf-8")
    script.chmod(0o755)


async def _answering(demo: Demo, daemon: asyncio.subprocess.Process, log: Path) -> None:
    problem = "it says nothing"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START):
            socket = demo.folder / "run" / "devbox" / "devboxd.sock"
            while not socket.exists():
                if daemon.returncode is not None:
                    break
                await asyncio.sleep(0.02)
            await demo.run("status", quiet=True)
            return
    if daemon.returncode is not None:
        problem = f"it ended with status {daemon.returncode}"
    raise DemoFailed(f"the daemon did not come up: {problem}\n{log.read_text(errors='replace')[-4000:]}")


async def _stop(daemon: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if daemon.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            daemon.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP):
                await daemon.wait()


# -- on a terminal -----------------------------------------------------------------------------------


def _exports(demo: Demo) -> Path:
    """Write what brings another terminal into the demo: settings, and a ``devboxctl`` that is this one."""
    folder = demo.folder / "bin"
    folder.mkdir(mode=0o700)
    command = folder / "devboxctl"
    command.write_text(f'#!/bin/sh\nexec {shlex.join(demo.command())} "$@"\n', encoding="utf-8")
    command.chmod(0o700)
    file = demo.folder / "env.sh"
    proxies = " ".join(f"{name} {name.upper()}" for name in _PROXIES if name.endswith("_proxy"))
    kept = {key: value for key, value in demo.env.items() if key.startswith(_OWN)}
    lines = [f"export {key}={shlex.quote(value)}\n" for key, value in kept.items()]
    lines.append(f'export PATH={shlex.quote(str(folder))}:"$PATH"\n')
    file.write_text(_EXPORTS.format(file=file, proxies=proxies) + "".join(lines), encoding="utf-8")
    return file


def _add_guide(demo: Demo, exports: Path) -> None:
    """Put what there is to try onto every box: above its first prompt, as a command, in its status line."""
    user = os.environ.get("USER") or f"uid {os.getuid()}"
    for box in demo.sim.boxes:
        guide = _GUIDE.format(box=box.name, user=user, exports=exports)
        (box.disk / ".motd").write_text(guide, encoding="utf-8")
        with (box.disk / ".tmux.conf").open("a", encoding="utf-8") as settings:
            settings.write(_STATUS_LINE.format(name=box.name))
    for name, text in (("demo", _HELP), ("devboxctl", _ELSEWHERE.format(exports=exports))):
        script = demo.sim.root / "bin" / name
        script.write_text(text, encoding="utf-8")
        script.chmod(0o755)


async def _interactive(demo: Demo) -> int:
    _add_guide(demo, _exports(demo))
    names = ", ".join(box.name for box in demo.sim.boxes)
    print(_STARTING.format(url=demo.sim.url, boxes=names, box=demo.box), flush=True)
    loop = asyncio.get_running_loop()
    loop.remove_signal_handler(signal.SIGINT)
    loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C belongs to the shell on the box
    attach = await asyncio.create_subprocess_exec(*demo.command("attach", demo.box), env=demo.env)
    try:
        status = await attach.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            attach.terminate()  # not SIGKILL: it restores the terminal
        await attach.wait()
        raise
    return status


# -- without one -------------------------------------------------------------------------------------


async def tour(demo: Demo) -> int:
    """Do what a user would do, check it, and say so.

    Raises:
        DemoFailed: something did not work.
    """
    demo.say(
        "devbox demo (no terminal: a scripted tour). Simulated boxes run real local shells, as this user."
    )
    await demo.run("ls")
    box = demo.sim.boxes[0]
    greeting = await demo.run("exec", box.name, "--", "sh", "-c", "echo hello from $PWD; echo oops >&2")
    _expect(str(box.disk) in greeting, "exec did not run on the box")
    await _tour_forward(demo)
    await _tour_attach(demo)
    await _tour_project(demo)
    demo.say("\ndemo: all of that worked.")
    return 0


async def _tour_project(demo: Demo) -> None:
    """A box is ended, and the next one has what was written on it."""
    words = ("launch", "work", "--type", "t4g.small", "--instance-profile", "devbox")
    await demo.run(*words, live=True)
    await demo.run("exec", "work", "--", "sh", "-c", "seq 100000 > work.txt; sha256sum work.txt")
    first = await demo.run("exec", "work", "--", "sha256sum", "work.txt", quiet=True)
    ended = json.loads(await demo.run("--json", "projects", "work", quiet=True))["instance"]
    await demo.run("terminate", "work", live=True)
    await demo.run("up", "work", live=True)
    second = await demo.run("exec", "work", "--", "sha256sum", "work.txt")
    now = json.loads(await demo.run("--json", "projects", "work", quiet=True))["instance"]
    _expect(second == first, "the file of the first box is not what the second one has")
    _expect(now != ended, "it was the same box")
    demo.say(f"  {ended} is gone, and {now} has the file")


async def _tour_forward(demo: Demo) -> None:
    words = ("forward", demo.box, "0:80")
    demo.prompt(f"devboxctl {shlex.join(words)}")
    added = json.loads(await demo.run("--json", *words, quiet=True))
    local = added["forwards"][0]["local"]
    demo.say(f"{local} -> {demo.box}:80")
    demo.prompt(f"curl http://{local}/")
    timeout = aiohttp.ClientTimeout(total=_STEP)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(f"http://{local}/") as reply:
        page = await reply.text()
    demo.say(page.rstrip("\n"))
    _expect(f"hello from box {demo.box}" in page, "the forward led nowhere")


async def _tour_attach(demo: Demo) -> None:
    demo.prompt(f"devboxctl attach {demo.box} --mux none        (and the link is cut in the middle)")
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    try:
        attach = await asyncio.create_subprocess_exec(
            *demo.command("attach", demo.box, "--mux", "none"),
            stdin=slave, stdout=slave, stderr=slave, env=demo.env, cwd=demo.folder, start_new_session=True,
        )  # fmt: skip
    finally:
        os.close(slave)
    terminal = Screen(Descriptor(master))
    try:
        async with asyncio.timeout(_STEP):
            await terminal.type_until("echo prompt-is-u''p\r", "prompt-is-up")
            await terminal.type("for i in 1 2 3 4 5 6; do echo tick-$i; sleep 0.3; done; echo still-''here\r")
            await terminal.until("tick-2\r")
            count = await demo.sim.fault("rst")
            demo.say(f"  [the demo resets {count} connections to the simulated gateway]")
            await terminal.until("still-here\r")
            await terminal.type("exit\r")
            await terminal.drain()
            await attach.wait()
    finally:
        terminal.close()
        with contextlib.suppress(ProcessLookupError):
            attach.kill()
        await attach.wait()
    ticks = [f"tick-{number}" for number in range(1, 7)]
    for tick in ticks:
        _expect(terminal.text.count(tick + "\r\n") == 1, f"{tick} did not arrive exactly once")
    demo.say("  " + " ".join(ticks) + "   every line exactly once, then: still-here")
    _expect(attach.returncode == 0, f"attach ended with status {attach.returncode}")


class Screen:
    """What a person would see of a program on a terminal, as plain text."""

    def __init__(self, terminal: Descriptor) -> None:
        self.text = ""
        self._terminal = terminal

    async def type(self, text: str) -> None:
        """Press keys."""
        await self._terminal.write(text.encode())

    async def until(self, wanted: str) -> None:
        """Read until something has been shown.

        Raises:
            DemoFailed: the program ended before.
        """
        while wanted not in self.text:
            await self._more()

    async def type_until(self, text: str, wanted: str) -> None:
        """Press keys again and again (a shell that is starting up may drop them) until it shows."""
        while wanted not in self.text:
            await self.type(text)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2.0):
                    await self.until(wanted)

    async def drain(self) -> None:
        """Read to the end."""
        with contextlib.suppress(DemoFailed):
            while True:
                await self._more()

    async def _more(self) -> None:
        data = await self._terminal.read(4096)
        if not data:
            raise DemoFailed(f"the terminal program ended early; it showed:\n{self.text[-2000:]}")
        self.text += data.decode(errors="replace")

    def close(self) -> None:
        """Hang up."""
        self._terminal.close()


def _expect(condition: bool, problem: str) -> None:
    if not condition:
        raise DemoFailed(problem)

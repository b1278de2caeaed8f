"""Film the demo's scripted tour on a terminal, and draw what it shows into ``docs/demo.svg``.

Every line of the picture was printed by that run; lines are left out, none is written by hand. With ``--check``
nothing is drawn: the picture is compared with the run, but for what differs from run to run (ids, ports, times).
"""

from __future__ import annotations

import asyncio
import fcntl
import html
import os
import re
import shlex
import struct
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

import pyte

from devboxd.simulator.agent import disk
from devboxd.simulator.demo import Demo, DemoFailed, running, tour

PICTURE: Final = Path(__file__).parents[1] / "docs" / "demo.svg"
COLUMNS: Final = 80
ROWS: Final = 200  # more than one command prints: nothing scrolls out of view
PATIENCE: Final = 60.0  # seconds for one command
# The scenes, by the beginning of their command, and which of their lines are shown (a pattern).
SCENES: Final = {
    "devboxctl ls": r"(?!left out).*",
    "devboxctl attach": r".*",
    "devboxctl forward": r".*",
    "curl": r"hello.*",
    "devboxctl launch": r" +[\d.]+ s  (launching|running)",
    "devboxctl exec work -- sh": r".*",
    "devboxctl terminate": r" +[\d.]+ s  (saving|saving: the image is being made|ready)",
    "devboxctl up": r" +[\d.]+ s  (launching|running)",
    "devboxctl exec work -- sha256sum": r"(?!demo:).*",
}
VARYING: Final = (
    (re.compile(r"\bi-[0-9a-f]{17}\b"), "i-…"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:…"),
    (re.compile(r"\b\d+\.\d s\b"), "… s"),
    (re.compile(r"resets \d+"), "resets …"),
    (re.compile(r"\t[0-9a-f]{6}\b|(?<=:80)\s+[0-9a-f]{6}\b"), ""),
    (re.compile(r" +"), " "),
)
LINE: Final = 19  # pixels from one line to the next
CHARACTER: Final = 8.43  # pixels: what most monospaced fonts need at 14 px
STYLE: Final = """\
text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #c9d1d9 }
.c { fill: #7ee787; font-weight: 600 } .h { font-weight: 600; fill: #f0f6fc } .q { fill: #8b949e }
"""

Scene = tuple[str, list[str]]  # a command, and what the terminal shows of it


class Filmed(Demo):
    """A demo whose commands run on a terminal; what they show is kept."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.scenes: list[Scene] = []

    def prompt(self, line: str) -> None:
        """Begin a scene."""
        self.scenes.append((line, []))

    def say(self, text: str) -> None:
        """Go on with the scene."""
        if self.scenes:
            self.scenes[-1][1].extend(line for line in text.strip("\n").split("\n") if line)

    async def run(self, *words: str, quiet: bool = False, live: bool = False) -> str:
        """As a person sees it. Raises DemoFailed."""
        if quiet:
            return await super().run(*words, quiet=True)
        self.prompt("devboxctl " + shlex.join(words))
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        try:
            process = await asyncio.create_subprocess_exec(
                *self.command(*words),
                stdin=asyncio.subprocess.DEVNULL, stdout=slave, stderr=slave,
                env=self.env | {"TERM": "xterm-256color"}, cwd=self.folder,
            )  # fmt: skip
        finally:
            os.close(slave)
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    data = await loop.run_in_executor(None, os.read, master, 4096)
                except OSError:  # Linux: the last program has closed the terminal
                    data = b""
                if not data:
                    break
                stream.feed(data)
            status = await process.wait()
        os.close(master)
        text = "".join(line.rstrip() + "\n" for line in screen.display if line.strip())
        self.say(text)
        if status:
            raise DemoFailed(f"devboxctl {shlex.join(words)}: exit status {status}\n{text}")
        return text


async def film() -> list[Scene]:
    """Run the tour; returns the scenes of the picture. Raises DemoFailed."""
    folder = Path(tempfile.mkdtemp(prefix="devbox-", dir="/tmp"))  # short: unix sockets live below
    try:
        async with running(folder, Filmed) as demo:
            assert isinstance(demo, Filmed)
            await tour(demo)
            return cut(demo.scenes)
    finally:
        disk.remove(folder)


def cut(scenes: list[Scene]) -> list[Scene]:
    """The scenes that are shown, and of each what is shown."""
    kept: list[Scene] = []
    for beginning, pattern in SCENES.items():
        command, lines = next(scene for scene in scenes if scene[0].startswith(beginning))
        shown = {
            re.sub(r"[\d.]+ s", "", line): line for line in reversed(lines) if re.fullmatch(pattern, line)
        }
        kept.append((command, [*reversed(shown.values())]))  # the first of several that say the same
    return kept


def masked(scenes: list[Scene]) -> list[str]:
    """The lines, without what differs from run to run."""
    lines = [line for command, shown in scenes for line in (f"$ {command}", *shown)]
    for pattern, instead in VARYING:
        lines = [pattern.sub(instead, line) for line in lines]
    return [line.strip() for line in lines]


def drawn(scenes: list[Scene]) -> str:
    """The picture."""
    rows: list[tuple[str, str]] = []
    for command, shown in scenes:
        rows.append(("c", f"$ {command}"))
        rows += [("h" if command == "devboxctl ls" and not at else "", line) for at, line in enumerate(shown)]
        rows.append(("", ""))
    rows.pop()
    width, height = round(COLUMNS * CHARACTER) + 40, len(rows) * LINE + 62
    dots = "".join(
        f'<circle cx="{20 + 20 * at}" cy="19" r="6" fill="{fill}"/>'
        for at, fill in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    texts = "".join(
        f'<text class="{kind}" x="20" y="{54 + LINE * at}" xml:space="preserve">{html.escape(line)}</text>\n'
        if kind
        else f'<text x="20" y="{54 + LINE * at}" xml:space="preserve">{html.escape(line)}</text>\n'
        for at, (kind, line) in enumerate(rows)
        if line
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="A terminal: devboxctl lists boxes, stays attached while the '
        f'network is cut, ends a box, and brings it back with its files">\n'
        f"<!-- Made by tools/picture.py from a run of the demo: make picture -->\n"
        f"<style>{STYLE}</style>\n"
        f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n{dots}\n{texts}</svg>\n'
    )


def written(picture: str) -> list[str]:
    """The lines that stand in a picture, masked."""
    found = [html.unescape(line) for line in re.findall(r"<text[^>]*>([^<]*)</text>", picture)]
    return masked(
        [(line.removeprefix("$ "), []) if line.startswith("$ ") else ("", [line]) for line in found]
    )


def differences(scenes: list[Scene], picture: str) -> list[str]:
    """What the run shows and the picture does not, and the other way round."""
    now, then = masked(scenes), [line for line in written(picture) if line != "$"]
    return [f"+ {line}" for line in now if line not in then] + [
        f"- {line}" for line in then if line not in now
    ]


def main() -> int:
    """Draw, or check; returns the exit status."""
    scenes = asyncio.run(film())
    if "--check" in sys.argv[1:]:
        found = differences(scenes, PICTURE.read_text("utf-8"))
        sys.stdout.write(("\n".join(found) or "the picture shows what the demo does") + "\n")
        return 1 if found else 0
    PICTURE.write_text(drawn(scenes), "utf-8")
    sys.stdout.write(f"wrote {PICTURE.relative_to(PICTURE.parents[1])}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

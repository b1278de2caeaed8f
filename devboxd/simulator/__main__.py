"""``python -m devboxd.simulator serve | demo | fault``."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from devboxd.simulator.agent import disk
from devboxd.simulator.chaos import Chaos
from devboxd.simulator.ec2.faults import KINDS
from devboxd.simulator.options import FAST, Options
from devboxd.simulator.world import DEFAULT_BOXES, Simulator


def main(words: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = _parser().parse_args(words)
    if arguments.command == "demo":
        from devboxd.simulator import demo

        return demo.main()
    if arguments.command == "fault":
        return _fault(arguments)
    return asyncio.run(_serve(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devboxd.simulator", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve until SIGTERM; prints one JSON line when it is up")
    serve.add_argument(
        "--root", type=Path, help="where the boxes' disks are; a new one is removed at the end"
    )
    serve.add_argument("--port", type=int, default=0)
    serve.add_argument("--boxes", default=",".join(DEFAULT_BOXES), help="names, comma separated")
    serve.add_argument("--stopped", default="", help="names of boxes that start as stopped")
    serve.add_argument("--seed", type=int, default=0)
    serve.add_argument("--fast", action="store_true", help="without the real agent's waiting")
    serve.add_argument(
        "--set",
        action="append",
        default=[],
        type=_knob,
        metavar="NAME=SECONDS",
        help="one of the agent's times",
    )
    commands.add_parser("demo", help="the whole product on this machine, then nothing left behind")
    names = "\n".join(f"  {name:20} {text}" for name, text in Chaos.catalogue().items())
    kinds = "\n".join(f"  {name:20} {text}" for name, text in KINDS.items())
    fault = commands.add_parser(
        "fault",
        help="break something",
        epilog=f"faults:\n{names}\n\nkinds of ec2:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fault.add_argument("name")
    fault.add_argument("parameters", nargs="*", metavar="KEY=VALUE")
    fault.add_argument("--endpoint", default=os.environ.get("AWS_ENDPOINT_URL"), help="of the simulator")
    return parser


async def _serve(arguments: argparse.Namespace) -> int:
    root: Path | None = arguments.root
    folder = root if root is not None else Path(tempfile.mkdtemp(prefix="dbx-", dir="/tmp"))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Simulator(
            folder,
            boxes=[name for name in arguments.boxes.split(",") if name],
            stopped=[name for name in arguments.stopped.split(",") if name],
            options=replace(FAST if arguments.fast else Options(), **dict(arguments.set)),
            seed=arguments.seed,
            port=arguments.port,
        ) as sim:
            boxes = [{"name": box.name, "id": box.id, "disk": str(box.disk)} for box in sim.boxes]
            up = {"endpoint": sim.url, "boxes": boxes, "environment": sim.environment()}
            print(json.dumps(up), flush=True)
            await stop.wait()
    finally:
        if root is None:
            disk.remove(folder)
    return 0


def _knob(word: str) -> tuple[str, float]:
    """``pacing=0.001`` as a field of ``Options``. Raises ArgumentTypeError."""
    name, _, value = word.partition("=")
    known = [field.name for field in fields(Options) if isinstance(field.default, float)]
    try:
        if name in known:
            return name, float(value)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{word!r} is not NAME=SECONDS with one of: {', '.join(known)}")


def _fault(arguments: argparse.Namespace) -> int:
    if not arguments.endpoint:
        print("error: which simulator? give --endpoint or set AWS_ENDPOINT_URL", file=sys.stderr)
        return 2
    body: dict[str, Any] = {"fault": arguments.name}
    for word in arguments.parameters:
        key, separator, value = word.partition("=")
        if not separator:
            print(f"error: {word!r} is not KEY=VALUE", file=sys.stderr)
            return 2
        body[key] = _value(value)
    request = urllib.request.Request(
        f"{arguments.endpoint}/_simulator/fault",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    # No proxy from the environment: the simulator is on loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as reply:
            print(f"{arguments.name}: {json.load(reply)['touched']} touched")
    except urllib.error.HTTPError as error:
        print(f"error: {json.load(error)['error']}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: no simulator at {arguments.endpoint}: {error}", file=sys.stderr)
        return 1
    return 0


def _value(text: str) -> Any:
    """Numbers and true/false as such, anything else as text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


if __name__ == "__main__":
    sys.exit(main())

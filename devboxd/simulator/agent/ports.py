"""Ports of a simulated box that listen elsewhere on this machine, for the agent and for Python programs on the box.

A box shares the loopback of this machine, so its port 80 is a table away from where that really listens. The agent
looks there itself. What runs on a box and is written in Python (the bridgehead) does so by itself, too: the ``python3``
of all boxes is a virtual environment whose start-up file looks into the box's table at each connection.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

TABLE: Final = "DEVBOX_SIMULATOR_PORTS"  # in the environment of a box: its table, JSON, port to port
_STARTUP: Final = f"""\
import os

TABLE = os.environ.get("{TABLE}")
if TABLE:
    import json
    import socket

    def there(address):
        if isinstance(address, tuple) and address[0] in ("localhost", "127.0.0.1", "::1"):
            with open(TABLE) as file:
                port = json.load(file).get(str(address[1]), address[1])
            return (address[0], port, *address[2:])
        return address

    def looking(connect):
        return lambda self, address: connect(self, there(address))

    socket.socket.connect = looking(socket.socket.connect)
    socket.socket.connect_ex = looking(socket.socket.connect_ex)
"""


def make_python(root: Path) -> None:
    """The ``python3`` of all boxes: ``root/bin/python3``, a virtual environment without anything installed."""
    real = Path(sys.executable).resolve()
    library = root / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    library.mkdir(parents=True, exist_ok=True)
    (root / "pyvenv.cfg").write_text(f"home = {real.parent}\ninclude-system-site-packages = false\n")
    (library / "box_ports.py").write_text(_STARTUP)
    (library / "box_ports.pth").write_text("import box_ports\n")
    link = root / "bin" / "python3"
    if not link.is_symlink():
        link.symlink_to(real)


def keep_table(path: Path, ports: Mapping[int, int]) -> None:
    """Write a box's table, whole at every moment."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(ports))
    os.replace(new, path)

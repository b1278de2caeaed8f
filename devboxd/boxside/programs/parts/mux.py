"""Multiplexers: where they are, and how they are asked."""

import os
import shutil
import subprocess

LIMIT = 10.0  # seconds for a command of one


def find(name: str) -> "str | None":
    """A program, also where the service's path does not look.

    What users install for themselves comes first, as in ``attach.sh``: a tmux may not fit the server of another one.
    """
    home = os.path.expanduser("~")
    own = [home + "/" + one for one in (".local/bin", "bin", ".cargo/bin", ".nix-profile/bin", ".pixi/bin")]
    system = ["/usr/local/bin", "/opt/homebrew/bin", "/run/current-system/sw/bin", "/usr/bin", "/snap/bin"]
    return shutil.which(name, path=os.pathsep.join([*own, os.environ.get("PATH", ""), *system]))


def call(argv: "list[str]", data: bytes = b"", env: "dict[str, str] | None" = None) -> "tuple[int, str]":
    """Run it; its status and what it said."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, env=env)
    except OSError as error:
        return 127, str(error)
    try:
        said = process.communicate(data, timeout=LIMIT)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return 124, "it does not answer"
    return process.returncode, said.decode("utf-8", "replace")

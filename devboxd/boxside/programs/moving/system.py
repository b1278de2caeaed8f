"""This system, and what the copying of homes asks of it."""

import os
import subprocess

SHOWN_MOST = 250  # characters of a sentence: twenty notes are less than the daemon reads
OWN = "var/lib/devbox/rebase"


class Refused(Exception):
    """It can not be done; the sentence says why."""


class System:
    """This system. ``played``: a folder plays its root, and its disks are folders below ``mnt``."""

    def __init__(self, played: str) -> None:
        self.played = bool(played)
        self.root = played or "/"
        self.own = self.path(OWN)

    def path(self, name: str) -> str:
        return os.path.join(self.root, name.lstrip("/"))


def call(*argv: str, folder: "str | None" = None) -> "tuple[int, str]":
    """Run a program, in a folder; its status and what it said."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=folder
        )
    except OSError as error:
        return 127, str(error)
    said = process.communicate()[0].decode("utf-8", "replace").strip()
    return process.returncode, said


def lines(path: str) -> "list[str]":
    """The lines of a file; none where there is no such file."""
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


def shown(text: str) -> str:
    """A sentence for people: names of files may be no text, and long."""
    return text.encode("utf-8", "replace").decode()[:SHOWN_MOST]

"""Users and groups of the old system, made here where they are missing."""

import os
import re

from devboxd.boxside.programs.moving.oldroot import old_lines
from devboxd.boxside.programs.moving.system import Refused, System, call, lines

FIRST, LAST = 1000, 60000  # user ids of people (login.defs)
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
NUMBER = re.compile(r"[0-9]{1,10}\Z")
ID_MOST = (1 << 32) - 2


def records(found: "list[str]", fields: int, ids: int = 1) -> "list[list[str]]":
    """The entries of passwd or group that are whole. ``ids``: how many numbers are in one, from the third field on."""
    whole = []
    for line in found:
        one = line.split(":")
        if len(one) < fields or line.startswith("#") or not all(map(NUMBER.match, one[2 : 2 + ids])):
            continue
        one[2 : 2 + ids] = [str(int(number)) for number in one[2 : 2 + ids]]
        if all(int(number) <= ID_MOST for number in one[2 : 2 + ids]):
            whole.append(one)
    return whole


def mapped(old: "list[list[str]]", here: "dict[str, list[str]]") -> "dict[int, int]":
    """What ids are here. Where several names have one id, what is so for any of them stays; else the first name counts."""
    found: dict[int, int] = {}
    for one in old:
        if one[0] in here:
            before, now = int(one[2]), int(here[one[0]][2])
            if before not in found or before == now:
                found[before] = now
    return found


class Names:
    """Users and groups of the old system, and what they are here."""

    def __init__(self, system: System, old: str, notes: "list[str]") -> None:
        self._system, self._notes = system, notes
        self._old_users = records(old_lines(old, "etc/passwd"), 7, 2)
        self._old_groups = records(old_lines(old, "etc/group"), 4)
        self.uids: dict[int, int] = {}
        self.gids: dict[int, int] = {}
        self._read()

    def _read(self) -> None:
        self._users = {one[0]: one for one in records(lines(self._system.path("etc/passwd")), 7, 2)}
        self._groups = {one[0]: one for one in records(lines(self._system.path("etc/group")), 3)}
        self.gids = mapped(self._old_groups, self._groups)
        self.uids = mapped(self._old_users, self._users)

    def people(self) -> "list[list[str]]":
        """Who has a home to keep: root, and everybody whose id is a person's. The outer homes first."""
        found = [one for one in self._old_users if one[0] == "root" or FIRST <= int(one[2]) < LAST]
        return sorted(found, key=lambda one: len(one[5]))

    def first(self) -> "tuple[str, str]":
        """Who is user 1000 there and here: sessions go to that one, unless they are told otherwise."""
        there = next((one[0] for one in self._old_users if one[2] == str(FIRST)), "")
        return there, next((one[0] for one in self._users.values() if one[2] == str(FIRST)), "")

    def make(self, one: "list[str]") -> None:
        """Make a user that is not here: with the same ids, where they are free."""
        name, uid, gid = one[0], one[2], one[3]
        if name in self._users:
            return
        if NAME.match(name) is None:
            raise Refused("the user " + repr(name)[:40] + " can not be made here")
        group = self._group(gid, name)
        shell = one[6]
        if not os.access(self._system.path(shell or "/"), os.X_OK) or not shell:
            shell = "/bin/bash" if os.path.exists(self._system.path("/bin/bash")) else "/bin/sh"
            self._notes.append("the shell " + one[6] + " of " + name + " is not in this image")
        comment = "".join(each if each.isprintable() and each != "," else " " for each in one[4])
        argv = ["useradd", "-M", "-N", "-d", one[5], "-s", shell, "-g", group, "-c", comment]
        if uid not in {other[2] for other in self._users.values()}:
            argv += ["-u", uid]
        self._run(*argv, name)
        self._read()
        if name not in self._users:
            raise Refused("the user " + name + " was made, and is not there")
        more = [group[0] for group in self._old_groups if name in group[3].split(",")]
        known = [group for group in more if group in self._groups]
        if known:
            self._run("usermod", "-a", "-G", ",".join(known), name)

    def _group(self, gid: str, user: str) -> str:
        """The name of the user's own group, made where it is not here."""
        name = next((one[0] for one in self._old_groups if one[2] == gid), user)
        if name in self._groups:
            return name
        if NAME.match(name) is None:
            raise Refused("the group " + repr(name)[:40] + " can not be made here")
        number = ["-g", gid] if gid not in {one[2] for one in self._groups.values()} else []
        self._run("groupadd", *number, name)
        self._read()
        return name

    def _run(self, *argv: str) -> None:
        status, said = call(*argv)
        if status:
            raise Refused(argv[0] + ": " + (said or "it failed")[:200])

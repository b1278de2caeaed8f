"""Homes copied from an old root, by the real program: the roots are folders here, as on a simulated box.

What needs a block device (finding the disk, mounting it) is not tried here.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from devboxd.boxside.rebase import program, read
from devboxd.boxside.script import load
from devboxd.model.answer import BoxSaysNo
from devboxd.model.rebase import Progress
from tests.e2e.kit import until

VOLUME = "vol-0123456789abcdef0"
ROOT_ONLY = pytest.mark.skipif(os.getuid() != 0, reason="only root may give files away")


def passwd(home: str = "/home/me") -> str:
    return f"root:x:{os.getuid()}:{os.getgid()}:Ann:{home}:/bin/sh\n"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """The root of the new system, with the old one attached below it."""
    root = tmp_path / "new"
    for folder in ("etc", "bin", "home/me", "mnt/sdp/etc", "mnt/sdp/home/me"):
        (root / folder).mkdir(parents=True)
    for each in (root, root / "mnt/sdp"):
        (each / "etc/passwd").write_text(passwd())
        (each / "etc/group").write_text(f"root:x:{os.getgid()}:\n")
        (each / "home/me").chmod(0o750)
    return root


@pytest.fixture
def old(new: Path) -> Path:
    """The old home."""
    return new / "mnt/sdp/home/me"


def ask(root: Path, verb: str = "copy", *, token: str = "u-2-1-0", path: Path | None = None) -> Progress:
    """One question of the daemon."""
    asked = {"verb": verb, "volume": VOLUME, "device": "/dev/sdp", "token": token}
    env = {**os.environ, "DEVBOX_BOX_ROOT": str(root)}
    if path is not None:
        env["PATH"] = f"{path}:{env['PATH']}"
    argv = ["sh", "-c", load("rebase.sh", common=False), "devbox", program(), json.dumps(asked)]
    said = subprocess.run(argv, env=env, capture_output=True, timeout=30, check=True)
    assert said.stderr == b""
    return read(said.stdout.decode())


def copied(root: Path, **more: Any) -> Progress:
    """Ask until all is done."""

    def said() -> Progress | None:
        found = ask(root, **more)
        return found if found.done else None

    return until(said, "the homes were copied")


def refusal(root: Path) -> str:
    """Ask until it is refused; with which sentence."""

    def said() -> str:
        try:
            return "" if not ask(root).done else "done"
        except BoxSaysNo as error:
            return error.message

    return until(said, "it was refused")


def test_everything_of_a_home_comes_over(new: Path, old: Path) -> None:
    """Content, mode, times, links of both kinds, holes and attributes."""
    here = new / "home/me"
    (old / "project/src").mkdir(parents=True)
    (old / "project/src/main.c").write_bytes(b"int main;" * 1000)
    (old / "project/src/main.c").chmod(0o640)
    os.utime(old / "project/src/main.c", ns=(10**18, 10**18 + 7))
    os.link(old / "project/src/main.c", old / "project/again.c")
    (old / "link").symlink_to("/nowhere/at/all")
    os.mkfifo(old / "pipe")
    with open(old / "holes", "wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    (old / "with\nnewline and \xfc").write_text("x")
    (old / "script").write_text("#!/bin/sh\n")
    (old / "script").chmod(0o4755)
    try:
        os.setxattr(old / "script", "user.note", b"mine")
        has_attributes = True
    except OSError:
        has_attributes = False
    (old / ".devbox/jobs/abcd").mkdir(parents=True)
    (old / ".devbox/jobs/abcd/job.json").write_text("{}")
    (old / ".devbox/bridge.lock").write_text("of another box")
    (old / "project").chmod(0o700)
    os.utime(old / "project", ns=(10**18, 10**18 + 9))
    done = copied(new)
    assert (done.files, done.kept, done.notes) == (5, "", ())
    assert done.bytes == 9000 + (50 << 20) + 3 + 1 + 10 + 2
    assert (here / ".devbox/jobs/abcd/job.json").exists()
    assert not (here / ".devbox/bridge.lock").exists(), "it would take the place of this box's own"
    main = here / "project/src/main.c"
    assert main.read_bytes() == b"int main;" * 1000
    assert (main.stat().st_mode & 0o7777, main.stat().st_mtime_ns) == (0o640, 10**18 + 7)
    assert main.samefile(here / "project/again.c")
    assert os.readlink(here / "link") == "/nowhere/at/all"
    assert (here / "pipe").is_fifo()
    assert (here / "holes").stat().st_size == (50 << 20) + 3
    assert (here / "holes").stat().st_blocks < 20480, "the hole was filled"
    assert (here / "with\nnewline and \xfc").read_text() == "x"
    assert (here / "script").stat().st_mode & 0o7777 == 0o4755
    assert ((here / "project").stat().st_mode & 0o777, (here / "project").stat().st_mtime_ns) == (
        0o700,
        10**18 + 9,
    )
    if has_attributes:
        assert os.getxattr(here / "script", "user.note") == b"mine"


def test_nothing_of_the_new_image_is_deleted_and_what_is_replaced_is_kept(new: Path, old: Path) -> None:
    here = new / "home/me"
    (here / ".bashrc").write_text("new")
    (here / "only-new").write_text("stays")
    (here / "same").write_text("alike")
    (here / "was-file").write_text("now a folder")
    (here / "was-folder").mkdir()
    (here / "was-folder/x").write_text("inside")
    (old / ".bashrc").write_text("old")
    (old / "same").write_text("alike")
    (old / "was-file").mkdir()
    (old / "was-folder").write_text("now a file")
    done = copied(new)
    kept = Path(done.kept) / "home/me"
    assert (here / ".bashrc").read_text() == "old"
    assert (here / "only-new").read_text() == "stays"
    assert (here / "was-file").is_dir()
    assert (here / "was-folder").read_text() == "now a file"
    assert sorted(one.name for one in kept.iterdir()) == [".bashrc", "was-file", "was-folder"]
    assert (kept / ".bashrc").read_text() == "new"
    assert (kept / "was-folder/x").read_text() == "inside"


def test_asked_again_it_says_what_it_said_and_another_try_copies_what_is_missing(
    new: Path, old: Path
) -> None:
    """A second try after a first one: work that was done here in between is newer, and stays."""
    here = new / "home/me"
    for name in ("a", "b", "c"):
        (old / name).write_text(name * 10)
    first = copied(new)
    assert copied(new) == first
    (here / "a").unlink()
    (here / "b").write_text("edited here")
    again = copied(new, token="u-2-2-1")
    assert (again.files, (here / "a").read_text()) == (2, "a" * 10)
    assert (here / "b").read_text() == "edited here"
    assert again.kept == ""
    assert again.notes == ("1 files were changed here since an earlier try, and are left as they are",)


@ROOT_ONLY
def test_users_are_made_with_their_ids_and_taken_ids_are_mapped(new: Path, tmp_path: Path) -> None:
    """ann is unknown here and her id is free; bob's is taken by somebody else; both own what was theirs."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "useradd").write_text(
        '#!/bin/sh\nuid=2000\nwhile [ $# -gt 1 ]; do case $1 in -u) uid=$2; shift;; -g) group=$2; shift;; -[dsc]) shift;; esac; shift; done\n'
        'gid=$(sed -n "s/^$group:[^:]*:\\([0-9]*\\).*/\\1/p" "$DEVBOX_BOX_ROOT/etc/group")\n'
        'echo "$1:x:$uid:$gid::/home/$1:/bin/sh" >> "$DEVBOX_BOX_ROOT/etc/passwd"\n'
    )  # fmt: skip
    (tools / "groupadd").write_text(
        '#!/bin/sh\ngid=2000\n[ "$1" = -g ] && { gid=$2; shift 2; }\necho "$1:x:$gid:" >> "$DEVBOX_BOX_ROOT/etc/group"\n'
    )
    (tools / "usermod").write_text('#!/bin/sh\necho "$@" >> "$DEVBOX_BOX_ROOT/usermod"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    before = new / "mnt/sdp"
    (before / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nann:x:1001:1001:Ann:/home/me:/bin/fish\nbob:x:1002:1002::/home/u:/bin/sh\n"
        "daemon:x:1:1::/nonexistent:/bin/sh\nweb:x:1003:1003::/srv/web:/bin/sh\n"
    )
    (before / "etc/group").write_text(
        "root:x:0:\nann:x:1001:\nbob:x:1002:\ndocker:x:998:ann,bob\nwheel:x:10:ann\n"
    )
    (new / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nec2-user:x:1002:1002::/nowhere:/bin/sh\n")
    (new / "etc/group").write_text("root:x:0:\nec2-user:x:1002:\ndocker:x:990:\n")
    (before / "srv/web").mkdir(parents=True)
    for name, uid in (("me", 1001), ("u", 1002)):
        home = before / "home" / name
        home.mkdir(exist_ok=True)
        (home / "file").write_text(name)
        os.chown(home, uid, uid)
        os.chown(home / "file", uid, 998)
    done = copied(new, path=tools)
    ann, bob = (new / "home" / name / "file" for name in ("me", "u"))
    assert (ann.stat().st_uid, ann.stat().st_gid) == (1001, 990)
    assert (bob.stat().st_uid, bob.stat().st_gid) == (2000, 990)
    assert (bob.parent.stat().st_uid, bob.parent.stat().st_gid) == (2000, 2000)
    joined = sorted((new / "usermod").read_text().splitlines())
    assert joined == ["-a -G docker ann", "-a -G docker bob"], "wheel is no group of this image"
    assert any("/bin/fish" in note for note in done.notes)
    assert any("/srv/web" in note for note in done.notes)
    assert not any("--user" in note for note in done.notes)


def test_who_is_not_the_first_user_here_is_told_how_to_be(new: Path) -> None:
    """Sessions go to user 1000, and that is another one on another distribution."""
    first = "ubuntu:x:1000:1000::/nowhere:/bin/sh\n"
    (new / "mnt/sdp/etc/passwd").write_text(passwd() + first)
    (new / "etc/passwd").write_text(passwd() + first.replace("ubuntu", "admin"))
    assert copied(new).notes == ("the first user of this image is admin: devboxctl attach --user ubuntu",)


def test_lines_of_data_volumes_are_carried_over_and_others_are_named(new: Path) -> None:
    disks = new / "dev/disk/by-uuid"
    disks.mkdir(parents=True)
    (new / "dev/data-of-a-test").write_text("")
    (disks / "here").symlink_to("../../data-of-a-test")
    (new / "etc/fstab").write_text("LABEL=root / ext4 defaults 0 1\n")
    (new / "mnt/sdp/etc/fstab").write_text(
        "# of old\nUUID=gone / ext4 defaults 0 1\nUUID=here /data xfs noatime 0 2\nUUID=gone /more ext4 defaults 0 2\n"
        "/dev/nvme1n1 /scratch ext4 defaults 0 2\nUUID=swap none swap sw 0 0\nUUID=efi /boot/efi vfat umask=0077 0 1\n"
    )
    done = copied(new)
    lines = (new / "etc/fstab").read_text().splitlines()
    assert lines[0] == "LABEL=root / ext4 defaults 0 1"
    assert [line.split() for line in lines[1:]] == [["UUID=here", "/data", "xfs", "noatime,nofail", "0", "2"]]
    assert (new / "data").is_dir()
    assert [note.split()[1] for note in done.notes] == ["/more", "/scratch"]
    assert (Path(done.kept) / "etc/fstab").read_text() == "LABEL=root / ext4 defaults 0 1\n"


def test_a_home_that_is_a_link_or_elsewhere_is_named_and_not_followed(new: Path, tmp_path: Path) -> None:
    """An absolute link on the old root would lead into the new one."""
    before = new / "mnt/sdp"
    (tmp_path / "secret").mkdir()
    (before / "home/u").symlink_to(tmp_path / "secret")
    uid = os.getuid()
    (before / "etc/passwd").write_text(passwd() + f"eve:x:{uid + 1001}:{uid}::/home/u:/bin/sh\n")
    done = copied(new)
    assert done.notes == ("the home of eve is a link, and not copied",)


def test_no_link_that_was_put_in_the_place_of_a_folder_leads_anywhere(
    new: Path, old: Path, tmp_path: Path
) -> None:
    """Between two tries somebody moved a folder away and left a link, or a file."""
    here, away = new / "home/me", tmp_path / "away"
    for folder in ("data/deep", "notes"):
        (old / folder).mkdir(parents=True)
        (old / folder / "passwd").write_text("of the old root")
    copied(new)
    away.mkdir()
    (here / "data").rename(here / "data-before")
    (here / "data").symlink_to(away)
    (here / "notes").rename(here / "notes-before")
    (here / "notes").write_text("a file now")
    done = copied(new, token="u-2-2-1")
    assert list(away.iterdir()) == []
    assert (os.readlink(here / "data"), (here / "notes").read_text()) == (str(away), "a file now")
    assert done.notes == (
        f"what was in {here}/data and 1 more is not copied, as something else than a folder was put there since an"
        " earlier try",
    )


def test_long_names_and_names_that_are_no_text_come_over_and_can_be_said(new: Path, old: Path) -> None:
    for name in (b"x" * 255, b"y" * 250, b"\xff" * 255):
        (old / os.fsdecode(name)).write_bytes(name)
    assert copied(new).files == 3
    here = new / "home/me"
    assert sorted(os.listdir(os.fsencode(here))) == [b"x" * 255, b"y" * 250, b"\xff" * 255]
    deep = b"/srv" + (b"/" + b"\xff" * 250) * 12
    os.makedirs(os.fsencode(new / "mnt/sdp") + deep)
    lines = [b"eve%d:x:%d:0::%s:/bin/sh\n" % (number, os.getuid() + 1001, deep) for number in range(25)]
    (new / "mnt/sdp/etc/passwd").write_bytes(passwd().encode() + b"".join(lines))
    found = copied(new, token="u-2-2-1")
    assert (len(found.notes), found.notes[0][:27]) == (20, "the home of eve0 is /srv/??")


def test_a_hole_that_is_larger_than_every_disk_costs_nothing(new: Path, old: Path) -> None:
    with open(old / "holes", "wb") as file:
        file.write(b"begin")
        file.seek(1 << 40)
        file.write(b"middle")
        file.truncate(8 << 40)
    found = copied(new)
    assert found.bytes == 8 << 40
    with open(new / "home/me/holes", "rb") as file:
        assert (file.read(6), file.seek(1 << 40), file.read(7)) == (b"begin\0", 1 << 40, b"middle\0")
    assert (new / "home/me/holes").stat().st_size == 8 << 40
    assert (new / "home/me/holes").stat().st_blocks < 4096


@pytest.mark.parametrize(
    "line",
    [
        "eve:x:\u00b2:1001::/home/u:/bin/sh",
        "eve:x:" + "9" * 5000 + ":1001::/home/u:/bin/sh",
        "eve:x:1001:-g::/home/u:/bin/sh",
        "eve:x:1001:" + "9" * 10 + "::/home/u:/bin/sh",
        "eve:x:1001",
        "\0:::::::",
    ],
)
def test_a_line_of_passwd_that_is_damaged_is_nobody(new: Path, line: str) -> None:
    (new / "mnt/sdp/home/u").mkdir()
    (new / "mnt/sdp/etc/passwd").write_text(passwd() + line + "\n")
    assert copied(new).notes == ()
    assert not (new / "home/u").exists()


def test_tables_of_the_old_root_are_files_of_it_or_nothing(new: Path, old: Path, tmp_path: Path) -> None:
    """A link would lead into this system, and nobody writes to a pipe."""
    etc = new / "mnt/sdp/etc"
    (old / "file").write_text("x")
    (tmp_path / "fstab").write_text("UUID=gone /more ext4 defaults 0 2\n")
    (etc / "fstab").symlink_to(tmp_path / "fstab")
    (etc / "group").unlink()
    os.mkfifo(etc / "group")
    found = copied(new)
    assert (found.files, found.notes) == (1, ())


@ROOT_ONLY
def test_of_two_names_with_one_id_neither_takes_the_files_of_the_other(new: Path) -> None:
    """An alias is made anew under an id of its own; what is the first one's stays so."""
    before = new / "mnt/sdp"
    lines = "ann:x:1001:1001::/home/me:/bin/sh\nalias:x:1001:1001::/home/u:/bin/sh\n"
    groups = "root:x:0:\nann:x:1001:\n"
    (before / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n" + lines)
    (before / "etc/group").write_text(groups)
    (new / "etc/passwd").write_text(
        "root:x:0:0::/root:/bin/sh\n" + lines.replace("alias:x:1001", "alias:x:2000")
    )
    (new / "etc/group").write_text(groups)
    (before / "home/me/file").write_text("x")
    os.chown(before / "home/me/file", 1001, 1001)
    assert copied(new).files == 1
    assert (new / "home/me/file").stat().st_uid == 1001


def test_what_a_volume_of_homes_hides_on_the_old_root_is_not_put_over_it(new: Path, old: Path) -> None:
    """It was there before that volume was mounted, and nobody has seen it since."""
    disks = new / "dev/disk/by-uuid"
    disks.mkdir(parents=True)
    (new / "dev/data-of-a-test").write_text("")
    (disks / "here").symlink_to("../../data-of-a-test")
    (new / "mnt/sdp/etc/fstab").write_text("UUID=here /home ext4 defaults 0 2\n")
    (new / "home/me/work").write_text("of today")
    (old / "work").write_text("of years ago")
    found = copied(new)
    assert (found.files, found.notes, (new / "home/me/work").read_text()) == (0, (), "of today")
    (new / "mnt/sdp/etc/fstab").write_text("UUID=here /home ext4 noauto 0 2\n")
    assert copied(new, token="u-2-2-1").files == 1


@pytest.mark.parametrize(
    ("place", "is_carried"),
    [
        *((place, False) for place in ("/var", "/var/lib", "/var/lib/devbox", "/var/lib/devbox/rebase/x", "/usr")),
        *((place, False) for place in ("//", "/.", "/etc", "/srv/../etc", "/etc/", "/usr/lib", "/proc", "/run/x")),
        *((place, True) for place in ("/var/lib/docker", "/var/lib/devbox-data", "/usr/local", "/srv", "/home/me/data")),
    ],
)  # fmt: skip
def test_no_volume_is_mounted_over_the_system(new: Path, place: str, *, is_carried: bool) -> None:
    disks = new / "dev/disk/by-uuid"
    disks.mkdir(parents=True)
    (new / "dev/data-of-a-test").write_text("")
    (disks / "here").symlink_to("../../data-of-a-test")
    (new / "etc/fstab").write_text("")
    (new / "mnt/sdp/etc/fstab").write_text(f"UUID=here {place} ext4 defaults 0 2\n")
    found = copied(new)
    assert (place in (new / "etc/fstab").read_text().split()) is is_carried
    assert [note.split(",")[0] for note in found.notes] == (
        [] if is_carried else [f"fstab: {place} is not carried over"]
    )


def test_what_can_not_be_is_said_in_a_sentence(new: Path, old: Path) -> None:
    (new / "mnt/sdp/etc/passwd").write_text("")

    assert refusal(new) == "there is no home on the old root"
    (new / "mnt/sdp/etc/passwd").write_text(passwd())
    assert copied(new, token="u-2-2-1").done


@pytest.mark.parametrize(("many", "said"), [(2, "2 of 3"), (1001, "1000 or more of 1002")])
def test_a_file_that_can_not_be_copied_counts_once(new: Path, old: Path, many: int, said: str) -> None:
    """The copying of it fails, and then it is not there."""
    for number in range(many):
        with open(old / f"large-{number:04}", "wb") as file:
            file.write(b"x")
            file.truncate(2 << 20)
    (old / "small").write_text("x")

    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        found = refusal(new)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, hard))
    first = new / "home/me/large-0000"
    assert found == f"{said} files are not copied, first {first}: File too large"


@ROOT_ONLY
def test_device_nodes_are_counted_and_nothing_else_comes_of_them(new: Path, old: Path) -> None:
    """Overlays leave thousands of them, one for each file that was deleted."""
    try:
        for number in range(3):
            os.mknod(old / f"gone-{number}", 0o600 | stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    found = copied(new)
    assert (found.files, found.notes) == (0, ("3 device nodes are not copied",))
    assert list((new / "home/me").iterdir()) == []


def test_it_ends_when_it_is_told_to_and_begins_anew(new: Path, old: Path) -> None:
    for number in range(3000):
        (old / f"file-{number}").write_bytes(b"x" * 2000)
    ask(new)
    ask(new, "end")
    lock = new / "var/lib/devbox/rebase/lock"
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert copied(new).files == 3000


def test_whoever_looks_at_the_lock_keeps_no_copying_from_beginning(new: Path, old: Path) -> None:
    """The daemon, and the command of the lease at each look of the collector: they share the lock for a moment."""
    own = new / "var/lib/devbox/rebase"
    own.mkdir(parents=True)
    with open(own / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        leaves = threading.Timer(0.5, fcntl.flock, (file, fcntl.LOCK_UN))
        leaves.start()
        ask(new)
        leaves.join()
    assert json.loads((own / "state.json").read_text())["token"] == "u-2-1-0"


def test_the_command_of_the_lease_shares_the_lock() -> None:
    assert "! flock -s -n /" in program()


@pytest.mark.parametrize("how", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_no_other_process_is_ended_that_has_the_number_of_a_worker(new: Path, how: int) -> None:
    own = new / "var/lib/devbox/rebase"
    own.mkdir(parents=True)
    other = subprocess.Popen(["sleep", "60"])
    try:
        (own / "state.json").write_text(json.dumps({"token": "u-2-1-0", "pid": other.pid}))
        with open(own / "lock", "w") as file:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            ask(new, "end")
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    "said",
    [
        "",
        "garbage",
        '{"files": -1}',
        '{"files": "many"}',
        '{"kept": "' + "x" * 5000 + '"}',
        "[]",
        '{"notes": [1]}',
    ],
)
def test_what_a_box_says_is_not_believed(said: str) -> None:
    with pytest.raises(BoxSaysNo):
        read(said)


def test_what_a_box_says_is_bounded_and_printable() -> None:
    with pytest.raises(BoxSaysNo) as error:
        read(json.dumps({"problem": "\x1b[31mred" + "x" * 10_000}))
    assert "\x1b" not in error.value.message
    assert len(error.value.message) < 400
    found = read("noise\n" + json.dumps({"done": True, "files": 3, "bytes": 4, "notes": ["\x07bell"]}))
    assert (found.files, "\x07" in found.notes[0]) == (3, False)

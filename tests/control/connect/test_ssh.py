"""ssh access: whose key is where, which host keys are pinned, and what is said when that fails."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from devboxd.control.base.shared import Shared
from devboxd.control.connect.execute import ExecSpec
from devboxd.control.connect.ssh import SshAccess
from devboxd.control.connect.terminal import Terminal
from devboxd.control.daemon import Daemon
from devboxd.errors import BadRequest, Denied, DevboxError, Unreachable, WrongState
from devboxd.model.box import Account, BoxRef
from devboxd.model.ssh import SHORT, VALID, VALID_BAD, Ended
from devboxd.model.terminal import EndOfInput, Input, Leaving
from devboxd.simulator.world import Simulator
from tests.control.fakes import LoopClock
from tests.control.kit import NoKeys
from tests.kit.tasks import beside

BOX = BoxRef("api", "i-0123456789abcdef0", Account())
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHostKeyForTestsOnly000000000000000000000000"
Answer = Callable[[ExecSpec, str], tuple[str, Leaving]]


class Site:
    """A box that answers as it is told, and Instance Connect."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str | None, str]] = []  # user, key that came on standard input
        self.ports: list[str] = []  # of the sshd that is asked for its host keys; empty: left alone
        self.offered: list[tuple[str, str]] = []  # by Instance Connect: target, user
        self.connect_error: DevboxError | None = None
        self.takes = 0.0  # seconds
        self.keys = NoKeys()
        self.access = SshAccess(Shared.of(LoopClock()), self.keys, self._run, self._send_key)

    async def _run(self, spec: ExecSpec, terminal: Terminal) -> Leaving:
        key = ""
        while not isinstance(message := await terminal.receive(), EndOfInput):
            assert isinstance(message, Input)
            key += message.data.decode()
        self.asked.append((spec.user, key))
        self.ports.append(spec.argv[-1])
        await asyncio.sleep(self.takes)
        text, leaving = self.answer(spec, key)
        terminal.output(text.encode())
        return leaving

    async def _send_key(self, box: BoxRef, user: str, public_key: str) -> None:
        if self.connect_error is not None:
            raise self.connect_error
        self.offered.append((box.target, user))


def works(spec: ExecSpec, key: str) -> tuple[str, Leaving]:
    return f"user {spec.user or 'ec2-user'}\nkey yes\nhost {HOST_KEY}\ndone yes\n", Leaving(status=0)


@pytest.mark.looptime
async def test_the_key_is_put_once_and_the_host_keys_are_pinned() -> None:
    """For the name and for the instance id; the next ssh in the same hours asks nothing."""
    site = Site(works)
    access = await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    assert (access.user, access.has_key, access.host_keys, access.problems) == ("ana", True, [HOST_KEY], [])
    assert site.keys.pinned == {("api", 22): [HOST_KEY], (BOX.target, 22): [HOST_KEY]}
    assert site.keys.users == {"api": "ana", BOX.target: "ana"}
    assert site.asked[0][1].startswith("ssh-ed25519 ")
    assert await site.access.prepare(BOX, user="ana", port=22) is access
    assert len(site.asked) == 1
    await site.access.prepare(BOX, user="ana", port=2222)
    assert len(site.asked) == 2, "another sshd has other host keys"
    await asyncio.sleep(VALID + 1)
    await site.access.prepare(BOX, user="ana", port=22)
    assert len(site.asked) == 3
    await site.access.prepare(BOX, user="ana", port=22, fresh=True)
    assert len(site.asked) == 4
    assert site.offered == []


@pytest.mark.looptime
async def test_whoever_the_session_is_logs_in_when_nobody_is_named() -> None:
    """And is remembered under that name."""
    site = Site(works)
    access = await site.access.prepare(BOX, user=None, port=22)
    assert access.user == "ec2-user"
    assert await site.access.prepare(BOX, user="ec2-user", port=22) is access


def no_sudo(spec: ExecSpec, key: str) -> tuple[str, Leaving]:
    """The session may not become another user."""
    if spec.user is not None:
        return "", Leaving(error=WrongState("the session may not become that user"))
    return works(spec, key)


@pytest.mark.looptime
async def test_where_that_user_cannot_be_become_instance_connect_is_asked_each_time() -> None:
    """Its keys live for a minute only; the host keys still come over the session."""
    site = Site(no_sudo)
    access = await site.access.prepare(BOX, user="ana", port=22)
    assert (access.user, access.has_key, access.host_keys) == ("ana", False, [HOST_KEY])
    assert "may not become" in access.problems[0]
    assert site.offered == [(BOX.target, "ana")]
    await site.access.prepare(BOX, user="ana", port=22)
    assert len(site.offered) == 2
    assert len(site.asked) == 2
    await asyncio.sleep(VALID_BAD + 1)
    await site.access.prepare(BOX, user="ana", port=22)
    assert len(site.offered) == 3
    assert len(site.asked) == 3, "the session may be allowed to by now"


@pytest.mark.looptime
async def test_where_instance_connect_is_denied_too_ssh_goes_on_and_is_told_why() -> None:
    """Its user may have keys of their own."""
    site = Site(no_sudo)
    site.connect_error = Denied("ec2-instance-connect:SendSSHPublicKey is not allowed")
    access = await site.access.prepare(BOX, user="ana", port=22)
    assert not access.has_key
    assert any("could not be put on api for ana" in problem for problem in access.problems)
    assert site.keys.pinned


@pytest.mark.looptime
async def test_a_box_without_sshd_is_told() -> None:
    """Nothing is pinned, and nothing that was is lost."""
    site = Site(lambda spec, key: ("user ana\nkey yes\ndone yes\n", Leaving(status=0)))
    access = await site.access.prepare(BOX, user="ana", port=22)
    assert any("does sshd listen on port 22" in problem for problem in access.problems)
    assert site.keys.pinned == {}


@pytest.mark.looptime
async def test_a_box_that_cannot_be_reached_is_an_error() -> None:
    """Not a list of problems."""
    site = Site(lambda spec, key: ("", Leaving(error=Unreachable("no route"))))
    with pytest.raises(Unreachable):
        await site.access.prepare(BOX, user="ana", port=22)


@pytest.mark.looptime
@pytest.mark.parametrize(
    "line",
    [
        "host ssh-ed25519 short",
        "host ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ==\nhost * cert",
        "host @cert-authority *",
        "host ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHostKey0000 ProxyCommand",
        "host ssh-ed25519\tAAAAC3NzaC1lZDI1NTE5AAAAIHostKey0000000",
    ],
)
async def test_host_keys_are_untrusted_text(line: str) -> None:
    """A hostile box must not write options into known_hosts."""
    site = Site(lambda spec, key: (f"user ana\nkey yes\n{line}\ndone yes\n", Leaving(status=0)))
    access = await site.access.prepare(BOX, user="ana", port=22)
    for key in access.host_keys:
        kind, material = key.split(" ")
        assert kind.startswith("ssh-")
        assert material.isascii()


@pytest.mark.looptime
async def test_what_was_wrong_is_looked_at_again_soon() -> None:
    """Somebody starts sshd and tries again; twelve hours later would be late."""
    site = Site(lambda spec, key: ("user ana\nkey yes\ndone yes\n", Leaving(status=0)))
    await site.access.prepare(BOX, user="ana", port=22)
    site.answer = works
    assert (await site.access.prepare(BOX, user="ana", port=22)).problems, "not a session for every ssh"
    assert not (await site.access.prepare(BOX, user="ana", port=22, hasty=False)).problems
    site.answer = no_sudo
    await site.access.prepare(BOX, user="ben", port=22)
    site.answer = works
    await asyncio.sleep(VALID_BAD + 1)
    assert not (await site.access.prepare(BOX, user="ben", port=22)).problems


@pytest.mark.looptime
async def test_each_name_that_ssh_asks_for_is_pinned_even_if_the_box_is_prepared() -> None:
    """``ssh we.devbox`` after ``ssh web.devbox``: without a pin of its own it ends in a failed verification."""
    site = Site(works)
    await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    await site.access.prepare(BOX, user="ana", port=22, hosts=["api", "ap"])
    assert len(site.asked) == 1, "the box was not asked again"
    assert site.keys.pinned[("ap", 22)] == [HOST_KEY]


@pytest.mark.looptime
async def test_a_name_that_means_another_box_now_has_the_other_boxs_key() -> None:
    """A box made anew under its old name, or the other account's: within twelve hours, too."""
    other_key = HOST_KEY.replace("ForTests", "OfOthers")
    other = msgspec.structs.replace(BOX, target="i-0fedcba9876543210")
    site = Site(
        lambda spec, key: (works(spec, key)[0].replace(HOST_KEY, keys[spec.box.target]), Leaving(status=0))
    )
    keys = {BOX.target: HOST_KEY, other.target: other_key}
    for box in (BOX, other, BOX):
        await site.access.prepare(box, user="ana", port=22, hosts=["api"])
        assert site.keys.pinned[("api", 22)] == [keys[box.target]]
    assert len(site.asked) == 2


FAILED = Ended(0.5, 3600, 3700)
REFUSED = Ended(0.5, 1600, 1700, is_refused=True)


@pytest.mark.looptime
async def test_an_ssh_that_failed_makes_the_next_one_look_at_the_box_again() -> None:
    """A renewed host key, an emptied authorized_keys: mended by the second try, and not by a restart."""
    site = Site(works)
    await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    new_key = HOST_KEY.replace("ForTests", "Renewed0")
    site.answer = lambda spec, key: (works(spec, key)[0].replace(HOST_KEY, new_key), Leaving(status=0))
    await asyncio.sleep(60)
    await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    assert len(site.asked) == 1, "nothing had failed"
    site.access.ended(BOX, 22, Ended(SHORT, 5000, 5000))
    await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    assert len(site.asked) == 1, "somebody was logged in"
    await asyncio.sleep(1)
    site.access.ended(BOX, 22, FAILED)
    await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    assert len(site.asked) == 2, "the key may be missing there"
    assert site.keys.pinned[("api", 22)] == [HOST_KEY], "nobody has refused it"
    await asyncio.sleep(1)
    site.access.ended(BOX, 22, REFUSED)
    access = await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])
    assert site.keys.pinned[("api", 22)] == [new_key]
    assert "other host keys than before" in " ".join(access.news)
    assert not (await site.access.prepare(BOX, user="ana", port=22, hosts=["api"])).news, "said once"
    assert len(site.asked) == 3


@pytest.mark.looptime
async def test_a_look_that_replaces_no_host_key_leaves_sshd_alone() -> None:
    """It counts connections that do not log in, and shuts their address out: a loop of short commands must not be it."""
    site = Site(works)
    await site.access.prepare(BOX, user="ana", port=22)
    await asyncio.sleep(1)
    site.access.ended(BOX, 22, FAILED)
    access = await site.access.prepare(BOX, user="ana", port=22)
    assert (access.host_keys, access.problems) == ([HOST_KEY], [])
    await asyncio.sleep(1)
    site.access.ended(BOX, 22, REFUSED)
    await site.access.prepare(BOX, user="ana", port=22)
    await site.access.prepare(BOX, user="ana", port=22, fresh=True)
    assert site.ports == ["22", "", "22", "22"]


@pytest.mark.looptime
async def test_a_doubt_is_for_every_user_of_that_sshd_and_for_no_other() -> None:
    site = Site(works)
    other = msgspec.structs.replace(BOX, target="i-0fedcba9876543210")
    users = [(BOX, "ana", 22), (BOX, "ben", 22), (BOX, "ana", 2222), (other, "ana", 22)]
    for box, user, port in users:
        await site.access.prepare(box, user=user, port=port)
    await asyncio.sleep(1)
    site.access.ended(BOX, 22, FAILED)
    for box, user, port in users:
        await site.access.prepare(box, user=user, port=port)
    assert len(site.asked) == 4 + 2


@pytest.mark.looptime
async def test_a_loop_of_short_commands_does_not_look_each_time() -> None:
    """``ssh api true`` ends as a failing ssh does."""
    site = Site(works)
    for _ in range(100):
        await site.access.prepare(BOX, user="ana", port=22)
        await asyncio.sleep(0.1)
        site.access.ended(BOX, 22, FAILED)
    assert len(site.asked) <= 7  # the first, the second, and one in two seconds


@pytest.mark.looptime
async def test_who_a_session_is_depends_on_the_account_that_asks() -> None:
    """The account may run sessions as another user, or forbid to become one."""
    site = Site(works)
    for profile in ("a", "b", "a"):
        box = msgspec.structs.replace(BOX, account=Account(profile))
        await site.access.prepare(box, user=None, port=22)
    assert len(site.asked) == 2


@pytest.mark.looptime
async def test_a_problem_is_news_once_and_again_when_ssh_failed() -> None:
    """Whoever logs in with keys of their own would read it at every git fetch."""
    site = Site(no_sudo)
    site.connect_error = Denied("not allowed")
    assert len((await site.access.prepare(BOX, user="ana", port=22)).news) == 2
    assert not (await site.access.prepare(BOX, user="ana", port=22)).news
    await asyncio.sleep(VALID_BAD + 1)
    assert not (await site.access.prepare(BOX, user="ana", port=22)).news
    await asyncio.sleep(1)
    site.access.ended(BOX, 22, FAILED)
    assert len((await site.access.prepare(BOX, user="ana", port=22)).news) == 2


@pytest.mark.looptime
async def test_several_ssh_at_once_prepare_once() -> None:
    """As editors open them: a success is shared, a failure is, too, and other users are not held up."""
    site = Site(works)
    site.takes = 5.0
    began = asyncio.get_running_loop().time()
    four = await asyncio.gather(
        *(site.access.prepare(BOX, user="ana", port=22, fresh=True) for _ in range(4)),
        site.access.prepare(BOX, user="ben", port=22),
    )
    assert asyncio.get_running_loop().time() - began == 5.0
    assert sorted(user or "" for user, _ in site.asked) == ["ana", "ben"]
    assert four[0] is four[3]
    site.answer = lambda spec, key: ("", Leaving(error=Unreachable("no route")))
    failed = await asyncio.gather(
        *(site.access.prepare(BOX, user="eve", port=22) for _ in range(3)), return_exceptions=True
    )
    assert [type(one) for one in failed] == [Unreachable] * 3
    assert len(site.asked) == 3
    site.answer = works
    assert (await site.access.prepare(BOX, user="eve", port=22)).has_key, "the next one tries again"


@pytest.mark.looptime
async def test_who_waits_goes_on_when_the_one_before_is_cancelled() -> None:
    site = Site(works)
    site.takes = 5.0
    first = beside(site.access.prepare(BOX, user="ana", port=22))
    second = beside(site.access.prepare(BOX, user="ana", port=22))
    await asyncio.sleep(1)
    first.cancel()
    assert (await second).has_key
    assert len(site.asked) == 2


@pytest.mark.looptime
@pytest.mark.parametrize("name", ["-oProxyCommand=id", "x';touch y;'", "a b", "$(id)", "a\tb", "é"])
async def test_the_user_that_a_box_names_is_untrusted_text(name: str) -> None:
    """It would stand on the command line of ssh, and in a ProxyCommand."""
    site = Site(lambda spec, key: (f"user {name}\nkey yes\nhost {HOST_KEY}\ndone yes\n", Leaving(status=0)))
    with pytest.raises(BadRequest, match="cannot be a user's name"):
        await site.access.prepare(BOX, user=None, port=22)
    assert site.keys.users == {}
    assert (await site.access.prepare(BOX, user="ana", port=22)).user == "ana"


@pytest.mark.parametrize("user", ["", "a b", "-x", "a;b", "a" * 65, "é", "a\n"])
async def test_a_user_name_that_cannot_be_one_is_refused(user: str) -> None:
    """It stands on a command line."""
    site = Site(works)
    with pytest.raises(BadRequest):
        await site.access.prepare(BOX, user=user, port=22)
    assert site.asked == []


async def test_the_script_puts_the_key_on_a_box_once(daemon: Daemon, sim: Simulator, tmp_path: Path) -> None:
    """With the real script in a real shell: private, once, and nobody else's key is harmed."""
    home = sim.box("api").disk
    (home / ".ssh").mkdir(mode=0o700)
    keys = home / ".ssh" / "authorized_keys"
    keys.write_text("ssh-rsa AAAAold somebody")  # no newline at its end
    box = await daemon.boxes.resolve(sim.box("api").id, Account())
    for _ in range(2):
        access = await daemon.ssh.prepare(box, user=None, port=1, fresh=True)
    assert access.has_key
    assert access.user == subprocess.check_output(["id", "-un"], text=True).strip()
    ours = (await NoKeys().public_key()).strip()
    assert keys.read_text().splitlines() == ["ssh-rsa AAAAold somebody", ours]
    assert any("does sshd listen on port 1" in problem for problem in access.problems)

"""What may be a box, a user, a host key, a session; and which box a name means."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devboxd.errors import BadRequest
from devboxd.model.names import (
    Found,
    Listing,
    Meaning,
    Nothing,
    Several,
    called,
    check_mux,
    check_session,
    check_user,
    host_key,
    host_label,
    host_labels,
    is_host_name,
    is_instance_id,
    is_name,
    is_pinnable,
    listings,
    long_label,
    meaning,
    strip_suffix,
)
from devboxd.model.states import Mux


class Box(msgspec.Struct, frozen=True):
    """What the rules see of an instance."""

    id: str
    name: str | None = None
    project: str | None = None
    is_running: bool = True


def ids(count: int) -> list[str]:
    return [f"i-0123456789abcde{number:02x}" for number in range(count)]


I1, I2, I3 = ids(3)
BLOB = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"k" * 32).decode()
TAGS = [
    "api",
    "My Dev Box",
    "web/prod",
    "büro",
    "ann@corp",
    "a b",
    "開発",
    "-x",
    "x" * 256,
    "a\nb",
    "#1",
    "x.devbox",
]


@pytest.mark.parametrize("text", ["i-0123456789abcdef0", "i-01234567", "mi-0123456789abcdef0"])
def test_instance_ids_are_boxes_by_themselves(text: str) -> None:
    """They need no EC2 permission."""
    assert is_instance_id(text)


@pytest.mark.parametrize(
    "text",
    ["", "i-", "i-012345678", "i-0123456789ABCDEF0", "i-0123456789abcdef0\n", "x i-01234567", "mi-01234567"],
)
def test_what_looks_like_an_instance_id_is_none(text: str) -> None:
    """A typo is a name, and then not found."""
    assert not is_instance_id(text)


@pytest.mark.parametrize("tag", TAGS)
def test_every_name_tag_is_a_name(tag: str) -> None:
    """What ``ls`` shows, every command takes."""
    assert is_name(tag)


@pytest.mark.parametrize("text", ["", " ", "\t\n", "x" * 257, "a\0b", "\ud800"])
def test_what_no_tag_can_be_is_no_name(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        *((text, True) for text in ("api", "a", "a.b-c_d", "x" * 63)),
        *((text, False) for text in ("x" * 64, "-a", "a-", "", "a b", "a/b", "a\n", "é", "*", "a,b", "#a")),
    ],
)
def test_a_host_name_means_nothing_else_to_ssh(text: str, valid: bool) -> None:
    """It stands in ~/.ssh/config and in known_hosts, where ``*`` would mean every box."""
    assert is_host_name(text) is valid


def test_the_host_suffix_is_ours() -> None:
    """ssh hands us ``gpu.devbox``."""
    assert (strip_suffix("gpu.devbox"), strip_suffix("gpu")) == ("gpu", "gpu")


@pytest.mark.parametrize(
    "user", ["ann", "ann@corp.example", "ann.lee", "a-b", "_apt", "1st", "svc$", "x" * 64]
)
def test_users_of_every_directory_are_users(user: str) -> None:
    assert check_user(user) == user


@pytest.mark.parametrize(
    "user",
    [
        "",
        "-oProxyCommand=x",
        "a b",
        "a'b",
        'a"b',
        "a;b",
        "a\nb",
        "$(x)",
        "`x`",
        "é",
        "a\\b",
        "x" * 65,
        "a\0",
        "%r",
    ],
)
def test_what_ssh_or_a_shell_would_read_is_no_user(user: str) -> None:
    """A box says who its user is, and that ends on command lines."""
    with pytest.raises(BadRequest):
        check_user(user)


@pytest.mark.parametrize("name", ["main", "a-b_c", "büro", "1"])
def test_session_names_are_what_both_multiplexers_take(name: str) -> None:
    assert check_session(name) == name


@pytest.mark.parametrize("name", ["", "a b", "-x", "a;b", "a'b", "x" * 65, "a.b", "a:b", "a/b", "é b", "a\n"])
def test_session_names_that_mean_something_are_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_session(name)


def test_a_mux_that_we_do_not_know_is_refused() -> None:
    """And with it whatever was hidden in its name."""
    assert check_mux("tmux") is Mux.TMUX
    with pytest.raises(BadRequest, match="no multiplexer"):
        check_mux("screen; id")


def blob(kind: str, content: bytes = b"k" * 36) -> str:
    return base64.b64encode(len(kind).to_bytes(4, "big") + kind.encode() + content).decode()


@pytest.mark.parametrize(
    "kind",
    [
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "ssh-mldsa44-ed25519@openssh.com",
    ],
)
def test_host_keys_of_every_type_are_pinned(kind: str) -> None:
    """One that is left out is one that ssh then refuses to know."""
    line = f"{kind} {blob(kind)}"
    assert host_key(line) == line
    assert host_key(f"  {line} root@box \n") == line


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        f"ssh-rsa {BLOB}",  # the type inside is another
        f"ssh-ed25519 {BLOB[:-6]}!{BLOB[-5:]}",
        f"ssh-ed25519 {BLOB[:20]}",
        f"ssh-ed25519 {BLOB} x\n* ssh-ed25519 {BLOB}".replace(f"{BLOB} x\n", "AAAA\n"),
        f"* ssh-ed25519 {BLOB}",
        f"@cert-authority * ssh-ed25519 {BLOB}",
        f"ssh-ed25519\t{BLOB}",
        "ssh-ed25519-cert-v01@openssh.com " + blob("ssh-ed25519-cert-v01@openssh.com"),
        "ssh-ed25519 " + blob("ssh-ed25519", b"k" * 50_000),
        "ssh-ed25519 " + blob("ssh-ed25519", b""),
        f"rsa {blob('rsa')}",
    ],
)
def test_what_is_not_wholly_a_host_key_is_left_out(line: str) -> None:
    """The box writes these lines, and they go into our known_hosts."""
    assert host_key(line) is None


def test_a_second_line_never_rides_along_with_a_key() -> None:
    key = host_key(f"ssh-ed25519 {BLOB} comment\n* ssh-ed25519 {BLOB}")
    assert key is not None
    assert "\n" not in key


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("api", "api"),
        ("GPU_1", "GPU_1"),
        ("My Dev Box", "my-dev-box"),
        ("web/prod", "web-prod"),
        ("büro", "buro"),
        ("Straße 7", "strasse-7"),
        ("ann@corp", "ann-corp"),
        ("*", long_label("*")),
        ("開発", long_label("開発")),
        (" web ", "web"),
        ("x" * 256, "x" * 48),
    ],
)
def test_a_host_name_is_derived_that_one_can_guess(name: str, label: str) -> None:
    assert host_label(name) == label


@given(st.text(min_size=1, max_size=80))
def test_every_name_has_host_names_that_ssh_takes(name: str) -> None:
    assert is_host_name(host_label(name))
    assert is_host_name(long_label(name))


NAMES = st.sets(
    st.builds(
        str.__add__, st.text("aA Bb-/ü開", min_size=1, max_size=4), st.sampled_from(["", "", ".devbox"])
    ),
    max_size=12,
)


@given(NAMES)
def test_no_two_names_share_a_host_name(names: set[str]) -> None:
    """Two boxes under one pinned name: one of them fails, or worse, the other one answers."""
    labels = host_labels(names)
    assert len({label.lower() for label in labels.values()}) == len(names)
    assert labels.keys() == names


@given(NAMES)
def test_every_host_name_that_is_shown_leads_to_its_box(names: set[str]) -> None:
    """``ls`` shows it, ``ssh`` is given it, and the box is that one."""
    boxes = [Box(id_, name) for id_, name in zip(ids(len(names)), sorted(names), strict=True)]
    shown = listings(boxes, {})
    for box in boxes:
        found = meaning(shown[box.id].host, boxes, {})
        assert isinstance(found, Found)
        assert found.target == box.id


@given(
    st.lists(st.builds(Box, st.sampled_from(ids(6)), st.none() | st.sampled_from(["a", "b", I1, " ", "c.devbox"]),
                       st.none() | st.sampled_from(["a", "p"]), st.booleans()),
             unique_by=lambda box: box.id, max_size=6),
    st.dictionaries(st.sampled_from(["a", "b", "x"]), st.sampled_from([I1, I2, "a", "x"])),
)  # fmt: skip
def test_what_is_offered_is_accepted_and_means_that_box(boxes: list[Box], configured: dict[str, str]) -> None:
    """The picker and completion offer references; each must lead to its box and no other."""
    shown = listings(boxes, configured)
    assert shown.keys() >= {box.id for box in boxes}
    for id_, listing in shown.items():
        for said in (listing.ref, listing.host):
            if said.removesuffix(".devbox") == id_:
                continue  # an id is taken as it is
            found = meaning(said, boxes, configured)
            assert isinstance(found, Found)
            if not is_instance_id(found.target):
                found = called(found.target, boxes) or found
            assert isinstance(found, Found)
            assert found.target == id_


@pytest.mark.parametrize("tag", TAGS)
def test_every_tag_leads_to_its_box(tag: str) -> None:
    assert meaning(tag, [Box(I1, tag), Box(I2, "other")], {}) == Found(tag, I1)


WEB = [Box(I1, "web-1"), Box(I2, "west", is_running=False), Box(I3, "My Dev Box", project="ml")]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("web-1", Found("web-1", I1)),
        ("web-1.devbox", Found("web-1", I1)),
        ("web", Found("web-1", I1)),
        ("web.devbox", Found("web-1", I1)),
        ("WEB-1.devbox", Found("web-1", I1)),
        ("we", Several(("web-1", "west"), begun=True)),
        ("we.devbox", Several(("web-1", "west"), begun=True)),
        ("ml", Found("ml", I3)),
        ("my-dev-box.devbox", Found("My Dev Box", I3)),
        ("my", Found("My Dev Box", I3)),
        ("My ", Found("My Dev Box", I3)),
        (I1[:-1], Several(("My Dev Box", "web-1", "west"), begun=True)),
        ("wbe-1", Nothing(("web-1",), ("My Dev Box", "web-1", "west"))),
        ("MY DEV BX", Nothing(("My Dev Box",), ("My Dev Box", "web-1", "west"))),
        ("zzz", Nothing((), ("My Dev Box", "web-1", "west"))),
        ("", Nothing((), ("My Dev Box", "web-1", "west"))),
        (".devbox", Nothing((), ("My Dev Box", "web-1", "west"))),
    ],
)
def test_a_name_means_the_box_that_one_would_think(text: str, means: Meaning) -> None:
    """A typo never reaches another box; a beginning does where it can mean one only."""
    assert meaning(text, WEB, {}) == means


@pytest.mark.parametrize(
    ("text", "boxes", "configured", "means"),
    [
        # A name in full wins over a longer one that begins so.
        ("web", [Box(I1, "web"), Box(I2, "web-2")], {}, Found("web", I1)),
        # Of two boxes of one name the running one is meant; of two running ones none.
        ("web", [Box(I1, "web", is_running=False), Box(I2, "web")], {}, Found("web", I2)),
        ("web", [Box(I2, "web"), Box(I1, "web")], {}, Several((I1, I2))),
        ("web", [Box(I2, "web", is_running=False), Box(I1, "web", is_running=False)], {}, Several((I1, I2))),
        # The configuration wins over a tag, in full and by its beginning.
        ("web", [Box(I1, "web")], {"web": I2}, Found("web", I2)),
        ("gp", [Box(I1, "ml-box")], {"gpu": I1}, Found("gpu", I1)),
        ("gp", [Box(I1, "gpu-box")], {"gpu": "gpu-box"}, Found("gpu", I1)),
        ("gp", [Box(I1, "gpu-box")], {"gpu": I2}, Several(("gpu", "gpu-box"), begun=True)),
        ("gp", [], {"gpu": "gpu-box"}, Found("gpu", "gpu-box")),
        # A tag that ends like our host names is that tag.
        ("x.devbox", [Box(I1, "x.devbox"), Box(I2, "x")], {}, Found("x.devbox", I1)),
        # Two names with one host name: the host name alone means neither, the long ones do.
        ("a-b", [Box(I1, "a b"), Box(I2, "a/b")], {}, Several(("a b", "a/b"))),
        (long_label("a b"), [Box(I1, "a b"), Box(I2, "a/b")], {}, Found("a b", I1)),
        # macOS types an accent as two characters, the console as one.
        ("bu\u0308ro", [Box(I1, "b\u00fcro")], {}, Found("b\u00fcro", I1)),
        # A tag that claims to be another box's id is not believed.
        ("i-0123456789abcde01", [Box(I1, I2), Box(I2, "web")], {}, Found(I2, I1)),
    ],
)
def test_names_that_meet(
    text: str, boxes: Sequence[Box], configured: Mapping[str, str], means: Meaning
) -> None:
    assert meaning(text, boxes, configured) == means


def test_a_tag_that_claims_to_be_an_id_is_never_offered() -> None:
    """Ids are taken as they are, before any tag is looked at: whoever is offered it would reach I2."""
    shown = listings([Box(I1, I2), Box(I2, "web")], {})
    assert {id_: listing.ref for id_, listing in shown.items()} == {I1: I1, I2: "web"}


def test_a_box_is_shown_as_people_call_it_and_offered_as_it_can_be_meant() -> None:
    """Two boxes of one name: both are called so in ``ls``, and only the one that would be meant is offered so."""
    boxes = [
        Box(I1, "web"),
        Box(I2, "web", is_running=False),
        Box(I3, "My Dev Box"),
    ]
    assert listings(boxes, {"gpu": I3, "far": "elsewhere"}) == {
        I1: Listing("web", "web", "web.devbox"),
        I2: Listing("web", I2, f"{I2}.devbox"),
        I3: Listing("gpu", "gpu", "gpu.devbox"),
        "elsewhere": Listing("far", "far", "far.devbox"),
    }


@pytest.mark.parametrize("text", ["web", "web/prod", "büro", "ann+x", "we"])
def test_what_ssh_can_look_up_can_be_pinned(text: str) -> None:
    assert is_pinnable(text)


@pytest.mark.parametrize(
    "text", ["", "*", "a b", "a*", "?", "!web", "a,b", "|1|x", "@revoked", "#x", "[x]:2", "a\nb", "-x"]
)
def test_what_means_more_than_one_host_is_never_pinned(text: str) -> None:
    """A Name tag ``*`` would otherwise make its box's key good for every box."""
    assert not is_pinnable(text)


def test_long_labels_do_not_change_with_the_release() -> None:
    """They stand in people's scripts and editors."""
    assert re.fullmatch(r"a-b-[0-9a-f]{6}", long_label("a b"))
    assert long_label("a b") == "a-b-c8687a"

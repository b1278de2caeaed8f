"""What listens on this machine, as it says itself."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from devboxd.net import listening as module
from devboxd.net.listen import Listeners
from devboxd.net.listening import in_netstat, in_proc, listening

NETSTAT = """\
Active Internet connections (including servers)
Proto Recv-Q Send-Q  Local Address          Foreign Address        (state)
tcp4       0      0  127.0.0.1.5432         *.*                    LISTEN
tcp6       0      0  ::1.5433               *.*                    LISTEN
tcp46      0      0  *.8080                 *.*                    LISTEN
tcp6       0      0  fe80::1%lo0.6000       *.*                    LISTEN
tcp4       0      0  192.168.1.5.50000      192.0.2.4.443          ESTABLISHED
tcp4       0      0  127.0.0.1.7001         127.0.0.1.50001        TIME_WAIT
udp4       0      0  *.5353                 *.*
"""
PROC = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1
  10: 00000000000000000000000001000000:1539 00000000000000000000000000000000:0000 0A 00000000:00000000 00:0 0 0
"""


def test_the_lists_of_the_systems_are_read() -> None:
    """Both families, and only what listens."""
    assert in_netstat(NETSTAT) == {5432, 5433, 8080, 6000}
    assert in_proc(PROC) == {5432, 5433}
    assert in_netstat("") == in_proc("garbage") == set()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list is Linux's")
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "0.0.0.0"])
async def test_a_listener_is_seen_while_it_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By netlink and by /proc."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as one:
        one.bind((address, 0))
        port = one.getsockname()[1]
        assert port not in (await listening() or ())
        one.listen()
        assert port in (await listening() or ())

        def forbidden() -> frozenset[int]:
            raise PermissionError

        monkeypatch.setattr(module, "_by_netlink", forbidden)
        assert port in (await listening() or ())
    assert port not in (await listening() or ())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's list is Linux's")
async def test_our_own_listeners_are_not_another_programs() -> None:
    """A mirror that is made again must find its number."""
    listeners = Listeners()
    ours = await listeners.tcp("localhost", 0)
    with socket.socket() as theirs:
        theirs.bind(("127.0.0.1", 0))
        theirs.listen()
        others = await listeners.others()
        assert others is not None
        assert theirs.getsockname()[1] in others
        assert ours.port not in others
    ours.close()
    assert await listeners.others() is not None  # a closed listener has no port to ask for


async def test_a_machine_that_does_not_say_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then only what could not be bound is known."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(module, "NETSTAT", str(tmp_path / "nothing"))
    assert await listening() is None
    script = tmp_path / "netstat"
    script.write_text(f"#!/bin/sh\ncat <<'END'\n{NETSTAT}END\n")
    script.chmod(0o755)
    monkeypatch.setattr(module, "NETSTAT", str(script))
    assert await listening() == frozenset({5432, 5433, 8080, 6000})
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(module, "NETSTAT_TIMEOUT", 0.2)
    assert await listening() is None

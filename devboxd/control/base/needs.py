"""What control needs of the outside, by shape: the edge fits without knowing these names.

Only ``main`` brings both together; tests are the second place that does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from devboxd.model.billed import Billed
from devboxd.model.box import Account, Instance
from devboxd.model.identity import Identity
from devboxd.model.ledger import Change, Item, Range
from devboxd.model.loose import Loose
from devboxd.model.offer import Base, Ground, MachineType
from devboxd.model.price import Market, Rates
from devboxd.model.project import Network, Project
from devboxd.model.rebase import Progress
from devboxd.model.seen import Hint, Observed
from devboxd.model.states import Connection
from devboxd.model.step import Ec2Call, MoveIn


class Clock(Protocol):
    """Time, as the caller of pure code reads it."""

    def monotonic(self) -> float:
        """Seconds that never run backwards and stand still while Linux is suspended."""

    def wall(self) -> float:
        """Unix time in seconds."""


class Journal(Protocol):
    """JSON values that outlive the daemon, replaced as a whole."""

    @property
    def problem(self) -> str | None:
        """Why not all could be read that was written, in a sentence."""

    def read(self) -> Mapping[str, Any]:
        """What was last written, as far as it can be read; empty where there is nothing."""

    async def save(self, values: Mapping[str, Any]) -> None:
        """Durable on return. Raises ``StateNotSaved``; then what was there is there still."""


class Grant(Protocol):
    """The right to open one link of a session. ``token`` is a secret and works once."""

    @property
    def session_id(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def stream_url(self) -> str: ...


class Active(Protocol):
    """An open session."""

    @property
    def id(self) -> str: ...
    @property
    def reason(self) -> str: ...


class SessionApi(Protocol):
    """Session Manager of one account and region. Every error is a ``DevboxError``."""

    async def start(
        self, target: str, document: str | None, parameters: Mapping[str, str], *, reason: str
    ) -> Grant: ...
    async def resume(self, session_id: str) -> Grant:
        """Raises ``SessionOver`` (code ``session-over``) when there is nothing left to resume."""

    async def terminate(self, session_id: str) -> None: ...
    async def is_active(self, session_id: str, target: str) -> bool | None:
        """Ask whether a session still exists; None where that may not be asked."""

    async def active(self, *, reason_prefix: str) -> Sequence[Active]:
        """Open sessions whose Reason starts so."""

    async def longest(self, session_id: str, target: str) -> float | None:
        """Seconds that a session may last from now; None where there is no limit or it may not be asked."""

    async def connection_status(self, target: str) -> Connection | None:
        """Whether the agent is connected; None where that may not be asked."""

    async def connections(self) -> Mapping[str, Connection]:
        """Whether agents are connected, by instance id; empty where that may not be asked."""

    async def account_id(self, session_id: str) -> str | None:
        """The number of the account that a session is in; None where it cannot be told."""

    async def generate_data_key(self, key_id: str, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        """A 64-byte data key: plaintext and ciphertext."""

    async def sign_upgrade(self, url: str) -> Mapping[str, str]:
        """Headers that sign the websocket request; empty for a presigned URL."""

    def ca_bundle(self) -> str | None:
        """A file of certificates to trust, where the account's profile names one."""

    async def refresh(self) -> None:
        """Forget cached credentials, so that a new login is seen."""


class Ledger(Protocol):
    """Where it is written down which sessions exist at AWS by our doing: the next daemon ends what is left."""

    def session_opened(self, id_: str, account: Account) -> None:
        """A session exists from now on."""

    def session_over(self, id_: str) -> None:
        """A session has ended, or was ended."""


class Link(Protocol):
    """One websocket. Every method raises ``LinkLost`` once it is dead."""

    async def send_text(self, text: str) -> None: ...
    async def send(self, data: bytes) -> None: ...
    async def receive(self) -> bytes | str: ...
    async def close(self) -> None: ...


class Dialer(Protocol):
    """Opens links."""

    async def dial(
        self, url: str, *, headers: Mapping[str, str], heartbeat: float, ca_bundle: str | None
    ) -> Link:
        """Raises ``LinkLost``, or ``LinkRefused`` with the HTTP ``status`` of a refused upgrade."""


class LocalConnection(Protocol):
    """A local connection."""

    async def read(self, limit: int) -> bytes:
        """Bytes; empty at the end of input. Raises OSError when the connection was reset."""

    async def write(self, data: bytes) -> None:
        """Waits while the local side takes no more. Raises OSError when the connection was reset."""

    def finish(self) -> None:
        """Write no more, and still read: the local side sees the end behind what was written."""

    async def close(self) -> None:
        """Orderly: what was written is still delivered."""

    async def cut(self) -> None:
        """Reset, once what was written has been delivered."""

    def reset(self) -> None:
        """Cut: the local side sees a reset, not an end."""

    def let_go(self) -> Loose | None:
        """Stop reading and writing at once, and leave it to another process; None where it is over."""

    def has_left(self) -> bool:
        """Whether all input was read and the local program is known to have closed the connection altogether."""


class Listener(Protocol):
    """A bound local end. Whoever connects waits in the system's queue until somebody accepts."""

    @property
    def port(self) -> int | None:
        """The TCP port; None for a unix socket."""

    @property
    def path(self) -> Path | None:
        """The file of a unix socket, which goes when it is closed."""

    @property
    def address(self) -> str: ...
    @property
    def descriptors(self) -> Sequence[int]: ...
    async def accept(self) -> LocalConnection:
        """Raises ``ListenerClosed``."""

    def pause(self) -> bool:
        """Accept nothing more until it is closed: who connects waits. Whether nothing is being accepted now."""

    def leave_to_another(self) -> Sequence[int]:
        """Stop listening, and leave the sockets to another process: their descriptors. Raises OSError."""

    def close(self) -> None: ...


class Listeners(Protocol):
    """Binds local ends, connects from here, and keeps local ends over a restart of the daemon where the system can.

    ``tcp`` and ``unix`` raise ``PortInUse``, ``PortDenied`` and ``BadRequest``.
    """

    async def tcp(self, bind: str, port: int) -> Listener: ...
    async def others(self) -> frozenset[int] | None:
        """The TCP ports that other programs of this machine listen on; None where it cannot be told."""

    def unix(self, path: str) -> Listener: ...
    async def connected(self, address: tuple[str, int] | str) -> LocalConnection:
        """Connect from here: to a host's port, or a unix socket's path. Raises OSError."""

    async def resumed(self, found: Loose) -> LocalConnection:
        """Go on with a connection that another process let go of. Raises OSError."""

    def take(self, name: str) -> Listener | None:
        """The one that an earlier daemon stored under this name."""

    def keep(self, name: str, listener: Listener) -> None: ...
    def drop(self, name: str) -> None: ...
    def drop_rest(self) -> None:
        """Close and forget what an earlier daemon stored and nobody took."""


class Instances(Protocol):
    """EC2 of one account and region."""

    async def list(self) -> list[Instance]: ...
    async def get(self, instance_id: str) -> Instance | None: ...


class Cloud(Protocol):
    """AWS, by account."""

    def sessions(self, account: Account) -> SessionApi: ...
    def instances(self, account: Account) -> Instances: ...
    async def identity(self, account: Account) -> Identity:
        """Who we are for AWS."""

    async def send_ssh_key(self, account: Account, instance_id: str, user: str, public_key: str) -> None:
        """Let EC2 Instance Connect offer a key to a box's sshd for a minute."""


class Store(Protocol):
    """Where projects are written down: items with versions, changed all or none.

    Every read shows all that was committed before it began. Errors are ``DevboxError``.
    """

    @property
    def is_shared(self) -> bool:
        """Whether other machines may act on the same projects, so that who acts has to be agreed."""

    async def read(self, owner: str, *ranges: Range) -> list[Item]:
        """The items of these ranges, range by range: none is read before the one that precedes it."""

    async def commit(self, owner: str, changes: Sequence[Change], op: str) -> None:
        """Make all changes, or none. ``op`` is this commit's own, and the same for a repeat.

        Raises ``Conflict`` where a version is not as expected. After any other error the changes may have
        been made all the same: read back.
        """


class Compute(Protocol):
    """EC2 of one account and region, as far as a project lives in it."""

    async def look(self, wanted: Mapping[str, Hint]) -> dict[str, Observed]:
        """All that EC2 shows of these projects, by uid. May be old, and lack what exists."""

    async def found(self, owner: str) -> dict[str, Observed]:
        """All that EC2 shows of one owner, by uid: for making rows anew, and for finding what no row knows."""

    def requests(self, call: Ec2Call) -> list[tuple[str, dict[str, Any]]]:
        """What a call is at EC2: operations and their parameters, in order. For showing it."""

    async def act(self, call: Ec2Call) -> None:
        """Make one call. Raises a ``DevboxError``, whose class says what kind of refusal it is."""


class BoxCommands(Protocol):
    """What a project needs done on its box, over a session.

    Raises ``model.answer.BoxSaysNo`` when it ran and failed; other errors: it could not be run.
    """

    async def before_stop(self, project: Project, instance: str, *, live: bool = False) -> None:
        """Run the user's hooks and write everything to the disks. Bounded in time."""

    async def reach(self, project: Project, instance: str) -> None:
        """Find out whether a session to this instance answers; raises where none does."""

    async def grow(self, project: Project, instance: str, device: str) -> None:
        """Let the file system of this device fill its volume."""

    async def move_in(self, project: Project, call: MoveIn) -> Progress:
        """Copy the homes from an old root that is attached: begun at the first call, told how far at others."""

    async def let_go(self, project: Project, instance: str) -> None:
        """End that copying, and unmount the old root."""


class Ran(Protocol):
    """A command that ended on a box: its exit status, and what it printed."""

    @property
    def status(self) -> int: ...
    @property
    def output(self) -> str: ...


class RunOnBox(Protocol):
    """Runs a shell script on a project's box, as its user, over a session."""

    async def __call__(
        self, project: Project, instance: str, script: str, *arguments: str, timeout: float
    ) -> Ran:
        """Raises a ``DevboxError`` where it can not be run, or has not ended after ``timeout`` seconds."""


class AgentOf(Protocol):
    """Whether the agent of a project's box is connected to Session Manager."""

    async def __call__(self, project: Project, instance: str) -> Connection:
        """UNKNOWN where that may not be asked. Raises a ``DevboxError`` where AWS does not answer."""


class Deadman(Protocol):
    """Stops a box at a time, whoever is there then. Raises a ``DevboxError``."""

    async def stop_at(self, account: Account, instance: str, at: float) -> None:
        """Stop the instance then (Unix seconds), in place of what was said before."""

    async def forget(self, account: Account, instance: str) -> None:
        """Do not."""


class Offers(Protocol):
    """What EC2 offers in one account and region. Raises ``BadRequest`` for what it does not."""

    async def base(self, name: str, architecture: str) -> Base:
        """The newest image of this name, or the image of this id."""

    async def types(self, names: Sequence[str]) -> tuple[MachineType, ...]:
        """These instance types, in this order."""

    async def table(self, name: str) -> list[dict[str, Any]]:
        """All items of a DynamoDB table, as plain values."""

    async def ground(self, types: Sequence[str], chosen: Network) -> Ground:
        """Where these types can be launched into, and with what."""


class PriceLists(Protocol):
    """What AWS asks for in a region."""

    async def rates(self, account: Account, region: str, today: str) -> Rates:
        """Ask the Price List API. ``today`` becomes the date of what it says."""

    async def markets(
        self, account: Account, region: str, types: Sequence[str], since: float
    ) -> tuple[Market, ...]:
        """Ask EC2 for the spot prices of these types in every zone, from the one that held then (Unix seconds) on."""


class BillLists(Protocol):
    """What AWS has billed. Each call costs a cent."""

    async def billed(self, account: Account, owner: str, begin: float, end: float, now: float) -> Billed:
        """Ask Cost Explorer about what carries this owner's tag, between two midnights in UTC."""


class BillFiles(Protocol):
    """What was billed, as it was asked for before."""

    def read(self, owner: str) -> Billed | None: ...
    def save(self, billed: Billed) -> None: ...


class PriceFiles(Protocol):
    """Prices that were fetched before, with when: Unix seconds."""

    def read(self, region: str) -> tuple[float, Rates] | None: ...
    def save(self, fetched: float, rates: Rates) -> None: ...


class Computes(Protocol):
    """EC2 and its offers, by account."""

    def compute(self, account: Account) -> Compute: ...
    def offers(self, account: Account) -> Offers: ...

"""Session Manager's API calls, and the signature of the websocket upgrade.

Source of the calls and of their errors: the service model of ``ssm``; of what a missing token and a
signed upgrade mean: session-manager-plugin, ``sessionhandler.go`` and ``websocketchannel.go``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from devboxd.aws.clients import Caller
from devboxd.aws.codes import AwsFailed
from devboxd.aws.instances import InstanceApi
from devboxd.aws.keys import generate_data_key
from devboxd.errors import (
    BoxGone,
    BoxNotFound,
    BoxStopped,
    Denied,
    DevboxError,
    LoginNeeded,
    NotConnected,
    SessionOver,
)
from devboxd.model.address import stream_address
from devboxd.model.names import REASON_MAX, REASON_PREFIX
from devboxd.model.states import Connection
from devboxd.text import one_line

_ENDED: Final = frozenset({"Terminated", "Terminating", "Failed"})
ID_MAX: Final = 256  # characters of a session id; the service model says 96
TOKEN_MAX: Final = 8192  # characters of a token; the service model says 300

_WORD: Final = re.compile(r"[!-~]+\Z")
_SCHEMES: Final = {"wss": "https", "ws": "http"}
_SIGNED: Final = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
        "x-amz-security-token",
    }
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to open the data channel of a session, once and soon.

    Neither secret shows in ``repr``: the URL may carry a signature.
    """

    session_id: str
    token: str = field(repr=False)
    stream_url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ActiveSession:
    """A session as DescribeSessions shows it."""

    id: str
    target: str
    status: str  # Connected, Connecting, Disconnected, Terminated, Terminating, Failed
    owner: str
    reason: str
    document: str
    started: datetime | None


@dataclass(frozen=True, slots=True)
class SessionApi:
    """Start, resume, end and list the sessions of one account. Errors are those of ``Caller.call``."""

    caller: Caller

    async def start(
        self,
        target: str,
        document: str | None = None,
        parameters: Mapping[str, str | Sequence[str]] | None = None,
        *,
        reason: str = REASON_PREFIX,
    ) -> Grant:
        """Start a session.

        Args:
            target: instance id.
            document: session document; None is the account's default shell.
            parameters: the document's; the API wants lists, so a plain text becomes a list of one.
            reason: shown in the account's session list, cut to 256 characters.

        Raises: BoxNotFound, BoxStopped, BoxGone, NotConnected (try again for a while after a start), DocumentInvalid, and as ``call``.
        """
        request: dict[str, Any] = {"Target": target, "Reason": reason[:REASON_MAX]}
        if document is not None:
            request["DocumentName"] = document
        if parameters:
            request["Parameters"] = {
                name: [value] if isinstance(value, str) else list(value) for name, value in parameters.items()
            }
        try:
            answer = await self.caller.call("ssm", "start_session", target=target, **request)
        except NotConnected as error:
            raise await self._why_not_connected(target, error) from error
        grant = await self._grant(answer)
        if not grant.session_id or not grant.token or not grant.stream_url:
            raise AwsFailed("ssm:StartSession answered without a session, a token or an address")
        return grant

    async def _why_not_connected(self, target: str, error: NotConnected) -> DevboxError:
        """Session Manager says the same of a box that starts and of one that is switched off; EC2 knows more."""
        if not target.startswith("i-"):
            return error  # a hybrid node is none of EC2's
        try:
            instance = await InstanceApi(self.caller).get(target)
        except DevboxError:
            return error  # we may not ask
        if instance is None:
            return BoxNotFound(
                f"there is no instance {target} in this account and region", hint="see: devboxctl ls"
            )
        if not (instance.state.is_stopped or instance.state.is_gone):
            return error
        name = one_line(instance.name or target)
        project = shlex.quote(one_line(instance.project)) if instance.project else None
        if instance.state.is_gone:
            hint = f"bring it up: devboxctl up {project}" if project else "devboxctl ls shows what exists"
            return BoxGone(f"{name} ({target}) has been terminated", hint=hint)
        return BoxStopped(f"{name} is {instance.state.value}", hint=self._how_to_start(target, project))

    def _how_to_start(self, target: str, project: str | None) -> str:
        """The command that starts a box: ours for a box that is ours to start, and EC2's own for every other."""
        if project is not None:
            return f"start it: devboxctl start {project}"
        where = f" --region {self.caller.region}"
        if self.caller.profile:
            where += f" --profile {shlex.quote(self.caller.profile)}"
        return (
            f"it is no project of yours, so start it in the EC2 console, or: aws ec2 start-instances "
            f"--instance-ids {target}{where}"
        )

    async def resume(self, session_id: str) -> Grant:
        """Get leave to connect to a session again.

        The address may differ from the first one and replaces it; it may also be empty, and then the
        old one stays valid.

        Raises: SessionOver when the service does not know the session or gives no token for it.
        """
        grant = await self._grant(await self.caller.call("ssm", "resume_session", SessionId=session_id))
        if not grant.token:
            raise SessionOver("the session has ended")
        return grant

    async def _grant(self, answer: Mapping[str, Any]) -> Grant:
        """What an answer grants, held to what it can be. Raises AwsFailed, AddressRefused."""
        endpoint = await self.caller.endpoint("ssm")
        return Grant(
            session_id=_word(answer, "SessionId", ID_MAX),
            token=_word(answer, "TokenValue", TOKEN_MAX),
            stream_url=stream_address(answer.get("StreamUrl"), plain=endpoint.startswith("http:")),
        )

    async def account_id(self, session_id: str) -> str | None:
        """The account that a session is in; None where that cannot be told. Raises LoginNeeded."""
        try:
            return await self.caller.account_id() or None
        except LoginNeeded:
            raise
        except DevboxError:
            pass  # no way to STS from here, as in a network that has endpoints for Session Manager only
        try:
            found = await self._open(SessionId=session_id)
        except DevboxError:
            return None
        owners = [str(item.get("Owner", "")) for item in found if item.get("SessionId") == session_id]
        return next((owner.split(":")[4] for owner in owners if owner.count(":") >= 5), None)

    async def terminate(self, session_id: str) -> None:
        """End a session. Ending one that is over already is no error."""
        try:
            await self.caller.call("ssm", "terminate_session", SessionId=session_id)
        except SessionOver:
            return

    async def active(
        self, *, reason_prefix: str = REASON_PREFIX, owner: str | None = None, target: str | None = None
    ) -> list[ActiveSession]:
        """The open sessions whose Reason starts with ``reason_prefix``.

        ``owner`` (an ARN) and ``target`` narrow the question itself; the API can not filter by reason.
        """
        items = await self._open(Owner=owner, Target=target)
        return [_active(item) for item in items if str(item.get("Reason", "")).startswith(reason_prefix)]

    async def _open(self, **narrowed: str | None) -> list[dict[str, Any]]:
        """The open sessions that fit all of these filters, as the API gives them."""
        request: dict[str, Any] = {"State": "Active"}
        if filters := [{"key": key, "value": value} for key, value in narrowed.items() if value]:
            request["Filters"] = filters
        return await self.caller.pages("ssm", "describe_sessions", "Sessions", **request)

    async def is_active(self, session_id: str, target: str | None = None) -> bool | None:
        """Whether a session still exists; None where that may not be asked. ``target`` narrows the list."""
        try:
            found = await self._open(SessionId=session_id, Target=target)
        except Denied:
            return None
        return any(item.get("SessionId") == session_id and item.get("Status") not in _ENDED for item in found)

    async def longest(self, session_id: str, target: str | None = None) -> float | None:
        """Seconds that a session may last from now, by its account's maximum duration.

        None where there is no limit, or where that may not be asked.
        """
        try:
            found = await self._open(SessionId=session_id, Target=target)
        except Denied:
            return None
        for item in found:
            minutes = str(item.get("MaxSessionDuration") or "")
            if item.get("SessionId") == session_id and minutes.isdecimal() and int(minutes):
                started = item.get("StartDate")
                age = self.caller.clock.wall() - started.timestamp() if started is not None else 0.0
                return int(minutes) * 60 - max(0.0, age)
        return None

    async def connection_status(self, target: str) -> Connection | None:
        """Whether a box's agent holds its control channel.

        None where that may not be asked.
        """
        try:
            answer = await self.caller.call("ssm", "get_connection_status", target=target, Target=target)
        except Denied:
            return None
        return Connection.read(answer.get("Status", Connection.NOT_CONNECTED))

    async def connections(self) -> dict[str, Connection]:
        """Which boxes have an agent, by instance id, and whether it is connected: one call for fifty of them.

        The service notices a lost agent only after some minutes; ``connection_status`` knows better, for one.
        Empty where that may not be asked.
        """
        try:
            found = await self.caller.pages("ssm", "describe_instance_information", "InstanceInformationList")
        except Denied:
            return {}
        return {
            str(item.get("InstanceId")): Connection.CONNECTED
            if item.get("PingStatus") == "Online"
            else Connection.NOT_CONNECTED
            for item in found
        }

    async def generate_data_key(self, key_id: str, context: Mapping[str, str]) -> tuple[bytes, bytes]:
        """A data key for an encrypted session: ``keys.generate_data_key``."""
        return await generate_data_key(self.caller, key_id, context)

    def ca_bundle(self) -> str | None:
        """The certificates that this account's profile wants trusted; None leaves it to the environment."""
        return self.caller.ca_bundle()

    async def refresh(self) -> None:
        """Forget cached credentials, so that a new login is seen."""
        await self.caller.forget()

    async def sign_upgrade(self, url: str) -> dict[str, str]:
        """Headers that sign the websocket upgrade to ``url`` with the credentials of now.

        Empty where the URL is signed already. The URL itself must be sent as it is. Raises LoginNeeded.
        """
        if is_signed(url):
            return {}
        frozen = await self.caller.credentials()
        return upgrade_headers(url, frozen, self.caller.region)


def is_signed(url: str) -> bool:
    """Whether a stream URL carries a signature in its query."""
    return any(name.lower() in _SIGNED for name, _ in _query(url))


def upgrade_headers(url: str, credentials: ReadOnlyCredentials, region: str) -> dict[str, str]:
    """SigV4 for service ``ssmmessages``, GET, empty body. Pure but for the time, which botocore takes."""
    parts = urlsplit(url)
    # The canonical query is made from decoded pairs, encoded again, as Go's signer does it (v4.go,
    # ``r.URL.Query()`` then ``Encode``) and the service expects it, although the request line carries
    # the query as it was given: a raw "=" in cell-number is "%3D" here.
    params: Any = _query(url)  # botocore takes pairs, its stubs a mapping
    request = AWSRequest(
        method="GET",
        url=urlunsplit((_SCHEMES.get(parts.scheme, parts.scheme), parts.netloc, parts.path, "", "")),
        params=params,
    )
    signer: Any = SigV4Auth(credentials, "ssmmessages", region)
    signer.add_auth(request)
    return {
        name: value
        for name in ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
        if (value := request.headers.get(name)) is not None
    }


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True)


def _word(answer: Mapping[str, Any], name: str, most: int) -> str:
    """A text without blanks out of an answer; empty where there is none. Its value is not told: it may be secret."""
    found = answer.get(name)
    if found is None or found == "":
        return ""
    if not isinstance(found, str) or len(found) > most or _WORD.match(found) is None:
        raise AwsFailed(f"ssm answered with a {name} that can be none")
    return found


def _active(item: Mapping[str, Any]) -> ActiveSession:
    return ActiveSession(
        id=str(item.get("SessionId", "")),
        target=str(item.get("Target", "")),
        status=str(item.get("Status", "")),
        owner=str(item.get("Owner", "")),
        reason=str(item.get("Reason", "")),
        document=str(item.get("DocumentName", "")),
        started=item.get("StartDate"),
    )

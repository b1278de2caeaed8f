"""Every route of the control API, once: the server, devboxctl, docs/api.md and the OpenAPI description read it.

A request is one struct of ``wire``, whatever carries it: fields that the path names come from the path, the
others from the query (GET, DELETE) or from the JSON body (POST).

To add a route, write one ``Route`` here and one function in ``handlers``; ``tests/api/test_table.py`` says
what is missing then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar, get_args
from urllib.parse import quote

import msgspec

from devboxd.api import wire

PREFIX: Final = f"/v{wire.API_VERSION}/"

RequestT = TypeVar("RequestT", bound=msgspec.Struct)
AnswerT = TypeVar("AnswerT")

_FIELD: Final = re.compile(r"\{(\w+)\}")


class Shape(StrEnum):
    """How an answer comes."""

    VALUE = "value"  # one JSON value
    LINES = "lines"  # JSON values, one a line, as they come
    FRAMES = "frames"  # 101, then framed messages both ways
    BYTES = "bytes"  # 101, then bytes both ways (or a descriptor)


@dataclass(frozen=True, slots=True)
class Route(Generic[RequestT, AnswerT]):
    """One thing that can be asked. ``answer`` of a framed stream is what its ANSWER frames carry, if any."""

    method: str
    path: str  # with {field} for fields of the request
    request: type[RequestT]
    answer: type[AnswerT]
    does: str  # one sentence
    shape: Shape = Shape.VALUE
    only_looks: bool = False  # it changes nothing, so it is given up when its client leaves

    @property
    def has_body(self) -> bool:
        """Whether the request travels as JSON, not as a query."""
        return self.method == "POST"

    @property
    def is_carried_through(self) -> bool:
        """Whether it is done to its end though its client has left: half of a change may be worse than none."""
        return self.method != "GET" and self.shape is Shape.VALUE and not self.only_looks

    @property
    def in_path(self) -> list[str]:
        """The fields of the request that stand in the path."""
        return _FIELD.findall(self.path)

    @property
    def nested(self) -> set[str]:
        """The fields of the request that are structs: in a query they are JSON."""
        fields = msgspec.structs.fields(self.request)
        return {field.name for field in fields if any(is_struct(one) for one in get_args(field.type))}

    def target(self, request: RequestT) -> str:
        """The path, and the query where there is one, of one request."""
        path = _FIELD.sub(lambda match: _escaped(getattr(request, match[1])), self.path)
        if self.has_body:
            return path
        given = {name: getattr(request, name) for name in request.__struct_fields__}
        query = [f"{name}={_escaped(value)}" for name, value in given.items() if self._asks(name, value)]
        return path + ("?" + "&".join(query) if query else "")

    def _asks(self, name: str, value: object) -> bool:
        return value is not None and value is not False and name not in self.in_path


def is_struct(kind: object) -> bool:
    """Say whether a type is a struct of ours, and not some ``dict[str, …]``."""
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _escaped(value: object) -> str:
    if isinstance(value, msgspec.Struct):
        text = msgspec.json.encode(value).decode()
    else:
        text = str(value).lower() if isinstance(value, bool) else str(value)
    return quote(text, safe="", errors="surrogateescape")


# The daemon ---------------------------------------------------------------------------------------------

STATUS: Final = Route("GET", "/v1/status", wire.Nothing, wire.Status, "The daemon, in short.")
EVENTS: Final = Route(
    "GET",
    "/v1/events",
    wire.EventsRequest,
    wire.Event,
    "What happened, oldest first.",
    Shape.LINES,
)
CONFIG: Final = Route(
    "GET", "/v1/config", wire.ConfigRequest, wire.ConfigView, "The settings in force, or those of a folder."
)
IDENTITY: Final = Route("GET", "/v1/identity", wire.Account, wire.Identity, "Who we are for AWS.")
LOGIN: Final = Route(
    "POST", "/v1/login", wire.LoginRequest, wire.LoginStep, "Renew the login of a profile.", Shape.LINES
)
LEND: Final = Route(
    "POST",
    "/v1/lend",
    wire.LendRequest,
    wire.Identity,
    "Use the credentials of a shell for a profile, until the daemon ends; answers with who they are.",
)
TRY_NOTICE: Final = Route(
    "POST",
    "/v1/notices/try",
    wire.Nothing,
    wire.Notices,
    "Send a notice on every way that is set up; answers with what came of each.",
)
KEEP_SECRET: Final = Route(
    "POST",
    "/v1/notices/secret",
    wire.NoticeSecret,
    wire.Kept,
    "Keep what a way of notices needs in the keyring, or forget it.",
)
OPEN_PAGE: Final = Route(
    "POST",
    "/v1/page",
    wire.Nothing,
    wire.PageLink,
    "Serve the page on loopback; answers with a link that works once.",
)
DOCTOR: Final = Route(
    "POST", "/v1/doctor", wire.Target, wire.Doctor, "Check this machine only.", only_looks=True
)
STOP: Final = Route("POST", "/v1/stop", wire.StopRequest, wire.Stopping, "Stop the daemon.")
API: Final = Route(
    "GET", "/openapi.json", wire.Nothing, dict[str, Any], "This API, for programs that read OpenAPI."
)
LOOK_SSH_CONFIG: Final = Route(
    "GET",
    "/v1/ssh-config",
    wire.SshConfigRequest,
    wire.SshConfigResult,
    "Compare the ssh configuration with what would be written; changes nothing.",
)
WRITE_SSH_CONFIG: Final = Route(
    "POST", "/v1/ssh-config", wire.SshConfigRequest, wire.SshConfigResult, "Write the ssh configuration."
)
REMOVE_SSH_CONFIG: Final = Route(
    "DELETE", "/v1/ssh-config", wire.Nothing, wire.SshConfigResult, "Take the ssh configuration out again."
)

# Boxes --------------------------------------------------------------------------------------------------

LIST_BOXES: Final = Route(
    "GET", "/v1/boxes", wire.BoxesRequest, wire.BoxList, "All boxes and projects, by name."
)
SHOW_BOX: Final = Route("GET", "/v1/boxes/{box}", wire.Target, wire.Box, "One box.")
PING: Final = Route(
    "POST",
    "/v1/boxes/{box}/ping",
    wire.PingRequest,
    wire.Ping,
    "Measure the way to a box and back.",
    only_looks=True,
)
PEEK: Final = Route(
    "GET",
    "/v1/boxes/{box}/pane",
    wire.PeekRequest,
    wire.Pane,
    "What the pane in front of a session on a box shows; joins nothing.",
)
SAY: Final = Route(
    "POST", "/v1/boxes/{box}/pane", wire.SayRequest, wire.Typed, "Type into the pane in front of a session."
)
SET_UP_AGENTS: Final = Route(
    "POST",
    "/v1/boxes/{box}/agents",
    wire.AgentSetUpRequest,
    wire.AgentReport,
    "Install or remove the hooks of coding agents on a box; answers file by file.",
)
SHOW_AGENTS: Final = Route(
    "GET",
    "/v1/agents",
    wire.AgentStatusRequest,
    wire.AgentReport,
    "What coding agents do: on one box as it is now, or on all projects as they were seen last.",
)
REMOVE_BRIDGE: Final = Route(
    "DELETE",
    "/v1/boxes/{box}/bridge",
    wire.Target,
    wire.BridgeRemoval,
    "Take away what the bridges to a box run and keep there.",
)
DOCTOR_BOX: Final = Route(
    "POST",
    "/v1/boxes/{box}/doctor",
    wire.Target,
    wire.Doctor,
    "Check the whole way to a box.",
    only_looks=True,
)
SSH: Final = Route(
    "POST", "/v1/boxes/{box}/ssh", wire.SshRequest, wire.SshAccess, "Make ssh to a box work: keys and user."
)

# Projects -----------------------------------------------------------------------------------------------

LIST_PROJECTS: Final = Route(
    "GET", "/v1/projects", wire.ProjectsRequest, wire.ProjectList, "All projects, by name."
)
SHOW_PROJECT: Final = Route("GET", "/v1/projects/{project}", wire.ProjectName, wire.Project, "One project.")
FOLLOW_PROJECT: Final = Route(
    "GET",
    "/v1/projects/{project}/progress",
    wire.ProjectName,
    wire.ProjectStep,
    "How far a project is, until it is as wanted.",
    Shape.LINES,
)
PLAN_LAUNCH: Final = Route(
    "POST",
    "/v1/projects/{project}/plan",
    wire.LaunchRequest,
    wire.LaunchPlan,
    "What a launch would call at AWS; changes nothing.",
    only_looks=True,
)
LAUNCH: Final = Route(
    "POST", "/v1/projects/{project}/launch", wire.LaunchRequest, wire.Project, "Make a project, bring it up."
)
UP: Final = Route("POST", "/v1/projects/{project}/up", wire.ProjectName, wire.Project, "Bring a project up.")
STOP_PROJECT: Final = Route(
    "POST",
    "/v1/projects/{project}/stop",
    wire.DownRequest,
    wire.Project,
    "Save the box; keep it stopped for a while.",
)
LIST_UNSAVED: Final = Route(
    "GET",
    "/v1/projects/{project}/unsaved",
    wire.ProjectName,
    wire.UnsavedWork,
    "Git work that is on the box only; only looks.",
)
TERMINATE: Final = Route(
    "POST", "/v1/projects/{project}/terminate", wire.DownRequest, wire.Project, "Save the box, and end it."
)
REBOOT: Final = Route(
    "POST", "/v1/projects/{project}/reboot", wire.ProjectName, wire.Project, "Reboot the box."
)
RESIZE: Final = Route(
    "POST",
    "/v1/projects/{project}/resize",
    wire.ResizeRequest,
    wire.Project,
    "Another type or a larger disk.",
)
PLAN_REBASE: Final = Route(
    "POST",
    "/v1/projects/{project}/rebase/plan",
    wire.RebaseRequest,
    wire.RebasePlan,
    "What a rebase would call at AWS; changes nothing.",
    only_looks=True,
)
REBASE: Final = Route(
    "POST",
    "/v1/projects/{project}/rebase",
    wire.RebaseRequest,
    wire.Project,
    "Put another base image under it, its homes kept.",
)
RENAME: Final = Route(
    "POST", "/v1/projects/{project}/rename", wire.OtherNameRequest, wire.Project, "Give it another name."
)
FORK: Final = Route(
    "POST", "/v1/projects/{project}/fork", wire.OtherNameRequest, wire.Project, "Make another out of it."
)
ADOPT: Final = Route(
    "POST",
    "/v1/projects/{project}/adopt",
    wire.AdoptRequest,
    wire.Project,
    "Make a project of an instance that is there.",
)
DELETE_PROJECT: Final = Route(
    "DELETE", "/v1/projects/{project}", wire.DeleteRequest, wire.Project, "Delete a project with all it has."
)
SNAPSHOT: Final = Route(
    "POST",
    "/v1/projects/{project}/snapshot",
    wire.SnapshotRequest,
    wire.Project,
    "Make a generation of the box as it is now.",
)
RESUME: Final = Route(
    "POST",
    "/v1/projects/{project}/resume",
    wire.ResumeRequest,
    wire.Project,
    "Go on with a project that needed a person.",
)
PLAN_ABANDON: Final = Route(
    "GET",
    "/v1/projects/{project}/abandon",
    wire.ProjectName,
    wire.AbandonPlan,
    "What giving up what could not be saved would leave; only looks.",
)
ABANDON: Final = Route(
    "POST",
    "/v1/projects/{project}/abandon",
    wire.AbandonRequest,
    wire.Project,
    "Give up what could not be saved, for the newest generation.",
)
CANCEL: Final = Route(
    "POST",
    "/v1/projects/{project}/cancel",
    wire.ProjectName,
    wire.Project,
    "Take back what was asked last, as far as it has not been done.",
)
EXPORT: Final = Route(
    "GET",
    "/v1/projects/{project}/export",
    wire.ProjectName,
    dict[str, Any],
    "Everything that is written down of a project, but its events.",
)
IMPORT: Final = Route(
    "POST", "/v1/import", wire.ImportRequest, wire.Project, "Write down a project that was exported."
)
TAKE_OVER: Final = Route(
    "POST",
    "/v1/take-over",
    wire.TakeOverRequest,
    wire.TakenOver,
    "Take over the projects of an omsf-eco-infra/devbox table; nothing of it is changed there.",
)
SHOW_GENERATION: Final = Route(
    "GET",
    "/v1/projects/{project}/generation",
    wire.GenerationNumber,
    wire.GenerationDetail,
    "One saved state in full.",
)
LIST_GENERATIONS: Final = Route(
    "GET",
    "/v1/projects/{project}/generations",
    wire.ProjectName,
    wire.GenerationList,
    "The saved states, newest first.",
)
CHANGE_GENERATION: Final = Route(
    "POST",
    "/v1/projects/{project}/generation",
    wire.GenerationChange,
    wire.GenerationList,
    "Label, pin or unpin a generation.",
)
DROP_GENERATION: Final = Route(
    "DELETE",
    "/v1/projects/{project}/generation",
    wire.GenerationDrop,
    wire.GenerationList,
    "Delete a generation.",
)
LIST_LEFTOVERS: Final = Route(
    "GET",
    "/v1/projects/{project}/leftovers",
    wire.ProjectName,
    wire.LeftoverList,
    "What belongs to a project and nothing uses.",
)

LIST_UNKNOWN: Final = Route(
    "GET",
    "/v1/leftovers",
    wire.Account,
    wire.LeftoverList,
    "What carries your tags in an account and region, and is of no project that is known.",
)

# Money --------------------------------------------------------------------------------------------------

COST: Final = Route(
    "GET", "/v1/cost", wire.CostRequest, wire.CostReport, "What projects cost; asks nothing of AWS."
)
WHAT_IF: Final = Route(
    "GET",
    "/v1/projects/{project}/what-if",
    wire.WhatIfRequest,
    wire.WhatIf,
    "What a project would cost otherwise.",
)
QUOTE: Final = Route(
    "POST",
    "/v1/projects/{project}/quote",
    wire.LaunchRequest,
    wire.Quote,
    "What a launch would cost.",
    only_looks=True,
)
LIST_BUDGETS: Final = Route(
    "GET", "/v1/budgets", wire.Nothing, wire.BudgetList, "All budgets, with what was spent this month."
)
SET_BUDGET: Final = Route(
    "POST", "/v1/budgets", wire.BudgetRequest, wire.BudgetList, "Set a budget, for a project or for all."
)
DROP_BUDGET: Final = Route("DELETE", "/v1/budgets", wire.BudgetName, wire.BudgetList, "Remove a budget.")
LIST_TYPES: Final = Route(
    "GET", "/v1/types", wire.TypesRequest, wire.TypeList, "Instance types of a region with their prices."
)

# Accounts -----------------------------------------------------------------------------------------------

REBUILD: Final = Route(
    "POST",
    "/v1/rebuild",
    wire.Account,
    wire.ProjectList,
    "Find projects by their tags at AWS, and write down those that are not known; answers with them.",
)
LIST_STORES: Final = Route(
    "GET", "/v1/stores", wire.Nothing, wire.StoreList, "Where projects are written down, and which are where."
)
MOVE_PROJECT: Final = Route(
    "POST",
    "/v1/projects/{project}/store",
    wire.MoveRequest,
    wire.Project,
    "Move a project to another store; asked again it goes on.",
)
SET_UP_ACCOUNT: Final = Route(
    "POST",
    "/v1/account",
    wire.SetUpRequest,
    wire.SetUpStep,
    "Deploy or update what boxes need in an account and region.",
    Shape.LINES,
)
SET_UP_USER: Final = Route(
    "POST",
    "/v1/user",
    wire.UserRequest,
    wire.UserStep,
    "Check what a user needs before the first launch, make what is asked for, write the configuration.",
    Shape.LINES,
)
SHOW_POLICY: Final = Route(
    "GET", "/v1/policy", wire.PolicyRequest, dict[str, Any], "The IAM policy that somebody needs."
)

# Idle boxes ---------------------------------------------------------------------------------------------

SHOW_IDLE: Final = Route(
    "GET",
    "/v1/projects/{project}/idle",
    wire.ProjectName,
    wire.Idle,
    "How a box stands, as it was seen last.",
)
WHY: Final = Route(
    "GET",
    "/v1/projects/{project}/why",
    wire.ProjectName,
    wire.Idle,
    "Look at a box, and tell why it is up or was stopped, with thirty days of decisions.",
)
CHANGE_IDLE: Final = Route(
    "POST", "/v1/projects/{project}/idle", wire.IdleChange, wire.Idle, "Change when an idle box goes."
)
LIST_LEASES: Final = Route(
    "GET", "/v1/projects/{project}/leases", wire.ProjectName, wire.LeaseList, "What keeps a box up."
)
KEEP_ALIVE: Final = Route(
    "POST", "/v1/projects/{project}/leases", wire.LeaseRequest, wire.LeaseList, "Keep a box up for a while."
)
DROP_LEASE: Final = Route(
    "DELETE", "/v1/projects/{project}/leases", wire.LeaseDrop, wire.LeaseList, "End a lease."
)
EXTEND: Final = Route(
    "POST", "/v1/projects/{project}/extend", wire.ExtendRequest, wire.Idle, "Move the deadline of a box."
)

# Jobs ---------------------------------------------------------------------------------------------------

RUN_JOB: Final = Route(
    "POST", "/v1/projects/{project}/jobs", wire.JobRequest, wire.Job, "Run a command that goes on by itself."
)
LIST_JOBS: Final = Route(
    "GET", "/v1/projects/{project}/jobs", wire.ProjectName, wire.JobList, "The jobs of a box."
)
READ_JOB: Final = Route(
    "GET", "/v1/projects/{project}/jobs/{job}/log", wire.JobId, wire.JobLog, "What a job has written."
)

# Forwards and sessions ----------------------------------------------------------------------------------

LIST_FORWARDS: Final = Route("GET", "/v1/forwards", wire.Nothing, wire.ForwardList, "All forwards.")
ADD_FORWARDS: Final = Route(
    "POST",
    "/v1/forwards",
    wire.ForwardRequest,
    wire.ForwardList,
    "Add and keep forwards, all or none; answers with those asked for.",
)
HOLD_FORWARDS: Final = Route(
    "POST",
    "/v1/forwards/hold",
    wire.ForwardRequest,
    wire.ForwardList,
    "Add forwards that go when this stream ends.",
    Shape.FRAMES,
)
REMOVE_FORWARD: Final = Route(
    "DELETE", "/v1/forwards/{id}", wire.ForwardId, wire.Forward, "Remove a forward."
)
LIST_SESSIONS: Final = Route(
    "GET", "/v1/sessions", wire.Nothing, wire.SessionList, "All sessions that the daemon holds."
)
END_SESSION: Final = Route("DELETE", "/v1/sessions/{id}", wire.SessionId, wire.Session, "End a session.")

# Streams ------------------------------------------------------------------------------------------------

ATTACH: Final = Route(
    "POST",
    "/v1/attach",
    wire.AttachRequest,
    wire.Nothing,
    "Join a terminal to a box.",
    Shape.FRAMES,
)
EXEC: Final = Route(
    "POST",
    "/v1/exec",
    wire.ExecRequest,
    wire.Nothing,
    "Run a command on a box.",
    Shape.FRAMES,
)
PROXY: Final = Route(
    "POST",
    "/v1/proxy",
    wire.ProxyRequest,
    wire.Nothing,
    "Connect to a port of a box; with `fd_pass`, pass the connection as a descriptor.",
    Shape.BYTES,
)

HAND_OVER: Final = Route(
    "POST",
    "/v1/hand-over",
    wire.Nothing,
    wire.Nothing,
    "End, and leave clients to the devboxd at the other end.",
    Shape.BYTES,
)

# In the order in which they stand above.
ROUTES: Final[dict[str, Route[Any, Any]]] = {
    name: value for name, value in list(globals().items()) if isinstance(value, Route)
}

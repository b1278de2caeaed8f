"""How closely the simulator keeps the real agent's and service's pace. All times in seconds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Knobs of one simulator; the defaults are what the real programs were seen to do.

    Source of the numbers: amazon-ssm-agent 3.3 (``agent/session/config/config.go``) and runs of it.
    """

    pacing: float = 0.001  # the agent's pause after every output message; 0: none
    first_read_delay: float = 1.0  # between starting a pty shell and reading its first output
    agent_start_delay: float = 0.015  # from StartSession until the session's worker is connected
    agent_start_wait: float = 0.0  # the worker waits so long for the client; 0: whoever comes first
    plugin_start_delay: float = 0.001  # after HandshakeComplete, during which input is not acknowledged
    start_failure_delay: float = 2.0  # before a start error is reported
    error_output_delay: float = 1.0  # before the text of a start error is sent
    crash_notice_delay: float = 60.0  # until the agent notices that a worker has crashed
    end_wait: float = 2.0  # how long a worker waits for acknowledgements at the end
    handshake_timeout: float = 15.0
    resend_tick: float = 0.1
    mux_keepalive: float = 10.0  # interval of NOPs to old clients; they are dropped after three of them
    agent_version: str = "3.3.987.0"
    require_challenge: bool = False  # KMS sessions need the client's word on the random challenge

    bye_after: float = 3600.0  # the gateway closes each websocket after this time; 0: never
    linger: float = 2.0  # the gateway keeps sockets this long after channel_closed
    open_timeout: float = 10.0  # for the first message on a websocket
    idle_timeout: float = 0.0  # end a session without traffic; 0: never (the service's default is 20 min)
    verify_signatures: bool = False  # check SigV4 of API calls and of signed upgrades
    require_signed_upgrade: bool = False

    pending: float = 4.0  # an instance is pending for so long after StartInstances
    stopping: float = 4.0  # and stopping or shutting-down
    snapshot: float = 8.0  # until a snapshot is completed
    image: float = 2.0  # after that until its image is available
    throttle: bool = True  # EC2's request limits
    rebooting: float = 6.0  # the agent is away for so long after RebootInstances
    agent_boot: float = 5.0  # from running until the agent is connected for the first time
    agent_flap: float = 2.0  # then it is away once more for so long; 0: no flap


FAST = Options(
    pacing=0.0,
    first_read_delay=0.0,
    agent_start_delay=0.0,
    agent_start_wait=5.0,  # a first frame that finds no client is resent after 200 ms only
    plugin_start_delay=0.0,
    start_failure_delay=0.01,
    error_output_delay=0.01,
    crash_notice_delay=0.05,
    end_wait=0.2,
    handshake_timeout=1.0,
    bye_after=0.0,
    linger=0.05,
    pending=0.02,
    stopping=0.02,
    snapshot=0.05,
    image=0.02,
    throttle=False,
    rebooting=0.05,
    agent_boot=0.02,
    agent_flap=0.0,
)
"""For tests: the same order of events without the waiting."""

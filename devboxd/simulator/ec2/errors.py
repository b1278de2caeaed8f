"""How EC2 refuses a call, and how the network swallows an answer."""

from __future__ import annotations

from typing import Final


class Ec2Error(Exception):
    """A refused call; ``code`` is EC2's error code, ``http_status`` what HTTP says."""

    def __init__(self, code: str, message: str, http_status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.http_status = http_status


class AnswerLost(Exception):
    """The caller hears nothing; ``took_effect`` is known to the oracle and to nobody else."""

    def __init__(self, operation: str, *, took_effect: bool) -> None:
        super().__init__(f"{operation}: no answer")
        self.took_effect = took_effect


# Prefix of an id -> (how error codes call the thing, how messages do).
_KINDS: Final = {
    "i-": ("InvalidInstanceID", "instance ID"),
    "vol-": ("InvalidVolume", "volume"),
    "snap-": ("InvalidSnapshot", "snapshot"),
    "ami-": ("InvalidAMIID", "image id"),
    "subnet-": ("InvalidSubnetID", "subnet ID"),
    "vpc-": ("InvalidVpcID", "vpc ID"),
    "sg-": ("InvalidGroup", "security group"),
}


def not_found(resource_id: str) -> Ec2Error:
    """There is no such thing, or its creation has not got around yet."""
    for prefix, (code, word) in _KINDS.items():
        if resource_id.startswith(prefix):
            verb = "[{}]' does" if prefix == "ami-" else "{}' does"
            return Ec2Error(f"{code}.NotFound", f"The {word} '{verb.format(resource_id)} not exist")
    return Ec2Error("InvalidID", f"The ID '{resource_id}' is not valid")


def malformed(resource_id: str, prefix: str) -> Ec2Error:
    """The text is no id of this kind."""
    code = {"vol-": "InvalidVolumeID", "snap-": "InvalidSnapshotID", "sg-": "InvalidGroupId"}.get(
        prefix, _KINDS[prefix][0]
    )
    return Ec2Error(f"{code}.Malformed", f'Invalid id: "{resource_id}" (expecting "{prefix}...")')


def invalid(message: str) -> Ec2Error:
    """A value out of range or of no meaning."""
    return Ec2Error("InvalidParameterValue", message)


def combination(message: str) -> Ec2Error:
    """Parameters that do not go together."""
    return Ec2Error("InvalidParameterCombination", message)


def missing(name: str) -> Ec2Error:
    """A parameter that must be there."""
    return Ec2Error("MissingParameter", f"The request must contain the parameter {name}")


def wrong_state(message: str, *, of_instance: bool = False) -> Ec2Error:
    """The thing is there and in another state."""
    return Ec2Error("IncorrectInstanceState" if of_instance else "IncorrectState", message)

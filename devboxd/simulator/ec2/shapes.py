"""The EC2 API as botocore describes it: the same service model that every client of ours uses."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.validate import ParamValidator

from devboxd.simulator.ec2.errors import Ec2Error

_VALIDATOR: Final = ParamValidator()
_OPEN: Final = ("InstanceType",)  # such a list is never complete: the handlers know better


@functools.cache
def service() -> ServiceModel:
    """The service model; loading takes about 0.2 s, once per process."""
    return ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2")


@functools.cache
def operation(name: str) -> OperationModel:
    """One operation.

    Raises:
        Ec2Error: EC2 has no such operation.
    """
    if name not in service().operation_names:
        raise Ec2Error("InvalidAction", f"The action {name} is not valid for this web service.")
    return service().operation_model(name)


def check(name: str, params: Mapping[str, Any]) -> None:
    """Check parameters as a client of botocore does before it sends them, and the allowed values, too.

    Raises:
        Ec2Error: they do not fit the operation.
    """
    shape = operation(name).input_shape
    if shape is None:
        return
    report = _VALIDATOR.validate(params, shape)
    if report.has_errors():
        code = (
            "MissingParameter" if "Missing required" in report.generate_report() else "InvalidParameterValue"
        )
        raise Ec2Error(code, report.generate_report().replace("\n", "; "))
    _check_enums(name, params, shape)


def _check_enums(where: str, value: Any, shape: Any) -> None:
    """Botocore leaves allowed values to the service."""
    if shape.type_name == "structure":
        for member, inner in value.items():
            if member not in shape.members:  # botocore sends what it knows and says nothing of the rest
                raise Ec2Error("UnknownParameter", f"The parameter {member} is not recognized")
            _check_enums(f"{where}.{member}", inner, shape.members[member])
    elif shape.type_name == "list":
        for inner in value:
            _check_enums(where, inner, shape.member)
    elif shape.type_name == "string" and shape.enum and value not in shape.enum and shape.name not in _OPEN:
        raise Ec2Error("InvalidParameterValue", f"Value ({value}) for parameter {where} is invalid.")

"""The public parameters of SSM that name machine images; all other parameters are moto's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from devboxd.simulator.api.common import ApiError
from devboxd.simulator.ec2 import catalogue

_PUBLIC: Final = "/aws/service/"
_MOST: Final = 10  # names in one GetParameters


class ParametersApi:
    """GetParameter and GetParameters, where every name is public."""

    def knows(self, call: str, body: Mapping[str, Any]) -> bool:
        """Whether a call is ours."""
        if call not in ("GetParameter", "GetParameters"):
            return False
        names = _names(call, body)
        return bool(names) and all(isinstance(name, str) and name.startswith(_PUBLIC) for name in names)

    def answer(self, call: str, body: Mapping[str, Any], region: str, now: float) -> dict[str, Any]:
        """Process one call.

        Raises:
            ApiError: refused.
        """
        names = _names(call, body)
        if len(names) > _MOST:
            raise ApiError("ValidationException", f"at most {_MOST} names")
        known = catalogue.parameters(region)
        found = [_shown(name, known[name], region, now) for name in names if name in known]
        if call == "GetParameters":
            return {"Parameters": found, "InvalidParameters": [name for name in names if name not in known]}
        if not found:
            raise ApiError("ParameterNotFound", f"Parameter {names[0]} not found.")
        return {"Parameter": found[0]}


def _names(call: str, body: Mapping[str, Any]) -> list[Any]:
    names = [body.get("Name")] if call == "GetParameter" else body.get("Names")
    return names if isinstance(names, list) else []


def _shown(name: str, value: str, region: str, now: float) -> dict[str, Any]:
    return {
        "Name": name,
        "Type": "String",
        "Value": value,
        "Version": 1,
        "LastModifiedDate": now,
        "ARN": f"arn:aws:ssm:{region}::parameter{name}",
        "DataType": "aws:ec2:image",
    }

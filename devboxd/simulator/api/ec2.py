"""EC2 over HTTP: a form in, the model's answer or refusal as XML."""

from __future__ import annotations

from devboxd.simulator.ec2 import wire
from devboxd.simulator.ec2.errors import Ec2Error
from devboxd.simulator.machines import Machines


class Ec2Api:
    """Answers the calls that the model knows; others are moto's."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines

    def knows(self, action: str) -> bool:
        """Whether a call is ours."""
        return self._machines.knows(action)

    async def answer(self, form: wire.Form, region: str, request_id: str) -> tuple[int, bytes]:
        """Process one call: HTTP status and XML.

        Raises:
            AnswerLost: nothing is to be answered.
        """
        action = form.get("Action", "")
        try:
            answer = await self._machines.call(action, wire.decode(form), region=region)
        except Ec2Error as error:
            return error.http_status, wire.error_xml(error.code, error.message, request_id)
        return 200, wire.encode(action, answer, request_id)

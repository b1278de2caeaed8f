"""One HTTP endpoint for all of AWS: ours by target or signing scope, moto for the rest."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID
from xml.sax.saxutils import escape

from aiohttp import web

from devboxd.simulator import sigv4
from devboxd.simulator.api.common import ACCOUNT, OWNER, ApiError
from devboxd.simulator.api.connect import ConnectApi
from devboxd.simulator.api.ec2 import Ec2Api
from devboxd.simulator.api.kms import KmsApi
from devboxd.simulator.api.moto import MotoApp, MotoMissing
from devboxd.simulator.api.parameters import ParametersApi
from devboxd.simulator.api.pricing import PricingApi
from devboxd.simulator.api.ssm import SsmApi
from devboxd.simulator.clock import Clock
from devboxd.simulator.ec2.errors import AnswerLost, Ec2Error
from devboxd.simulator.ec2.wire import error_xml, xml_text
from devboxd.simulator.faults import Faults, Refusal, Throttled
from devboxd.simulator.machines import REGION
from devboxd.simulator.options import Options

log = logging.getLogger(__name__)

_JSON: Final = "application/x-amz-json-1.1"
_SERVICES: Final = {
    "AmazonSSM": "ssm",
    "TrentService": "kms",
    "AWSEC2InstanceConnectService": "ec2-instance-connect",
    "AWSPriceListService": "pricing",
}


class Endpoint:
    """Routes API calls."""

    def __init__(
        self,
        *,
        ssm: SsmApi,
        parameters: ParametersApi,
        kms: KmsApi,
        connect: ConnectApi,
        ec2: Ec2Api,
        moto: MotoApp,
        faults: Faults,
        options: Options,
        clock: Clock,
        entropy: random.Random,
    ) -> None:
        self.calls: list[str] = []  # every API call by name, for tests
        self._ssm = ssm
        self._parameters = parameters
        self._kms = kms
        self._connect = connect
        self._ec2 = ec2
        self._faults = faults
        self._options = options
        self._clock = clock
        self._random = entropy
        self._moto = moto
        self._pricing = PricingApi()

    def close(self) -> None:
        """End moto's thread."""
        self._moto.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one API call."""
        body = await request.read()
        await self._faults.pass_hole(None)
        request_id = str(UUID(int=self._random.getrandbits(128), version=4))
        target, _, call = request.headers.get("X-Amz-Target", "").partition(".")
        scope = sigv4.scope(request)
        service = _SERVICES.get(target) or (scope[1] if scope else "")
        if call:
            region = scope[0] if scope else REGION
            return await self._answer_json(request, body, service, call, region, request_id)
        return await self._answer_query(request, body, service, scope, request_id)

    async def _answer_json(
        self, request: web.Request, body: bytes, service: str, call: str, region: str, request_id: str
    ) -> web.StreamResponse:
        self.calls.append(call)
        try:
            self._check(request, body, service, call)
            fields = json.loads(body or b"{}")
            if not isinstance(fields, dict):
                raise ApiError("SerializationException", "not an object")
            answer = await self._ours(service, call, fields, request.host, region, request_id)
            if answer is None:
                return await self._moto.answer(request, body)
        except Throttled as fault:
            return _json_error(_as_error(fault.refusal), request_id)
        except ApiError as error:
            return _json_error(error, request_id)
        except ValueError:
            return _json_error(ApiError("SerializationException", "not JSON"), request_id)
        except MotoMissing as error:
            return _json_error(ApiError("UnknownOperationException", str(error), 501), request_id)
        text = json.dumps(answer)
        return web.Response(text=text, content_type=_JSON, headers={"x-amzn-RequestId": request_id})

    async def _ours(
        self,
        service: str,
        call: str,
        fields: Mapping[str, Any],
        host: str,
        region: str,
        request_id: str,
    ) -> dict[str, Any] | None:
        if service == "ssm" and self._ssm.knows(call):
            return await self._ssm.answer(call, fields, host)
        if service == "ssm" and self._parameters.knows(call, fields):
            return self._parameters.answer(call, fields, region, self._clock.wall())
        if service == "kms" and self._kms.knows(call):
            return self._kms.answer(call, fields)
        if service == "pricing" and self._pricing.knows(call):
            return self._pricing.answer(call, fields)
        if service == "ec2-instance-connect":
            return self._connect.answer(call, fields, request_id)
        return None

    async def _answer_query(
        self,
        request: web.Request,
        body: bytes,
        service: str,
        scope: tuple[str, str] | None,
        request_id: str,
    ) -> web.StreamResponse:
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = form.get("Action", "")
        self.calls.append(action or request.path)
        try:
            self._check(request, body, service, action)
            if service in ("ec2", "") and self._ec2.knows(action, form):
                region = scope[0] if scope else REGION
                status, xml = await self._ec2.answer(form, region, request_id)
                return web.Response(status=status, body=xml, content_type="text/xml")
            if action == "GetCallerIdentity":
                return web.Response(body=_caller(request_id), content_type="text/xml")
            if service == "ec2":
                self._ec2.check_unused(action, form, scope[0] if scope else REGION)
            return await self._moto.answer(request, body)
        except Ec2Error as refused:
            xml = error_xml(refused.code, refused.message, request_id)
            return web.Response(status=refused.http_status, body=xml, content_type="text/xml")
        except (Throttled, ApiError) as problem:
            error = _as_error(problem.refusal) if isinstance(problem, Throttled) else problem
            xml = error_xml(_query_code(error.code), str(error), request_id)
            if service != "ec2":
                xml = _common_error(error.code, str(error), request_id)
            return web.Response(status=error.status, body=xml, content_type="text/xml")
        except AnswerLost:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)  # nobody hears it
        except MotoMissing as missing:
            xml = _common_error("InvalidAction", str(missing), request_id)
            return web.Response(status=501, body=xml, content_type="text/xml")

    def _check(self, request: web.Request, body: bytes, service: str, call: str) -> None:
        self._faults.check_api(call, "*")
        if not self._options.verify_signatures:
            return
        signed_as = sigv4.scope(request)
        problem = sigv4.problem(request, body, service or (signed_as[1] if signed_as else ""))
        if problem:
            raise ApiError(problem, problem, 403)


def _as_error(refusal: Refusal) -> ApiError:
    return ApiError(refusal.code, refusal.text or f"{refusal.code} (by order of a fault)", refusal.status)


def _json_error(error: ApiError, request_id: str) -> web.Response:
    text = json.dumps({"__type": error.code, "message": str(error), "Message": str(error)})
    headers = {"x-amzn-RequestId": request_id, "x-amzn-ErrorType": error.code}
    return web.Response(status=error.status, text=text, content_type=_JSON, headers=headers)


def _query_code(code: str) -> str:
    """EC2 has its own names for what the JSON services call otherwise."""
    return {"ExpiredTokenException": "RequestExpired", "ThrottlingException": "RequestLimitExceeded"}.get(
        code, code
    )


def _common_error(code: str, message: str, request_id: str) -> bytes:
    code = {"ExpiredTokenException": "ExpiredToken", "ThrottlingException": "Throttling"}.get(code, code)
    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
        f"<Message>{escape(xml_text(message))}</Message></Error>"
        f"<RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


def _caller(request_id: str) -> bytes:
    return (
        '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>'
        f"<Arn>{OWNER}</Arn><UserId>AROASIMULATOR:dev</UserId><Account>{ACCOUNT}</Account>"
        f"</GetCallerIdentityResult><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        "</GetCallerIdentityResponse>"
    ).encode()

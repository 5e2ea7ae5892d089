"""KServe's time series forecast API: POST /v1/timeseries/forecast, GET /v1/timeseries/models."""

import asyncio
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from edge import guard, kserve, schema
from edge.answers import JSON, Answers
from edge.body import THREAD_BYTES, Bodies
from edge.caller import Caller
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import inference_pb2
from market_inference.contract.methods import METHODS

_FORECASTS = "forecast"
_MEMORY: Final = 10
"""The memory of an answer for a byte of its message: the numbers as Python's, and the text."""


def router(answers: Answers, reader: Bodies) -> APIRouter:
    """The two routes."""
    made = APIRouter(tags=["KServe"], default_response_class=Response)

    @made.post(
        "/v1/timeseries/forecast",
        summary="KServe's time series forecast API",
        operation_id="timeseries_forecast",
        openapi_extra=schema.kserve_operation(),
        responses=schema.kserve_responses(),
    )
    async def forecast(request: Request) -> Response:
        caller: Caller = request.state.caller
        try:
            body = await reader.parse(await reader.read(request), caller)
            found = await _answer(request, body, answers)
        except ServiceError as error:
            # One document for both readers: RFC 9457's members, and KServe's `error`.
            status = error.status(caller.request_id)
            refused: Response = guard.refusal(error, caller, {"error": kserve.error(status, caller.names)})
            return refused
        return answers.parts.whole(request, found, JSON)

    @made.get(
        "/v1/timeseries/models",
        summary="Names of the forecasters",
        operation_id="timeseries_models",
        responses=schema.problems(),
    )
    async def models(request: Request) -> Response:
        method, caller = METHODS["ListModels"], request.state.caller
        await reader.read(request)  # checks the credential
        response = await answers.send(method, method.request(), caller)
        assert isinstance(response, inference_pb2.ListModelsResponse)  # noqa: S101 -- narrows the type
        return Response(
            orjson.dumps([one.name for one in response.models if one.engine == _FORECASTS]), media_type=JSON
        )

    return made


async def _answer(request: Request, body: dict[str, Any], answers: Answers) -> bytes:
    """The JSON text of a ForecastResponse."""
    caller: Caller = request.state.caller
    large = caller.bytes_in > THREAD_BYTES
    asked = await asyncio.to_thread(kserve.read, body) if large else kserve.read(body)

    def expand(_: object) -> tuple[dict[str, Any], dict[str, str]]:
        return asked.body, asked.names

    response = await answers.ask("Predict", expand, body, caller)
    assert isinstance(response, inference_pb2.PredictResponse)  # noqa: S101 -- narrows the type
    large = caller.answer_held > THREAD_BYTES
    answers.parts.hold(request, _MEMORY * caller.answer_held)
    return await asyncio.to_thread(_text, response, asked) if large else _text(response, asked)


def _text(response: inference_pb2.PredictResponse, asked: kserve.Asked) -> bytes:
    return orjson.dumps(kserve.write(response, asked))

"""Routes of the calls in JSON's short forms, and of the status.

Owns /v1/predict, /v1/sentiment, /v1/indicators, /v1/analyze, /v1/status and /v1/models.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from edge import body as bodies
from edge import schema
from edge.answers import JSON, Answers, Expand
from edge.body import Bodies
from edge.caller import Caller
from edge.errors import MediaTypeError
from edge.tables import columns
from edge.tables.requests import TABLES, Tables, sized
from market_inference.contract.json_form import forms
from market_inference.contract.methods import METHODS


@dataclass(frozen=True, slots=True)
class Route:
    """One call: path, RPC, short form."""

    path: str
    rpc: str
    expand: Expand
    summary: str


ROUTES: Final = (
    Route("/v1/predict", "Predict", forms.predict, "Forecast one series or many, with calibrated quantiles"),
    Route("/v1/sentiment", "AnalyzeSentiment", forms.sentiment, "Sentiment of financial texts"),
    Route("/v1/indicators", "ComputeIndicators", forms.indicators, "TA-Lib's indicators over bars"),
    Route("/v1/analyze", "Analyze", forms.analyze, "The three in one call; a part that fails carries an error"),
)


def router(answers: Answers, reader: Bodies, tables: Tables) -> APIRouter:
    """The routes."""
    made = APIRouter(tags=["calls"], default_response_class=Response)
    for route in ROUTES:
        made.add_api_route(
            route.path,
            _handler(route, answers, reader, tables),
            methods=["POST"],
            summary=route.summary,
            operation_id=route.path.rpartition("/")[2],
            openapi_extra=schema.operation(route.rpc, tables=route.rpc in TABLES),
            responses=schema.responses(METHODS[route.rpc].response, tables=route.rpc in TABLES),
        )
    for path, rpc, summary in (
        ("/v1/status", "GetStatus", "Health of the replicas, by running every engine on a small real input"),
        ("/v1/models", "ListModels", "The models that a request can name"),
    ):
        made.add_api_route(
            path,
            _reader(rpc, answers, reader),
            methods=["GET"],
            summary=summary,
            operation_id=path.rpartition("/")[2],
            responses=schema.responses(METHODS[rpc].response),
        )
    return made


def _handler(route: Route, answers: Answers, reader: Bodies, tables: Tables) -> Any:
    async def handle(request: Request) -> Response:
        caller: Caller = request.state.caller
        kind = bodies.media_type(request)
        raw = await reader.read(request)
        if bodies.is_json(kind):
            body = await reader.parse(raw, caller)
            response = await answers.ask(route.rpc, route.expand, body, caller)
            times: columns.Times = {}
            notes: columns.Notes = {}
        elif route.rpc in TABLES and kind in columns.MEDIA_TYPES:
            reader.hold_table(await asyncio.to_thread(sized, raw, kind), caller)
            message, times, notes = await tables.read(route.rpc, raw, kind, request.query_params, caller)
            response = await answers.send(METHODS[route.rpc], message, caller)
        else:
            known = (JSON, *columns.MEDIA_TYPES) if route.rpc in TABLES else (JSON,)
            raise MediaTypeError(kind, ", ".join(known))
        wanted = columns.wanted(request.headers.get("accept", ""), default=kind)
        if wanted and route.rpc in TABLES:
            return await tables.answer(request, answers.parts, response, times, notes, wanted)
        return await answers.json(request, response, notes=notes)

    return handle


def _reader(rpc: str, answers: Answers, reader: Bodies) -> Any:
    async def handle(request: Request) -> Response:
        method, caller = METHODS[rpc], request.state.caller
        await reader.read(request)  # checks the credential
        response = await answers.send(method, method.request(), caller)
        return await answers.json(request, response, {"Cache-Control": "no-store"})

    return handle

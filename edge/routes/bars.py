"""Bars for the page: a dropped file as arrays, and samples to begin with.

Owns /v1/bars and /v1/samples. Reading uses the files of vendors' formats that the command line reads, with its notes.
"""

import asyncio
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from edge import body as bodies
from edge import samples, schema
from edge.admission import Admission
from edge.answers import JSON
from edge.body import Bodies
from edge.caller import Caller
from edge.errors import NoRouteError
from edge.parts import Parts
from edge.tables import columns, hints
from edge.tables.requests import Tables, sized
from market_inference.client.files import Bars
from market_inference.contract.json_form import encode


def router(parts: Parts, reader: Bodies, tables: Tables, admission: Admission) -> APIRouter:
    """The routes."""
    made = APIRouter(tags=["bars"], default_response_class=Response, responses=schema.problems())

    @made.post(
        "/v1/bars",
        summary="A file of bars, as vendors and brokers write them, read into columns with notes",
        operation_id="bars",
        openapi_extra={"requestBody": {"required": True, "content": schema.TABLE_CONTENT}},
    )
    async def read(request: Request) -> Response:
        kind = bodies.media_type(request)
        raw = await reader.read(request)
        reader.hold_table(await asyncio.to_thread(sized, raw, kind), request.state.caller)
        found = await tables.bars(raw, kind, request.query_params, request.state.caller)
        shown = await asyncio.to_thread(_shown, found)
        return parts.whole(request, shown, JSON)

    @made.get("/v1/samples", summary="Names of the samples", operation_id="samples")
    async def listed(request: Request) -> Response:
        return Response(
            orjson.dumps([{"name": one.name, "title": one.title} for one in samples.SAMPLES]), media_type=JSON
        )

    @made.get("/v1/samples/{name}", summary="A sample as CSV", operation_id="sample")
    async def sample(request: Request, name: str) -> Response:
        caller: Caller = request.state.caller
        await admission.check(caller)
        found = next((one for one in samples.SAMPLES if one.name == name), None)
        if found is None:
            raise NoRouteError(f"no sample {name[:64]!r}; /v1/samples lists them")
        return Response(await asyncio.to_thread(found.csv), media_type="text/csv")

    return made


def _shown(found: dict[str, Bars]) -> bytes:
    """The instruments as JSON: columns, times, notes, details."""
    instruments: list[dict[str, Any]] = [
        {
            "symbol": symbol,
            "columns": {name: encode.numbers(values) for name, values in one.items()},
            "times": None if one.times is None else columns.iso(one.times),
            "notes": [*map(hints.of_query, one.notes)],
            "details": dict(one.details),
        }
        for symbol, one in found.items()
    ]
    return orjson.dumps({"instruments": instruments})

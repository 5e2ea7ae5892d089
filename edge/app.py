"""The HTTP application: the routes as one visible list, and one table from errors to answers."""

from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from edge import guard
from edge.admission import Admission
from edge.answers import Answers
from edge.body import Bodies
from edge.caller import Caller
from edge.config import Config
from edge.errors import ClientGoneError, MethodNotAllowedError, NoRouteError
from edge.metrics import Metrics
from edge.routes import bars, calls, health, page, timeseries, watch
from edge.tables.requests import Tables
from edge.upstream import Upstream
from market_inference.contract import metadata
from market_inference.contract.errors import CallCancelledError, InvalidRequestError, ServiceError, Violation
from market_inference.errors import ArgumentError
from runtime.tracing import Traces

_CORS_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of one edge."""

    config: Config
    upstream: Upstream
    admission: Admission
    health: health.Health
    metrics: Metrics
    traces: Traces | None
    own_key: str
    version: str


def application(parts: Components) -> ASGIApp:
    """The application with everything around it."""
    config = parts.config
    app = FastAPI(
        title="market-inference",
        version=parts.version,
        description="Calibrated forecasts, financial sentiment and technical indicators over HTTP. Every failure is an "
        "RFC 9457 document. The same keys, limits and errors as over gRPC.",
        docs_url=None,
        redoc_url=None,
        # A redirect would name the host of the request's own header.
        redirect_slashes=False,
    )
    answers, reader, tables = (
        Answers(config, parts.upstream, parts.admission),
        Bodies(config, parts.admission),
        Tables(),
    )
    app.include_router(calls.router(answers, reader, tables))
    app.include_router(timeseries.router(answers, reader))
    app.include_router(bars.router(answers.parts, reader, tables, parts.admission))
    watches = watch.Watches(config, parts.upstream, parts.admission, parts.metrics, reader)
    app.include_router(watch.router(watches))
    app.include_router(health.router(parts.health))
    if config.page:
        app.include_router(page.router())
    app.add_exception_handler(ClientGoneError, _gone)
    for kind in (ServiceError, ArgumentError, HTTPException, Exception):
        app.add_exception_handler(kind, _answer)
    made: ASGIApp = guard.Guard(app, config, parts.admission, parts.metrics, parts.traces, parts.own_key)
    if not config.origins:
        return made
    return CORSMiddleware(
        made,
        allow_origins=list(config.origins),
        allow_methods=["GET", "POST"],
        allow_headers=[
            metadata.AUTHORIZATION,
            metadata.API_KEY,
            metadata.REQUEST_ID,
            metadata.PRIORITY,
            "content-type",
        ],
        expose_headers=[metadata.REQUEST_ID, "retry-after"],
        max_age=_CORS_SECONDS,
    )


def _answer(request: Request, error: Exception) -> Response:
    caller = request.state.caller
    made: Response = guard.refusal(_translated(error, request), caller)
    if isinstance(error, HTTPException) and error.headers:
        made.headers.update(error.headers)  # Allow, which RFC 9110 demands beside 405
    # The frames hold the values of the request, and an answer that was refused.
    error.__traceback__ = None
    return made


def _gone(request: Request, _: Exception) -> Response:
    """Read by no client; the status is for the log line and the metrics."""
    caller: Caller = request.state.caller
    caller.code = caller.reason = CallCancelledError.reason
    return Response(status_code=guard.GONE)


def _translated(error: Exception, request: Request) -> ServiceError:
    """The error for callers, of the framework as well."""
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "")
            return MethodNotAllowedError(f"{request.url.path[:128]} has no method {request.method[:16]}: use {allowed}")
        if error.status_code == 404:
            return NoRouteError(f"no route {request.url.path[:128]}; /docs lists them")
        return InvalidRequestError([Violation("", str(error.detail)[:256])])
    return guard.translated(error, request.state.caller)

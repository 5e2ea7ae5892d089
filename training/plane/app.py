"""The HTTP application: the routes as one visible list, and one table from errors to answers."""

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, DBAPIError
from starlette.exceptions import HTTPException

from training.plane import problem
from training.plane.claims import AWAY, REFUSED
from training.plane.database import StoreFullError
from training.plane.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    PlaneError,
    StorageFullError,
    UnavailableError,
)
from training.plane.folder import FolderObjects
from training.plane.guard import Guard
from training.plane.objects import ObjectMissingError, ObjectsFullError
from training.plane.routes import datasets, jobs, models, money, objects, operations, pods
from training.plane.services import Services

log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


def application(services: Services) -> FastAPI:
    """The application of one worker."""
    app = FastAPI(title="market-inference training", version="1", docs_url=None, redoc_url=None)
    app.add_middleware(Guard)
    app.include_router(datasets.router(services))
    app.include_router(jobs.router(services))
    app.include_router(money.router(services))
    app.include_router(pods.router(services))
    app.include_router(models.router(services))
    app.include_router(operations.router(services))
    if isinstance(services.objects, FolderObjects):
        app.include_router(objects.router(services, services.objects))
    for kind in (PlaneError, RequestValidationError, HTTPException, DBAPIError, *AWAY, Exception, *_OBJECT_ERRORS):
        app.add_exception_handler(kind, _answer)
    return app


_OBJECT_ERRORS = (ObjectMissingError, ObjectsFullError)


def _answer(request: Request, error: Exception) -> Response:
    return problem.response(_translated(error), request.scope.get("state", {}).get("request_id", ""))


def _translated(error: Exception) -> PlaneError:
    """The error for callers. A bug has no details here; the log holds the details under the request id."""
    if isinstance(error, HTTPException) and isinstance(error.__cause__, PlaneError):
        return error.__cause__
    if isinstance(error, PlaneError):
        return error
    if isinstance(error, RequestValidationError):
        return problem.of_validation(error)
    if isinstance(error, HTTPException):
        return problem.of_status(error.status_code, str(error.detail))
    if isinstance(error, DataError):  # a zero byte, or a text longer than its column
        return InvalidRequestError("the request holds a value that the store cannot hold")
    if isinstance(error, ObjectMissingError):
        return ConflictError("the object is gone")
    if isinstance(error, ObjectsFullError):
        return StorageFullError("the disk of the object store is full: delete datasets, or give the store more room")
    if isinstance(error, StoreFullError):
        log.error("store full")
        return StorageFullError("the disk of the store is full: delete datasets, or give the store more room")
    if isinstance(error, AWAY) and not isinstance(error, REFUSED):
        log.error("store away", extra={"fields": {"error": type(error).__name__}})
        return UnavailableError("the store does not answer; try again", retry_after=_RETRY_SECONDS)
    log.error("bug", exc_info=error)
    return InternalError()

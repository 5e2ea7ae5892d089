"""Routes of the folder store: signed uploads and downloads of single objects. S3 serves its own addresses."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import TypeVar

from anyio import CancelScope
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from training.plane.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OverloadedError,
    SlowBodyError,
    TooLargeError,
    UnavailableError,
)
from training.plane.folder import FolderObjects, ObjectBusyError, ObjectExistsError
from training.plane.objects import ObjectMissingError, ObjectsAwayError
from training.plane.routes import ranges
from training.plane.services import Services
from training.plane.slow import Slow

T = TypeVar("T")


def router(services: Services, folder: FolderObjects) -> APIRouter:
    """The routes under /objects."""
    routes = APIRouter(prefix="/objects", tags=["objects"])
    signer, clock, slow = services.signer, services.clock, services.slow

    @routes.put("/{key:path}")
    async def upload(key: str, request: Request) -> Response:
        """Write the object once, with exactly the signed number of bytes."""
        query = dict(request.query_params)
        await slow.piece(signer.verify, "PUT", key, query, clock.now())
        size = int(query["bytes"])
        sent = request.headers.get("content-length", "")
        if not sent.isdigit():
            raise InvalidRequestError.at("Content-Length", "is needed")
        if int(sent) > size:
            raise TooLargeError.over("body", size, int(sent))
        if int(sent) < size:
            raise InvalidRequestError.at("body", f"{size} bytes were signed, {sent} come", size)
        etag = await _receive(key, request, size, int(query["expires"]), query)
        return Response(status_code=200, headers={"ETag": f'"{etag}"'})

    async def _receive(key: str, request: Request, size: int, ends: int, query: dict[str, str]) -> str:
        got, upload, part = 0, query.get("upload", ""), int(query.get("part", 0))
        try:
            async with _in_threads(slow, folder.receive(key, upload, part, size)) as file:
                async for chunk in request.stream():
                    if clock.now() >= ends:
                        raise SlowBodyError("the upload did not end while its address was valid")
                    got += len(chunk)
                    if got > size:
                        raise TooLargeError.over("body", size, got)
                    await slow.piece(file.write, chunk)
                if got != size:
                    raise InvalidRequestError.at("body", f"{size} bytes were signed, {got} came", size)
        except ObjectExistsError:
            raise ConflictError("the object was uploaded before; an object is written once") from None
        except ObjectBusyError:
            raise OverloadedError("another upload of the object is under way", retry_after=5.0) from None
        except ObjectMissingError:
            raise ConflictError("the upload was completed or given up before") from None
        except ObjectsAwayError:
            raise UnavailableError("the object store is away", retry_after=5.0) from None
        return file.sha256

    @routes.get("/{key:path}", response_class=Response)
    async def download(key: str, request: Request) -> Response:
        """The object's bytes, or a range of them."""
        query = dict(request.query_params)
        await slow.piece(signer.verify, "GET", key, query, clock.now())
        try:
            size = await slow.piece(folder.size, key)
            span = ranges.asked(request.headers, size, key)
            chunks = slow.stream(await slow.piece(folder.read, key, span.start, span.end))
        except ObjectMissingError:
            raise NotFoundError("object", key) from None
        return StreamingResponse(chunks, span.status, ranges.headers(span, key, query.get("name", "object")))

    return routes


@contextlib.asynccontextmanager
async def _in_threads(slow: Slow, context: AbstractContextManager[T]) -> AsyncIterator[T]:
    """The context; its begin and end, which may write and delete all of the bytes, are pieces."""
    value = await slow.piece(context.__enter__)
    try:
        yield value
    except BaseException as error:
        with CancelScope(shield=True):
            await slow.piece(context.__exit__, type(error), error, error.__traceback__)
        raise
    await slow.piece(context.__exit__, None, None, None)

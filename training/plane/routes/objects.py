"""Routes of the folder store: signed uploads and downloads of single objects. S3 serves its own addresses."""

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from training.plane.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    StorageFullError,
    TooLargeError,
    UnavailableError,
)
from training.plane.folder import FolderObjects, ObjectExistsError
from training.plane.objects import ObjectMissingError, ObjectsAwayError, ObjectsFullError
from training.plane.routes import ranges
from training.plane.services import Services


def router(services: Services, folder: FolderObjects) -> APIRouter:
    """The routes under /objects."""
    routes = APIRouter(prefix="/objects", tags=["objects"])
    signer, clock = services.signer, services.clock

    @routes.put("/{key:path}")
    async def upload(key: str, request: Request) -> Response:
        """Write the object once, with exactly the signed number of bytes."""
        query = dict(request.query_params)
        await run_in_threadpool(signer.verify, "PUT", key, query, clock.now())
        size = int(query["bytes"])
        sent = request.headers.get("content-length", "")
        if not sent.isdigit():
            raise InvalidRequestError.at("Content-Length", "is needed")
        if int(sent) > size:
            raise TooLargeError.over("body", size, int(sent))
        if int(sent) < size:
            raise InvalidRequestError.at("body", f"{size} bytes were signed, {sent} come", size)
        etag = await _receive(key, request, size, query.get("upload", ""), int(query.get("part", 0)))
        return Response(status_code=200, headers={"ETag": f'"{etag}"'})

    async def _receive(key: str, request: Request, size: int, upload: str, part: int) -> str:
        digest, got = hashlib.sha256(), 0
        try:
            with folder.receive(key, upload, part) as file:
                async for chunk in request.stream():
                    got += len(chunk)
                    if got > size:
                        raise TooLargeError.over("body", size, got)
                    digest.update(chunk)
                    await run_in_threadpool(file.write, chunk)
                if got != size:
                    raise InvalidRequestError.at("body", f"{size} bytes were signed, {got} came", size)
        except ObjectExistsError:
            raise ConflictError("the object was uploaded before; an object is written once") from None
        except ObjectsFullError:
            raise StorageFullError("the disk of the object store is full") from None
        except ObjectsAwayError:
            raise UnavailableError("the object store is away", retry_after=5.0) from None
        return digest.hexdigest()

    @routes.get("/{key:path}", response_class=Response)
    def download(key: str, request: Request) -> Response:
        """The object's bytes, or a range of them."""
        query = dict(request.query_params)
        signer.verify("GET", key, query, clock.now())
        try:
            size = folder.size(key)
            span = ranges.asked(request.headers, size, key)
            chunks: Any = folder.read(key, span.start, span.end)
        except ObjectMissingError:
            raise NotFoundError("object", key) from None
        return StreamingResponse(chunks, span.status, ranges.headers(span, key, query.get("name", "object")))

    return routes

"""Routes of datasets: declare, upload, complete, look, delete, and the download by token."""

import contextlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import Field
from sqlalchemy import RowMapping, select

from gateway.access.auth import Client
from training.plane import dataset, token
from training.plane.checks.rows import MOST_BARS, MOST_TEXTS
from training.plane.dataset import DatasetState
from training.plane.errors import (
    ConflictError,
    LimitReachedError,
    OverloadedError,
    TokenRefusedError,
    TooLargeError,
    Violation,
)
from training.plane.objects import ObjectMissingError, forget_bytes
from training.plane.routes import ranges
from training.plane.routes.parts import Body, Callers, Id, PageSize, Sha256, ShownName, quick_routes, shown
from training.plane.schema import datasets as table
from training.plane.services import Services

UPLOAD_SECONDS = 3600.0
DOWNLOAD_SECONDS = 900.0
MOST_PARTS = 10_000
DECLARED_A_DAY = 10
"""Datasets that an owner may declare in a day, as a multiple of what an owner may have: deleted ones stay as rows."""
_SHOWN = ("id", "name", "kind", "state", "reason", "sha256", "bytes", "rows", "first_time", "last_time", "created_at")


class NewDataset(Body):
    """A dataset to be uploaded. `bytes` is bound by the signature of the upload's address."""

    name: ShownName
    kind: Literal["texts", "bars"] = Field(description=f"at most {MOST_TEXTS} rows of texts, {MOST_BARS} of bars")
    bytes: int = Field(gt=0)
    sha256: Sha256


class Complete(Body):
    """The ETag header that each part's upload answered, in the order of the parts; none for one single upload."""

    etags: list[Annotated[str, Field(max_length=200)]] = Field(default_factory=list, max_length=MOST_PARTS)


def router(services: Services) -> APIRouter:
    """The routes under /api/training."""
    routes = quick_routes(services, "/api/training", "datasets")
    callers = Callers(services)
    User = Annotated[Client, Depends(callers.user)]  # noqa: N806 -- a type
    config, store, objects, slow = services.config, services.store, services.objects, services.slow

    @routes.post("/datasets", status_code=201)
    @slow.route()
    def declare(new: NewDataset, user: User) -> dict[str, Any]:
        """Declare a dataset; the answer says where to upload the bytes."""
        if new.bytes > config.max_dataset_bytes:
            raise TooLargeError.over("bytes", config.max_dataset_bytes, new.bytes)
        parts = 1 if new.bytes <= config.multipart_bytes else -(-new.bytes // config.part_bytes)
        now = services.clock.now()
        with store.begin() as connection:
            number, held = dataset.held(connection, user.name)
            if number >= config.max_datasets_per_owner:
                text = f"at most {config.max_datasets_per_owner} datasets; delete one"
                raise OverloadedError(text, Violation("datasets", text, config.max_datasets_per_owner))
            if held + new.bytes > config.max_dataset_bytes_per_owner:
                what = f"bytes of one owner's datasets; {held} are declared: delete one"
                raise LimitReachedError.at("bytes", config.max_dataset_bytes_per_owner, what)
            most = DECLARED_A_DAY * config.max_datasets_per_owner
            if dataset.declared_since(connection, user.name, now - 86_400.0) >= most:
                raise OverloadedError(f"at most {most} datasets within a day, with deleted ones", retry_after=3600.0)
            made = dataset.declare(connection, user.name, new.name, new.kind, new.sha256, new.bytes, parts, now)
        key = f"datasets/{made}"
        if parts == 1:
            return {"id": made, "upload": _signed(objects.upload_url(key, new.bytes, UPLOAD_SECONDS))}
        upload = objects.begin_parts(key)
        with store.begin() as connection:
            dataset.set_upload(connection, made, upload)
        return {"id": made, "parts": {"count": parts, "bytes": config.part_bytes}}

    @routes.post("/datasets/{dataset_id}/parts/{number}")
    def sign_part(dataset_id: Id, number: int, user: User) -> dict[str, Any]:
        """Where to upload one part, counted from 1. Asked for when the part's turn comes: addresses end."""
        row = _uploading(dataset_id, user)
        if not row["upload"] or not 1 <= number <= row["parts"]:
            raise ConflictError(f"the dataset has no part {number}")
        size = config.part_bytes if number < row["parts"] else row["bytes"] - config.part_bytes * (row["parts"] - 1)
        return _signed(objects.part_url(row["key"], row["upload"], number, size, UPLOAD_SECONDS))

    @routes.post("/datasets/{dataset_id}/complete")
    @slow.route("dataset_id")
    def complete(dataset_id: Id, sent: Complete, user: User) -> dict[str, Any]:
        """The bytes are uploaded: begin the checks. A second call changes nothing."""
        with store.read() as connection:
            row = dataset.get(connection, user.name, dataset_id)
        if row["state"] == DatasetState.UPLOADING:
            _assemble(row, sent.etags)
            with store.begin() as connection:
                dataset.uploaded(connection, dataset_id, services.clock.now())
        return look(dataset_id, user)

    def _assemble(row: RowMapping, etags: list[str]) -> None:
        if row["upload"]:
            if len(etags) != row["parts"]:
                raise ConflictError(f"etags of {row['parts']} parts are needed, got {len(etags)}")
            with contextlib.suppress(ObjectMissingError):  # a call before made the object, and its worker died
                objects.complete_parts(row["key"], row["upload"], etags)
        try:
            size = objects.size(row["key"])
        except ObjectMissingError:
            raise ConflictError("the upload is not complete: a part is missing or another one") from None
        if size != row["bytes"]:
            raise ConflictError(f"{row['bytes']} bytes were declared, {size} came")

    def _uploading(dataset_id: str, user: Client) -> RowMapping:
        with store.read() as connection:
            row = dataset.get(connection, user.name, dataset_id)
        if row["state"] != DatasetState.UPLOADING:
            raise ConflictError(f"the dataset is {row['state']}")
        return row

    @routes.get("/datasets")
    def list_datasets(user: User, before: str = "", limit: PageSize = 50) -> dict[str, Any]:
        """The caller's datasets, the newest first."""
        with store.read() as connection:
            rows = dataset.listed(connection, user.name, before, limit)
        return {"datasets": [shown(row, *_SHOWN) for row in rows]}

    @routes.get("/datasets/{dataset_id}")
    def look(dataset_id: Id, user: User) -> dict[str, Any]:
        """A dataset with the report of its checks."""
        with store.read() as connection:
            return shown(dataset.get(connection, user.name, dataset_id, table.c.report), *_SHOWN, "report")

    @routes.delete("/datasets/{dataset_id}", status_code=204)
    @slow.route("dataset_id")
    def delete(dataset_id: Id, user: User) -> None:
        """Delete the bytes and end the tokens. Jobs that wait for the dataset are refused."""
        with store.begin() as connection:
            row = dataset.delete(connection, user.name, dataset_id, now := services.clock.now())
        forget_bytes(objects, row["key"], row["upload"])
        if row["parts"] == 1 and now < row["created_at"] + dataset.UNFINISHED_SECONDS:
            objects.empty(row["key"])  # an upload may be under way, and the bytes count no more

    @routes.post("/datasets/{dataset_id}/tokens", status_code=201)
    def issue_token(dataset_id: Id, user: User) -> dict[str, Any]:
        """A download token of the dataset: valid once, for two hours (six above 5 GB)."""
        now = services.clock.now()
        with store.begin() as connection:
            row = dataset.get(connection, user.name, dataset_id)
            if row["state"] != DatasetState.READY:
                raise ConflictError(f"the dataset is {row['state']}")
            ends = now + token.lifetime(row["bytes"])
            made = token.issue_to_owner(connection, user.name, dataset_id, now, ends)
        return {"token": made, "url": f"{config.url}/api/training/download/{made}", "expires_at": ends}

    @routes.delete("/datasets/{dataset_id}/tokens")
    def revoke_tokens(dataset_id: Id, user: User) -> dict[str, int]:
        """End every download token of the dataset."""
        with store.begin() as connection:
            dataset.get(connection, user.name, dataset_id)
            return {"revoked": token.revoke(connection, services.clock.now(), dataset=dataset_id)}

    @routes.get("/download/{secret}", response_class=Response)
    def download(secret: str, request: Request) -> Response:
        """The bytes of a dataset, for the holder of a token that was not used."""
        now = services.clock.now()
        with store.read() as connection:
            wanted = select(*dataset.PLAIN).where(table.c.id == token.peek(connection, secret, now))
            found = connection.execute(wanted).mappings().first()
            if found is None or found["state"] != DatasetState.READY:
                raise TokenRefusedError
        if found["bytes"] > config.max_dataset_bytes:
            raise TooLargeError.over("dataset", config.max_dataset_bytes, found["bytes"])
        span = ranges.asked(request.headers, found["bytes"], found["sha256"])  # a refusal uses no token up
        with store.begin() as connection:
            token.consume(connection, secret, now)
        if not objects.streamed:
            url = objects.signed_download(found["key"], DOWNLOAD_SECONDS, found["name"])
            return RedirectResponse(url, 303, {"Cache-Control": "no-store"})
        chunks = slow.stream(objects.read(found["key"], span.start, span.end))
        return StreamingResponse(chunks, span.status, ranges.headers(span, found["sha256"], found["name"]))

    return routes


def _signed(upload: Any) -> dict[str, Any]:
    return {"method": upload.method, "url": upload.url, "headers": upload.headers}

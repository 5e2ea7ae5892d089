"""Routes of jobs: create, look, cancel, follow, logs, checkpoints and artifacts."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field
from sqlalchemy import Select, func, select

from gateway.access.auth import Client
from training.plane import database, dataset, event, jobs, preflight, terms, upload
from training.plane.dataset import DatasetState
from training.plane.errors import ConflictError, InvalidRequestError, OverloadedError, PlaneError
from training.plane.job import FINAL, JobState
from training.plane.jobs import NewJob
from training.plane.launcher import Handle, LauncherAwayError
from training.plane.objects import content as stored
from training.plane.routes.money import check, shown_report
from training.plane.routes.parts import Body, Callers, Id, PageSize, quick_routes, read_recipe, shown, shown_usd
from training.plane.schema import jobs as table
from training.plane.schema import measurements
from training.plane.services import Services
from training.recipes import recipe as recipes

MOST_LOG_BYTES = 1 << 20
INLINE_BYTES = 5_000_000
ADDRESS_SECONDS = 900.0
_POLL_SECONDS = 0.5
_LOOKS = 16
"""Looks a second at the jobs of one owner's event streams, of one worker."""
_EVENTS_AT_ONCE = 500
_MOST_POINTS = 2000
_MOST_SHOWN = 100_000
_NUMBER = re.compile("[0-9]{1,18}")
_LISTED = (
    "id", "name", "kind", "dataset", "state", "reason", "attempt", "progress", "launcher", "recipe_sha256",
    "created_at", "started_at", "ended_at", "seconds_used", "max_seconds", "cancel_asked_at",
)  # fmt: skip
_SHOWN = (*_LISTED, "result")
_ATTEMPT = (
    "n", "name", "state", "cause", "exit_code", "failed_line", "failed_command", "step", "requested_at",
    "created_at", "running_at", "heartbeat_at", "deadline", "ended_at", "gone_at", "launcher", "offer", "why",
    "usd_per_hour", "usd_reserved", "usd_billed",
)  # fmt: skip


class ArtifactUrls(Body):
    """The artifacts to fetch, one address each."""

    ids: list[Id] = Field(min_length=1, max_length=1000)


def router(services: Services) -> APIRouter:
    """The routes under /api/training."""
    routes = quick_routes(services, "/api/training", "jobs")
    callers = Callers(services)
    User = Annotated[Client, Depends(callers.user)]  # noqa: N806 -- a type
    Key = Annotated[str | None, Header(max_length=200, min_length=1)]  # noqa: N806 -- a type
    store, objects, clock, quick, slow = services.store, services.objects, services.clock, services.quick, services.slow
    watchers = _Watchers(services.config.max_watchers)

    @routes.post("/jobs", status_code=201)
    async def create(
        request: Request,
        response: Response,
        user: User,
        data: Annotated[Id, Query(alias="dataset")],
        dry_run: bool = False,
        idempotency_key: Key = None,
    ) -> dict[str, Any]:
        """Make a job from a recipe in the body, YAML or JSON, and the dataset in the query."""
        text = await request.body()
        made, new = await slow.run(user.name, lambda: _create(user, text, data, dry_run, idempotency_key))
        response.status_code = 201 if new and not dry_run else 200
        return made

    def _create(user: Client, text: bytes, data: str, dry_run: bool, key: str | None) -> tuple[dict[str, Any], bool]:
        asked = read_recipe(text)
        key = None if dry_run else key  # a dry run repeats no job
        report = _checked(user.name, asked, data, key)
        with store.begin() as connection:
            found = dataset.get(connection, user.name, data)
            if found["state"] not in {DatasetState.READY, DatasetState.CHECKING}:
                raise ConflictError(f"the dataset is {found['state']}")
            if found["kind"] != (needed := recipes.DATASETS[asked.kind]):
                raise InvalidRequestError.at("dataset", f"{asked.kind} needs a dataset of {needed}", needed)
            if key is None or not jobs.is_made(connection, user.name, key):
                _refuse_too_many(connection, user.name)
            if dry_run:
                return {**shown_report(report), "recipe": asked.model_dump(mode="json")}, False
            report.require()
            new = NewJob(
                owner=user.name,
                name=asked.name or asked.kind,
                kind=asked.kind,
                dataset=data,
                recipe=asked.model_dump(mode="json"),
                text=recipes.fixed(asked),
                launcher=services.machines.default,
                max_attempts=asked.max_attempts,
                max_seconds=asked.max_seconds,
                max_usd=asked.max_usd,
                idempotency_key=key,
            )
            made, is_new = jobs.create(connection, new, clock.now())
            return shown(jobs.get(connection, user.name, made), *_SHOWN), is_new

    def _checked(owner: str, asked: recipes.AnyRecipe, data: str, key: str | None) -> preflight.Report:
        """The pre-flight, which asks the platform, outside of a transaction; none for a job that was made before."""
        with store.read() as connection:
            if key is not None and jobs.is_made(connection, owner, key):
                return preflight.Report((), ())
            found = dataset.get(connection, owner, data, dataset.LABELS)
        return check(services, owner, asked, found)

    def _refuse_too_many(connection: Any, owner: str) -> None:
        counted = select(func.count()).select_from(table).where(table.c.owner == owner)
        most, most_kept = services.config.max_jobs_per_owner, services.config.max_kept_jobs_per_owner
        database.take_turns(connection, owner)
        if connection.execute(counted.where(table.c.state.not_in(FINAL))).scalar_one() >= most:
            raise OverloadedError(f"at most {most} jobs that are not final", retry_after=60.0)
        if connection.execute(counted).scalar_one() >= most_kept:
            text = f"at most {most_kept} jobs; final ones go after {services.config.keep_days:g} days"
            raise OverloadedError(text, retry_after=3600.0)

    @routes.post("/recipes")
    async def check_recipe(request: Request, user: User) -> dict[str, Any]:
        """Check a recipe in the body, YAML or JSON, and tell the kind of dataset that it needs. Makes nothing."""
        text = await request.body()
        asked = await slow.run(user.name, lambda: read_recipe(text))
        return {"recipe": asked.model_dump(mode="json"), "dataset": recipes.DATASETS[asked.kind]}

    @routes.get("/jobs")
    def list_jobs(user: User, before: str = "", state: str = "", limit: PageSize = 50) -> dict[str, Any]:
        """The caller's jobs, the newest first, without results."""
        if state and state not in set(JobState):
            raise InvalidRequestError.at("state", f"must be one of {', '.join(JobState)}")
        with store.read() as connection:
            rows = jobs.listed(connection, user.name, before, limit, state)
        return {"jobs": [shown(row, *_LISTED) for row in rows]}

    @routes.get("/jobs/{job}")
    def look(job: Id, user: User) -> dict[str, Any]:
        """A job with its recipe, its attempts, and the cost so far."""
        with store.read() as connection:
            row = jobs.get(connection, user.name, job)
            tries = [shown(one, *_ATTEMPT) for one in jobs.attempts_of(connection, job)]
        usd = sum(_usd(one, clock.now()) for one in tries)
        return {**shown(row, *_SHOWN, "recipe"), "attempts": tries, "usd": shown_usd(usd)}

    @routes.post("/jobs/{job}/cancel")
    def cancel(job: Id, user: User) -> dict[str, Any]:
        """Ask for the job's end. A job that is final stays as it is."""
        with store.begin() as connection:
            jobs.cancel(connection, user.name, job, clock.now())
            return shown(jobs.get(connection, user.name, job), *_SHOWN)

    @routes.get("/jobs/{job}/measurements")
    @slow.route()
    def measured(job: Id, user: User) -> dict[str, Any]:
        """The reported measurements, by name: pairs of step and value, of many points every second, third, ..."""
        series: dict[str, list[tuple[int, float]]] = {}
        with store.read() as connection:
            jobs.get(connection, user.name, job)
            for row in connection.execute(_thinned(job)):
                series.setdefault(row.name, []).append((row.step, row.value))
        return {"series": series}

    @routes.get("/jobs/{job}/events", response_model=None)
    async def events(
        job: Id,
        request: Request,
        user: User,
        after: Annotated[int, Query(ge=0, lt=2**63)] = 0,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response | dict[str, Any]:
        """Events after a cursor: JSON, or Server-Sent Events until the job is final."""
        if last_event_id is not None and _NUMBER.fullmatch(last_event_id):
            after = int(last_event_id)
        if "text/event-stream" not in request.headers.get("accept", ""):
            found, _ = await quick.run(user.name, lambda: _read(user.name, job, after))
            return {"events": [_plain(one) for one in found]}
        await quick.run(user.name, lambda: _read(user.name, job, after))
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        stream = watchers.count(user.name, _follow(user.name, job, after, lambda: callers.user(request)))
        return StreamingResponse(stream, 200, headers, "text/event-stream")

    def _read(owner: str, job: str, after: int) -> tuple[list[event.Event], dict[str, Any]]:
        with store.read() as connection:
            row = jobs.get(connection, owner, job)
            newest = select(measurements.c.value).where(measurements.c.job == job, measurements.c.name == "loss")
            loss = connection.execute(newest.order_by(measurements.c.step.desc()).limit(1)).scalar()
            now = shown(row, "state", "progress", "attempt") | ({} if loss is None else {"loss": loss})
            return event.after(connection, job, after, _EVENTS_AT_ONCE), now

    async def _follow(owner: str, job: str, after: int, check: Callable[[], Awaitable[object]]) -> AsyncIterator[str]:
        """The events, until the job is final or the caller's credential is no longer valid."""
        told: dict[str, Any] = {}
        quiet = 0.0
        while True:
            try:
                await check()
            except PlaneError:
                return
            found, now = await to_thread.run_sync(_read, owner, job, after, limiter=watchers.threads)
            for one in found:
                after = one.seq
                yield f"id: {one.seq}\nevent: {one.kind}\ndata: {json.dumps(_plain(one))}\n\n"
            if now != told:
                told = now
                yield f"event: progress\ndata: {json.dumps(now)}\n\n"
            elif quiet >= 15.0:
                quiet = 0.0
                yield ": alive\n\n"
            if found:  # more may follow
                continue
            if now["state"] in FINAL:
                return
            quiet += (pause := watchers.pause(owner))
            await asyncio.sleep(pause)

    @routes.get("/jobs/{job}/logs", response_class=Response)
    @slow.route()
    def logs(job: Id, user: User) -> Response:
        """The end of the newest attempt's log: from the machine while there is one, else as it was uploaded."""
        with store.read() as connection:
            row = jobs.get(connection, user.name, job)
            tries = jobs.attempts_of(connection, job)
            kept = upload.newest_log(connection, job)
        content = _machine_log(tries[-1]) if tries else None
        if content is None and kept is not None:
            content = stored(objects, kept)
        if content is None:
            raise ConflictError(f"the job is {row['state']}: there is no log")
        return Response(content, media_type="text/plain; charset=utf-8", headers={"X-Content-Type-Options": "nosniff"})

    def _machine_log(attempt: Any) -> bytes | None:
        machine = Handle(attempt["name"], attempt["handle"])
        try:
            return services.machines.launcher(attempt["launcher"]).logs(machine, MOST_LOG_BYTES)
        except LauncherAwayError:
            return None

    @routes.get("/jobs/{job}/checkpoints")
    def checkpoints(job: Id, user: User) -> dict[str, Any]:
        """The job's complete checkpoints, the newest first."""
        with store.read() as connection:
            jobs.get(connection, user.name, job)
            rows = upload.newest_checkpoints(connection, job)
        return {"checkpoints": [shown(row, "step", "attempt", "complete_at") for row in rows]}

    @routes.get("/jobs/{job}/artifacts")
    def artifacts(job: Id, user: User) -> dict[str, Any]:
        """The files that the job has made."""
        with store.read() as connection:
            jobs.get(connection, user.name, job)
            rows = upload.artifacts(connection, user.name, job)
        return {"artifacts": [shown(row, "id", "name", "sha256", "bytes", "attempt", "complete_at") for row in rows]}

    @routes.get("/artifacts/{artifact}", response_model=None)
    @slow.route()
    def fetch(artifact: Id, user: User) -> Response | dict[str, Any]:
        """A file's bytes up to 5 MB; above, an address to fetch the file from."""
        with store.read() as connection:
            row = upload.artifact(connection, user.name, artifact)
        if row["bytes"] > INLINE_BYTES:
            return _address(row)
        disposition = {"Content-Disposition": f'attachment; filename="{row["name"]}"', "ETag": f'"{row["sha256"]}"'}
        content = stored(objects, row)
        return Response(content, 200, {**disposition, "X-Content-Type-Options": "nosniff"}, "application/octet-stream")

    @routes.post("/artifacts/urls")
    @slow.route()
    def addresses(sent: ArtifactUrls, user: User) -> dict[str, Any]:
        """One address for each file."""
        with store.read() as connection:
            rows = [upload.artifact(connection, user.name, one) for one in sent.ids]
        return {"artifacts": [_address(row) for row in rows]}

    def _address(row: Any) -> dict[str, Any]:
        url = objects.signed_download(row["key"], ADDRESS_SECONDS, row["name"])
        return {**shown(row, "id", "name", "sha256", "bytes"), "url": url, "expires_at": clock.now() + ADDRESS_SECONDS}

    return routes


def _thinned(job: str) -> Select[Any]:
    """At most _MOST_POINTS points of each name, chosen by the store, and _MOST_SHOWN in all."""
    columns = measurements.c
    place = func.row_number().over(partition_by=columns.name, order_by=columns.step) - 1
    stride = 1 + func.count().over(partition_by=columns.name) // _MOST_POINTS
    left = (place % stride).label("left")
    points = select(columns.name, columns.step, columns.value, left).where(columns.job == job).subquery()
    kept = select(points.c.name, points.c.step, points.c.value).where(points.c.left == 0)
    return kept.order_by(points.c.name, points.c.step).limit(_MOST_SHOWN)


class _Watchers:
    """Bounds the event streams that one worker holds open, a quarter of them for one owner, and their looks."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._each = max(1, most // 4)
        self._open: Counter[str] = Counter()
        self.threads = CapacityLimiter(4)

    def pause(self, owner: str) -> float:
        """The seconds between two looks of a stream of the owner."""
        return max(_POLL_SECONDS, self._open[owner] / _LOOKS)

    def count(self, owner: str, stream: AsyncIterator[str]) -> AsyncIterator[str]:
        """The stream, counted while it is open. Raises OverloadedError."""
        if self._open.total() >= self._most:
            raise OverloadedError(f"at most {self._most} open event streams of one worker", retry_after=5.0)
        if self._open[owner] >= self._each:
            raise OverloadedError(f"at most {self._each} open event streams of one owner", retry_after=5.0)
        return self._counted(owner, stream)

    async def _counted(self, owner: str, stream: AsyncIterator[str]) -> AsyncIterator[str]:
        self._open[owner] += 1
        try:
            async for one in stream:
                yield one
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


def _plain(one: event.Event) -> dict[str, Any]:
    return {**one.data, "seq": one.seq, "attempt": one.attempt, "at": one.at, "kind": one.kind}


def _usd(attempt: dict[str, Any], now: float) -> float:
    """The bill where there is one, else the agreed price for the time so far."""
    if "usd_billed" in attempt:
        return float(attempt["usd_billed"])
    until = attempt.get("gone_at", now)
    return terms.cost(attempt.get("usd_per_hour", 0.0), until - attempt.get("created_at", until))

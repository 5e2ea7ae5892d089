"""Routes of pods: start, report, upload, end. A pod shows the token of its own attempt and nothing else."""

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request, Response
from pydantic import AfterValidator, Field
from pydantic_core import PydanticKnownError
from sqlalchemy import RowMapping, select

from training.plane import dataset, reports, token, upload
from training.plane.errors import ConflictError, InvalidRequestError, TooLargeError
from training.plane.reports import Point, Report
from training.plane.routes.jobs import MOST_LOG_BYTES
from training.plane.routes.parts import Body, Callers, FileName, Id, Sha256, quick_routes
from training.plane.schema import datasets, jobs
from training.plane.services import Services
from training.plane.slow import machines_of
from training.plane.token import Holder
from training.plane.upload import UPLOAD_SECONDS, NewUpload, UploadKind

_DAY = 86_400.0
_LAST_STEP = 2**63 - 1
_MetricName = Annotated[str, Field(min_length=1, max_length=100)]
_MOST_TEXT = 200


def _short(measure: float | str) -> float | str:
    """A limit at the type of the union's text would be one of two errors, behind "not a number"."""
    if isinstance(measure, str) and len(measure) > _MOST_TEXT:
        raise PydanticKnownError("string_too_long", {"max_length": _MOST_TEXT})
    return measure


_Measure = Annotated[float | str, AfterValidator(_short)]


class Metric(Body):
    """One number at one step."""

    name: _MetricName
    value: float
    step: int = Field(ge=0, lt=2**63)
    at: float | None = None


class TrainerMetric(Body):
    """A metric as Kubeflow's callback of transformers sends it: the value is text."""

    name: _MetricName
    value: Annotated[str, Field(max_length=100)]


class TrainerStatus(Body):
    """Kubeflow Trainer's progress, as `KubeflowCallback` of transformers sends it."""

    lastUpdatedTime: str = Field("", max_length=100)  # noqa: N815 -- Kubeflow's name
    progressPercentage: float | None = None  # noqa: N815
    estimatedRemainingSeconds: float | None = None  # noqa: N815
    metrics: list[TrainerMetric] = Field(default_factory=list, max_length=reports.MOST_MEASUREMENTS)


class Sent(Body):
    """A report: the progress, and the measurements since the report before. Or Kubeflow's body."""

    step: int = Field(0, ge=0, lt=2**63)
    progress: float | None = None
    metrics: list[Metric] = Field(default_factory=list, max_length=reports.MOST_MEASUREMENTS)
    trainerStatus: TrainerStatus | None = None  # noqa: N815 -- Kubeflow's name


class File(Body):
    """A file that the pod will upload."""

    kind: Literal[UploadKind.ARTIFACT, UploadKind.CHECKPOINT]
    name: FileName
    sha256: Sha256
    bytes: int = Field(ge=0)
    step: int = Field(0, ge=0, lt=2**63)


class Checkpoint(Body):
    """The files of a checkpoint: name and upload id. Sent last, when every file is complete."""

    step: int = Field(ge=0, lt=2**63)
    files: dict[FileName, Id] = Field(min_length=1, max_length=100)


class Outcome(Body):
    """The outcome of the training, once for each attempt. The artifacts are named as they were uploaded."""

    measures: dict[_MetricName, _Measure] = Field(
        max_length=200,
        description=f"a text has at most {_MOST_TEXT} characters; with the artifacts {reports.MOST_RESULT_BYTES} bytes",
    )
    artifacts: list[FileName] = Field(max_length=upload.MOST_ARTIFACTS)


class End(Body):
    """How run.sh ended."""

    exit_code: int = Field(ge=0, le=255)
    line: int = Field(0, ge=0, lt=2**31)
    command: str = ""


def router(services: Services) -> APIRouter:
    """The routes under /api/training."""
    routes = quick_routes(services, "/api/training", "pods")
    callers = Callers(services)
    Pod = Annotated[Holder, Depends(callers.pod)]  # noqa: N806 -- a type
    store, objects, clock, config = services.store, services.objects, services.clock, services.config
    quick, slow = services.quick, services.slow

    @routes.post("/jobs/{job}/start")
    def start(job: Id, pod: Pod) -> dict[str, Any]:
        """The recipe, the dataset's digest, the newest checkpoint, and the time that is paid, once for each attempt."""
        now = clock.now()
        with store.begin() as connection:
            row = reports.start(connection, pod, now)
            paid = reports.paid_seconds(connection, pod, now)
            again = reports.started_before(connection, pod)
            data = connection.execute(select(*dataset.PLAIN).where(datasets.c.id == row["dataset"])).mappings().one()
            found = next(iter(upload.newest_checkpoints(connection, job)), None)
            files = [] if found is None else upload.checkpoint_files(connection, found)
        if again:
            raise ConflictError("the attempt was started before: the machine restarted")
        resume = None if found is None else {"step": found["step"], "files": [_file(*one) for one in files]}
        described = {name: data[name] for name in ("name", "kind", "sha256", "bytes")}
        money = {} if paid is None else {"paid_seconds": int(paid)}
        return {"recipe": row["recipe"], "dataset": described, "checkpoint": resume, **money}

    def _file(name: str, row: RowMapping) -> dict[str, Any]:
        url = objects.signed_download(row["key"], UPLOAD_SECONDS, name)
        return {"name": name, "sha256": row["sha256"], "bytes": row["bytes"], "url": url}

    @routes.post("/tokens")
    def refresh(request: Request, pod: Pod) -> Response:
        """A new download token of the job's dataset; one line of text: address, SHA-256, bytes."""
        now = clock.now()
        with store.begin() as connection:
            row = connection.execute(select(jobs.c.dataset).where(jobs.c.id == pod.job)).one()
            data = connection.execute(select(*dataset.PLAIN).where(datasets.c.id == row.dataset)).mappings().one()
            ends = now + token.lifetime(data["bytes"])
            made = token.issue_download(connection, pod, data["id"], now, ends)
        url = f"{config.url}/api/training/download/{made}"
        return Response(f"{url} {data['sha256']} {data['bytes']}\n", media_type="text/plain")

    @routes.post("/jobs/{job}/metrics")
    def metrics(job: Id, sent: Sent, pod: Pod) -> dict[str, Any]:
        """Take a report in; the answer says whether to stop, and how many seconds are left."""
        now = clock.now()
        report = _of_trainer(sent.trainerStatus, now) if sent.trainerStatus is not None else _report(sent, now)
        with store.begin() as connection:
            orders = reports.report(connection, pod, report, now)
        return {"stop": orders.stop, "seconds_left": round(orders.seconds_left, 1)}

    @routes.post("/jobs/{job}/uploads", status_code=201)
    async def declare(job: Id, new: File, pod: Pod) -> dict[str, Any]:
        """Where to upload a file. An artifact of the same name is replaced."""
        if new.bytes > config.max_artifact_bytes:
            raise TooLargeError.over("bytes", config.max_artifact_bytes, new.bytes)
        made, signed = await quick.run(machines_of(pod.owner), lambda: _declare_signed(pod, new))
        await _empty(pod, made.replaced)
        return {"id": made.id, "method": signed.method, "url": signed.url, "headers": signed.headers}

    def _declare_signed(pod: Holder, new: File) -> tuple[upload.Declared, Any]:
        made = _declare(pod, NewUpload(**new.model_dump()))
        return made, objects.upload_url(made.key, new.bytes, UPLOAD_SECONDS)

    def _declare(pod: Holder, new: NewUpload) -> upload.Declared:
        with store.begin() as connection:
            return upload.declare(connection, pod, new, clock.now(), config.max_attempt_bytes)

    async def _empty(pod: Holder, keys: Sequence[str]) -> None:
        """Free the bytes of files that were replaced. What fails here is done by the sweep."""
        if keys:
            await slow.run(pod.owner, lambda: _empty_now(keys))

    def _empty_now(keys: Sequence[str]) -> None:
        for key in keys:
            objects.empty(key)

    @routes.post("/jobs/{job}/uploads/{file}/complete")
    @slow.route("file")
    def complete(job: Id, file: Id, pod: Pod) -> dict[str, Any]:
        """The file is uploaded: read it back and compare its digest."""
        with store.read() as connection:
            row = upload.of_holder(connection, pod, file)
        if row["complete_at"] is None:
            upload.verify(objects, row)
            with store.begin() as connection:
                upload.complete(connection, file, clock.now(), clock.now() + config.keep_days * _DAY)
        return {"id": file, "complete": True}

    @routes.post("/jobs/{job}/checkpoints", status_code=201)
    async def checkpoint(job: Id, sent: Checkpoint, pod: Pod) -> dict[str, Any]:
        """Take a checkpoint in. The job keeps the newest two."""
        await _empty(pod, await quick.run(machines_of(pod.owner), lambda: _take(pod, sent)))
        return {"step": sent.step}

    def _take(pod: Holder, sent: Checkpoint) -> list[str]:
        with store.begin() as connection:
            return upload.checkpoint(connection, pod, sent.step, sent.files, clock.now())

    @routes.post("/jobs/{job}/result")
    def result(job: Id, sent: Outcome, pod: Pod) -> dict[str, Any]:
        """Take in the outcome of the training. The same outcome again changes nothing, another one is refused."""
        with store.begin() as connection:
            reports.result(connection, pod, sent.measures, sent.artifacts, clock.now())
        return {"taken": True}

    @routes.post("/jobs/{job}/log")
    async def log(job: Id, request: Request, pod: Pod) -> dict[str, Any]:
        """The end of the machine's log, at most 1 MiB, in the place of the attempt's log before."""
        content = await request.body()
        if len(content) > MOST_LOG_BYTES:
            raise TooLargeError.over("log", MOST_LOG_BYTES, len(content))
        await slow.run(pod.owner, lambda: _keep_log(pod, content))
        return {"bytes": len(content)}

    def _keep_log(pod: Holder, content: bytes) -> None:
        now = clock.now()
        new = NewUpload(UploadKind.LOG, "run.log", hashlib.sha256(content).hexdigest(), len(content))
        made = _declare(pod, new)
        objects.put(made.key, content)
        with store.begin() as connection:
            before = upload.complete_log(connection, pod, made.id, now, now + config.keep_days * _DAY)
        _empty_now(before)

    @routes.post("/jobs/{job}/end")
    def end(job: Id, sent: End, pod: Pod) -> dict[str, Any]:
        """Take in the machine's end. The machine may go."""
        with store.begin() as connection:
            reports.end(connection, pod, sent.exit_code, sent.line, sent.command[:500], clock.now())
        return {"taken": True}

    return routes


def _report(sent: Sent, now: float) -> Report:
    points = [Point(one.step, one.name, one.value, one.at if one.at is not None else now) for one in sent.metrics]
    return Report(sent.step, sent.progress, points)


def _of_trainer(status: TrainerStatus, now: float) -> Report:
    """Kubeflow's body names the step among its metrics. A number that is not finite is left out: a loss may be NaN."""
    numbers: dict[str, float] = {}
    for place, one in enumerate(status.metrics):
        try:
            numbers[one.name] = float(one.value)
        except ValueError:
            raise InvalidRequestError.at(f"trainerStatus.metrics[{place}].value", "must be a number") from None
    numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
    step = min(max(0, int(numbers.get("current_step", 0))), _LAST_STEP)
    progress = None if status.progressPercentage is None else status.progressPercentage / 100.0
    return Report(step, progress, [Point(step, name, value, now) for name, value in numbers.items()])

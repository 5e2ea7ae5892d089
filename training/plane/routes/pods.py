"""Routes of pods: start, report, upload, end. A pod shows the token of its own attempt and nothing else."""

import hashlib
import math
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field
from sqlalchemy import RowMapping, select

from training.plane import reports, token, upload
from training.plane.errors import ConflictError, InvalidRequestError, TooLargeError
from training.plane.reports import Point, Report
from training.plane.routes.jobs import MOST_LOG_BYTES
from training.plane.routes.parts import Body, Callers, FileName, Id, Sha256
from training.plane.schema import datasets, jobs
from training.plane.services import Services
from training.plane.token import Holder
from training.plane.upload import NewUpload, UploadKind

UPLOAD_SECONDS = 3600.0
_DAY = 86_400.0
_LAST_STEP = 2**63 - 1
_MetricName = Annotated[str, Field(min_length=1, max_length=100)]


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

    kind: UploadKind
    name: FileName
    sha256: Sha256
    bytes: int = Field(ge=0)
    step: int = Field(0, ge=0, lt=2**63)


class Checkpoint(Body):
    """The files of a checkpoint: name and upload id. Sent last, when every file is complete."""

    step: int = Field(ge=0, lt=2**63)
    files: dict[FileName, Id] = Field(min_length=1, max_length=100)


class Outcome(Body):
    """The outcome of the training. The artifacts are named as they were uploaded."""

    measures: dict[_MetricName, float | str] = Field(max_length=200)
    artifacts: list[FileName] = Field(max_length=1000)


class End(Body):
    """How run.sh ended."""

    exit_code: int = Field(ge=0, le=255)
    line: int = Field(0, ge=0)
    command: str = ""


def router(services: Services) -> APIRouter:
    """The routes under /api/training."""
    routes = APIRouter(prefix="/api/training", tags=["pods"])
    callers = Callers(services)
    Pod = Annotated[Holder, Depends(callers.pod)]  # noqa: N806 -- a type
    store, objects, clock, config = services.store, services.objects, services.clock, services.config
    slow = services.slow

    @routes.post("/jobs/{job}/start")
    def start(job: Id, pod: Pod) -> dict[str, Any]:
        """The recipe, the dataset's digest, the newest checkpoint, and the time that is paid, once for each attempt."""
        now = clock.now()
        with store.begin() as connection:
            row = reports.start(connection, pod, now)
            paid = reports.paid_seconds(connection, pod, now)
            again = reports.started_before(connection, pod)
            data = connection.execute(select(datasets).where(datasets.c.id == row["dataset"])).mappings().one()
            found = reports.newest_checkpoint(connection, job)
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
            data = connection.execute(select(datasets).where(datasets.c.id == row.dataset)).mappings().one()
            ends = now + token.lifetime(data["bytes"])
            bound = {"dataset": data["id"], "job": pod.job, "attempt": pod.attempt}
            made = token.issue(connection, token.DOWNLOAD, pod.owner, now, ends, **bound)
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
    def declare(job: Id, new: File, pod: Pod) -> dict[str, Any]:
        """Where to upload a file."""
        if new.bytes > config.max_artifact_bytes:
            raise TooLargeError.over("bytes", config.max_artifact_bytes, new.bytes)
        now = clock.now()
        wanted = NewUpload(new.kind, new.name, new.sha256, new.bytes, new.step)
        with store.begin() as connection:
            made, key = upload.declare(connection, pod, wanted, now, now + 2 * UPLOAD_SECONDS)
        signed = objects.upload_url(key, new.bytes, UPLOAD_SECONDS)
        return {"id": made, "method": signed.method, "url": signed.url, "headers": signed.headers}

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
    def checkpoint(job: Id, sent: Checkpoint, pod: Pod) -> dict[str, Any]:
        """Take a checkpoint in."""
        with store.begin() as connection:
            upload.checkpoint(connection, pod, sent.step, sent.files, clock.now())
        return {"step": sent.step}

    @routes.post("/jobs/{job}/result")
    def result(job: Id, sent: Outcome, pod: Pod) -> dict[str, Any]:
        """Take in the outcome of the training."""
        with store.begin() as connection:
            reports.result(connection, pod, sent.measures, sent.artifacts, clock.now())
        return {"taken": True}

    @routes.post("/jobs/{job}/log")
    async def log(job: Id, request: Request, pod: Pod) -> dict[str, Any]:
        """The end of the machine's log, at most 1 MiB."""
        content = await request.body()
        if len(content) > MOST_LOG_BYTES:
            raise TooLargeError.over("log", MOST_LOG_BYTES, len(content))
        await slow.run(pod.owner, lambda: _keep_log(pod, content))
        return {"bytes": len(content)}

    def _keep_log(pod: Holder, content: bytes) -> None:
        now = clock.now()
        new = NewUpload(UploadKind.LOG, "run.log", hashlib.sha256(content).hexdigest(), len(content))
        with store.begin() as connection:
            made, key = upload.declare(connection, pod, new, now, now + config.keep_days * _DAY)
        objects.put(key, content)
        with store.begin() as connection:
            upload.complete(connection, made, now, now + config.keep_days * _DAY)
            upload.supersede_logs(connection, pod, made, now)

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

"""What the SDK calls: jobs in, results out, whatever becomes of them.

Owns a job's life in this process: its id, its limits, its errors as results, its metrics and its log line; and the
worker behind it, which is imported and built at first use, on the running loop. Importing this module is quick and
needs neither torch nor the SDK.
"""

import asyncio
import importlib
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.rpc import code_pb2

from inference.call import Call
from serverless import concurrency as policy
from serverless import limits, replies
from serverless import request as incoming
from serverless.replies import Result
from serverless.request import Request
from wire import deadline
from wire.errors import InternalError, OverloadedError, ServiceError, ServiceUnavailableError, reason_of
from wire.logs import fields

if TYPE_CHECKING:
    from inference.config import Config as ServiceConfig
    from serverless.config import Config
    from serverless.worker import Worker

log = logging.getLogger("serverless.job")

STREAMED = ("predict_stream", "watch")
ACTIONS = ("predict", "sentiment", "indicators", "analyze", "health", "models", *STREAMED)

Job = Mapping[str, Any]


class UnknownActionError(ServiceError):
    """The job names no action that this worker has."""

    code = code_pb2.UNIMPLEMENTED
    reason = "INVALID_ACTION"

    def __init__(self, action: str) -> None:
        there_are = f"there are: {', '.join(ACTIONS)}"
        super().__init__(f"unknown action {action[:64]!r}; {there_are}" if action else f"no action given; {there_are}")


@dataclass(slots=True, eq=False)
class Visit:
    """A job while it is here, and what became of it."""

    job_id: str
    request_id: str
    began: float
    call: Call
    request: Request | None = None
    outcome: str = "OK"

    @property
    def action(self) -> str:
        return self.request.action if self.request else "none"


class Handler:
    """The SDK's two kinds of handler over one worker: call it for whole results, or `stream` for one at a time."""

    def __init__(self, config: "Config", service: "ServiceConfig") -> None:
        self._config = config
        self._service = service
        self._building: asyncio.Task[Worker] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._refused = 0
        self.in_flight = 0

    async def __call__(self, job: Job) -> Result:
        """The job's whole result; a streamed action's outputs are a list."""
        visit = self._enter(job)
        try:
            async with aclosing(self._outputs(job, visit)) as found:
                outputs = [output async for output in found]
            result = replies.success(outputs if visit.action in STREAMED else outputs[0], visit.request_id)
            limits.check_output(visit.job_id, result)
        except asyncio.CancelledError:
            visit.outcome = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 -- the SDK would post a trace; _failure logs what is a bug
            return self._failure(error, visit)
        else:
            return result
        finally:
            self._leave(visit)

    async def stream(self, job: Job) -> AsyncGenerator[Result, None]:
        """The job's results as they are ready; an action that is not streamed has one.

        An error ends the stream. The SDK keeps nothing of it but the text under `error`, so the whole form goes there.
        """
        visit = self._enter(job)
        try:
            total = 0
            async with aclosing(self._outputs(job, visit)) as outputs:
                async for output in outputs:
                    result = replies.success(output, visit.request_id)
                    total += limits.check_chunk(result)
                    if self._config.streaming == "aggregated":
                        limits.check_total(visit.job_id, total)
                    yield result
        except (asyncio.CancelledError, GeneratorExit):
            visit.outcome = "CANCELLED"
            raise
        except Exception as error:  # noqa: BLE001 -- as above
            yield {"error": json.dumps(self._failure(error, visit))}
        finally:
            self._leave(visit)

    def concurrency(self, current: int | None) -> int:
        """The SDK's concurrency modifier; its first call is also the first sign of life on the SDK's loop."""
        if self._config.warm_up and self._warming is None:
            self._warming = asyncio.create_task(self._warm_up())
        worker = self._built()
        queued = worker.parts.queued_seconds() if worker else 0.0
        load = policy.Load(self.in_flight, queued, self._refused)
        self._refused = 0
        return policy.concurrency(
            current, load, lowest=self._config.min_concurrency, highest=self._config.max_concurrency
        )

    async def worker(self) -> "Worker":
        """The worker, built once however many ask. Raises ServiceUnavailableError when a package is missing."""
        if self._building is None:
            self._building = asyncio.create_task(self._build())
        return await asyncio.shield(self._building)

    async def _build(self) -> "Worker":
        began = deadline.now()
        try:
            module = await asyncio.to_thread(importlib.import_module, "serverless.worker")
            worker: Worker = module.Worker(self._config, self._service)
        except ModuleNotFoundError as error:
            self._building = None
            raise ServiceUnavailableError(
                f"this worker's image lacks the Python package {error.name!r}: install market-inference[serverless]"
            ) from error
        except BaseException:
            self._building = None
            raise
        log.info("worker ready", extra=fields(seconds=round(deadline.now() - began, 3), metrics=worker.metrics_address))
        return worker

    def _built(self) -> "Worker | None":
        done = self._building is not None and self._building.done() and not self._building.cancelled()
        return self._building.result() if self._building and done and not self._building.exception() else None

    async def _warm_up(self) -> None:
        try:
            worker = await self.worker()
            await worker.parts.catalogue.load_defaults()
        except ServiceUnavailableError as error:
            log.warning("warm-up failed", extra=fields(reason=error.message))

    async def _outputs(self, job: Job, visit: Visit) -> AsyncGenerator[Any, None]:
        limits.check_input(visit.job_id, job.get("input"))
        request = visit.request = incoming.read(
            job,
            visit.request_id,
            default_timeout=self._config.default_timeout,
            max_timeout=self._config.max_timeout,
        )
        if request.action not in ACTIONS:
            visit.request = None  # a name of the caller's choice goes into no metric
            raise UnknownActionError(request.action)
        visit.call.priority, visit.call.deadline = request.priority, request.deadline
        worker = await self.worker()
        if request.action in STREAMED:
            async with aclosing(worker.stream(request, visit.call)) as outputs:
                async for output in outputs:
                    yield output
        else:
            yield await worker.answer(request, visit.call)

    def _enter(self, job: Job) -> Visit:
        self.in_flight += 1
        identity = incoming.request_id(job)
        call = Call(request_id=identity, client="runpod")
        return Visit(str(job.get("id", "")), identity, deadline.now(), call)

    def _failure(self, error: Exception, visit: Visit) -> Result:
        if not isinstance(error, ServiceError):
            log.error("bug", exc_info=error, extra=fields(request_id=visit.request_id, action=visit.action))
            error = InternalError()
        status = error.status(visit.request_id)
        visit.outcome = reason_of(status)
        self._refused += visit.outcome == OverloadedError.reason
        return replies.failure(status, visit.request_id, visit.request.names if visit.request else {})

    def _leave(self, visit: Visit) -> None:
        self.in_flight -= 1
        seconds = deadline.now() - visit.began
        call = visit.call
        log.log(
            logging.ERROR if visit.outcome == InternalError.reason else logging.INFO,
            "job",
            extra=fields(
                request_id=visit.request_id,
                job_id=visit.job_id,
                action=visit.action,
                outcome=visit.outcome,
                seconds=round(seconds, 6),
                queue_seconds=round(call.queue_seconds, 6),
                device_seconds=round(call.device_seconds, 6),
                batch_items=call.batch_items,
            ),
        )
        if worker := self._built():
            worker.parts.metrics.answered(visit.action, visit.outcome, call, seconds)
            worker.memory.job_done()

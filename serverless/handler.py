"""What the SDK calls: jobs in, results out, whatever becomes of them.

Owns a job's life in this process: its limits, its errors as results, its metrics; and the worker behind it, which is
imported and built at first use, on the running loop. Importing this module is
quick and needs neither torch nor the SDK.
"""

import asyncio
import importlib
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from market_inference.contract import deadline
from market_inference.contract.errors import (
    InternalError,
    OverloadedError,
    ServiceError,
    ServiceUnavailableError,
    reason_of,
)
from runtime.logs import fields
from serverless import concurrency as policy
from serverless import limits, replies
from serverless import request as incoming
from serverless.replies import Result
from serverless.visit import CANCELLED, Visit

if TYPE_CHECKING:
    from inference.config import Config as ServiceConfig
    from serverless.config import Config
    from serverless.worker import Worker

log = logging.getLogger(__name__)

Job = Mapping[str, Any]


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
            streamed = visit.request is not None and visit.request.streamed
            result = replies.success(outputs if streamed else outputs[0], visit.request_id)
            limits.check_output(visit.job_id, result)
        except asyncio.CancelledError:
            visit.outcome = CANCELLED
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
            visit.outcome = CANCELLED
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
            await worker.parts.catalog.load_defaults()
        except ServiceUnavailableError as error:
            log.warning("warm-up failed", extra=fields(reason=error.message))

    async def _outputs(self, job: Job, visit: Visit) -> AsyncGenerator[Any, None]:
        limits.check_input(visit.job_id, job.get("input"))
        request = visit.request = incoming.read(
            job, default_timeout=self._config.default_timeout, max_timeout=self._config.max_timeout
        )
        visit.call.priority, visit.call.deadline = request.priority, request.deadline
        worker = await self.worker()
        if request.streamed:
            async with aclosing(worker.stream(request, visit.call)) as outputs:
                async for output in outputs:
                    yield output
        else:
            yield await worker.answer(request, visit.call)

    def _enter(self, job: Job) -> Visit:
        self.in_flight += 1
        return Visit.of(job)

    def _failure(self, error: Exception, visit: Visit) -> Result:
        if not isinstance(error, ServiceError):
            log.error("bug", exc_info=error, extra=fields(request_id=visit.request_id, action=visit.action))
            error = InternalError()
        status = error.status(visit.request_id)
        visit.outcome = reason_of(status)
        self._refused += visit.outcome == OverloadedError.reason
        return replies.failure(status, visit.request_id, visit.names)

    def _leave(self, visit: Visit) -> None:
        self.in_flight -= 1
        seconds = visit.end()
        if worker := self._built():
            worker.parts.metrics.answered(visit.action, visit.outcome, visit.call, seconds)
            worker.memory.job_done()

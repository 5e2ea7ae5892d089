"""The handler that the RunPod SDK calls: every job ends in a result, also when the job fails.

Owns a job's life in this process: limits, errors as results, metrics. Owns the worker too, imported and built at first
use on the running event loop, so that importing this module is quick and needs neither torch nor the SDK.
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
from runtime.extra import ExtraMissingError
from runtime.logs import fields
from runtime.settings import SettingsError
from serverless import concurrency as policy
from serverless import limits, replies
from serverless import request as incoming
from serverless.job import CANCELLED, Job
from serverless.replies import Result
from serverless.training import TrainingActions

if TYPE_CHECKING:
    from inference.config import Config as ServiceConfig
    from serverless.config import Config
    from serverless.worker import Worker

log = logging.getLogger(__name__)

# A job as the SDK passes it: `id`, `input` and the platform's own fields.
SdkJob = Mapping[str, Any]


class Handler:
    """Both kinds of SDK handler over one worker: a call returns the whole result, `stream` yields each output."""

    def __init__(self, config: "Config", service: "ServiceConfig") -> None:
        self._config = config
        self._service = service
        self._worker: Worker | None = None
        self._building: asyncio.Task[Worker] | None = None
        self._warming: asyncio.Task[None] | None = None
        self._training = TrainingActions(config)
        self._refused = 0
        self.in_flight = 0

    async def __call__(self, given: SdkJob) -> Result:
        """The whole result of a job; a streamed action's outputs become a list."""
        job = self._start(given)
        try:
            async with aclosing(self._outputs(given, job)) as found:
                outputs = [output async for output in found]
            streamed = job.request is not None and job.request.streamed
            result = replies.success(outputs if streamed else outputs[0], job.request_id)
            limits.check_output(job.job_id, result)
        except asyncio.CancelledError:
            job.outcome = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- the SDK would post a traceback; _failure logs bugs
            return self._failure(error, job)
        else:
            return result
        finally:
            self._finish(job)

    async def stream(self, given: SdkJob) -> AsyncGenerator[Result, None]:
        """The results of a job as soon as they are ready; an action that is not streamed has one result.

        An error ends the stream. Of an error result the SDK posts only the text under `error`, so that text is the
        whole error result as JSON.
        """
        job = self._start(given)
        try:
            total = 0
            async with aclosing(self._outputs(given, job)) as outputs:
                async for output in outputs:
                    result = replies.success(output, job.request_id)
                    total += limits.check_chunk(result)
                    if self._config.streaming == "aggregated":
                        limits.check_total(job.job_id, total)
                    yield result
        except (asyncio.CancelledError, GeneratorExit):
            job.outcome = CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 -- as above
            yield {"error": json.dumps(self._failure(error, job))}
        finally:
            self._finish(job)

    def concurrency(self, current: int | None) -> int:
        """The SDK's concurrency modifier. The first call starts the warm-up: the SDK's event loop runs from then on."""
        if self._config.warm_up and self._warming is None:
            self._warming = asyncio.create_task(self._warm_up())
        queued = self._worker.parts.queued_seconds() if self._worker else 0.0
        load = policy.Load(self.in_flight, queued, self._refused)
        self._refused = 0
        return policy.concurrency(
            current, load, lowest=self._config.min_concurrency, highest=self._config.max_concurrency
        )

    async def worker(self) -> "Worker":
        """The worker; concurrent callers share one build. Raises ServiceUnavailableError when a package is missing."""
        if self._worker is not None:
            return self._worker
        if self._building is None:
            self._building = asyncio.create_task(self._build())
        return await asyncio.shield(self._building)

    async def _build(self) -> "Worker":
        began = deadline.now()
        try:
            module = await asyncio.to_thread(importlib.import_module, "serverless.worker")
            worker: Worker = module.Worker(self._config, self._service)
        except ModuleNotFoundError as error:
            raise ServiceUnavailableError(
                f"this worker's image lacks the Python package {error.name!r}: install the extra `serverless`"
            ) from error
        except (SettingsError, ExtraMissingError) as error:
            raise ServiceUnavailableError(f"this worker cannot start: {error}") from error
        finally:
            self._building = None
        self._worker = worker
        log.info("worker ready", extra=fields(seconds=round(deadline.now() - began, 3), metrics=worker.metrics_address))
        return worker

    async def _warm_up(self) -> None:
        try:
            worker = await self.worker()
            await worker.parts.catalog.load_defaults()
        except ServiceUnavailableError as error:
            log.warning("warm-up failed", extra=fields(reason=error.message))

    async def _outputs(self, given: SdkJob, job: Job) -> AsyncGenerator[Any, None]:
        limits.check_input(job.job_id, given.get("input"))
        request = job.request = incoming.read(
            given, default_timeout=self._config.default_timeout, max_timeout=self._config.max_timeout
        )
        job.call.priority, job.call.deadline = request.priority, request.deadline
        if request.action in incoming.TRAINING:
            yield await self._training.answer(request)
            return
        worker = await self.worker()
        if request.streamed:
            async with aclosing(worker.stream(request, job.call)) as outputs:
                async for output in outputs:
                    yield output
        else:
            yield await worker.answer(request, job.call)

    def _start(self, given: SdkJob) -> Job:
        self.in_flight += 1
        return Job.of(given)

    def _failure(self, error: Exception, job: Job) -> Result:
        if not isinstance(error, ServiceError):
            log.error("bug", exc_info=error, extra=fields(request_id=job.request_id, action=job.action))
            error = InternalError()
        status = error.status(job.request_id)
        job.outcome = reason_of(status)
        self._refused += job.outcome == OverloadedError.reason
        return replies.failure(status, job.request_id, job.names)

    def _finish(self, job: Job) -> None:
        self.in_flight -= 1
        seconds = job.finish()
        if self._worker is not None:
            self._worker.parts.metrics.answered(job.action, job.outcome, job.call, seconds)
            self._worker.memory.job_done()

"""Watchers: tasks that read keys, key sets, certificates or models again and again, for the life of the process.

Owns the loop, and the treatment of every failure: a look that fails, hangs or has a bug is logged, counted and shown in
the metrics, and the next look follows. A watcher ends only with its task. The looks belong to the users of the result.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import NoReturn

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from runtime.logs import fields

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""A look that takes longer has failed."""


class LookError(Exception):
    """A look found an unusable source. The text names the source and the mistake for the operator."""


class Watcher:
    """Calls `look` every `interval` seconds. The result of the last good look stays in use while looks fail."""

    def __init__(
        self, name: str, look: Callable[[], Awaitable[None]], *, interval: float, timeout: float = LOOK_SECONDS
    ) -> None:
        self.name = name
        self.failures = 0
        self.failure = ""
        self._look = look
        self._interval = interval
        self._timeout = timeout

    async def run(self) -> NoReturn:
        """Look now and then at intervals, until the task is cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(self._interval)

    async def look(self) -> None:
        """Look once. Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._look()
        except (LookError, OSError, ValueError) as error:
            self._failed(str(error) or type(error).__name__, bug=False)
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise  # the end of the task, or of the process
        # A bug, logged with its trace; the next look follows. A panic of cryptography is no Exception.
        except BaseException as error:  # noqa: BLE001 -- see above
            self._failed(f"{type(error).__name__}: {error}", bug=True)
        else:
            if self.failure:
                log.info("watcher works again", extra=fields(watcher=self.name))
            self.failure = ""

    def _failed(self, failure: str, *, bug: bool) -> None:
        self.failures += 1
        # The same failure at every look is logged once.
        if failure != self.failure:
            log.error("watcher failed", exc_info=bug, extra=fields(watcher=self.name, reason=failure[:1000]))
        self.failure = failure


class WatcherCollector(Collector):
    """The metrics of a process's watchers; `service`: gateway, inference or edge."""

    def __init__(self, service: str, watchers: Sequence[Watcher]) -> None:
        self._service = service
        self._watchers = watchers

    def collect(self) -> Iterator[Metric]:
        failing = GaugeMetricFamily(
            f"market_{self._service}_watcher_failing",
            "1 while the last look at keys, key set, certificates or models failed.",
            labels=["watcher"],
        )
        failures = CounterMetricFamily(
            f"market_{self._service}_watcher_failures",
            "Failed looks at keys, key set, certificates or models.",
            labels=["watcher"],
        )
        for watcher in self._watchers:
            failing.add_metric([watcher.name], bool(watcher.failure))
            failures.add_metric([watcher.name], watcher.failures)
        yield failing
        yield failures

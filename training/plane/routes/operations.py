"""Routes of operators: health, metrics, and the page in the browser."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from anyio import CapacityLimiter, Lock, to_thread
from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from training.plane import health, metrics
from training.plane.services import Services

T = TypeVar("T")
_PAGE = Path(__file__).parents[1] / "page.html"
# The page is one file: it loads nothing, and sends to this plane alone.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


_SECONDS = 1.0


class _Recent(Generic[T]):
    """A value made at most once a second: these routes ask for no credential, and must cost the store little.

    In a thread of its own, since the time follows the rows of the store.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock, self._thread = Lock(), CapacityLimiter(1)
        self._made: tuple[float, T] | None = None

    async def value(self) -> T:
        """The value of the last second, or a new one. Raises as `make` does."""
        async with self._lock:
            if self._made is None or time.monotonic() - self._made[0] > _SECONDS:
                made = await to_thread.run_sync(self._make, limiter=self._thread)
                self._made = (time.monotonic(), made)
            return self._made[1]


def router(services: Services) -> APIRouter:
    """The routes at /."""
    routes = APIRouter(tags=["operations"])
    shown = _PAGE.read_text(encoding="utf-8")
    looked = _Recent(lambda: health.look(services))
    text = _Recent(lambda: metrics.exposition(services.store, services.clock.now(), _disk()))

    def _disk() -> dict[str, float]:
        try:
            free = shutil.disk_usage(services.config.root).free
        except OSError:  # the figures of the store are told without the disk
            return {}
        return {"free": free, "reserve": services.config.min_free_bytes}

    @routes.get("/health")
    async def look(response: Response) -> dict[str, Any]:
        """Whether the store and the objects can be written and read; 503 if not."""
        found = await looked.value()
        response.status_code = 200 if found["status"] == "healthy" else 503
        return found

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def scrape() -> Response:
        """Prometheus' text format. Every worker answers the same figures: these come from the store."""
        return PlainTextResponse(await text.value(), media_type=metrics.MEDIA_TYPE)

    @routes.get("/", response_class=HTMLResponse)
    async def page() -> Response:
        """Jobs and datasets in the browser; the page asks for an API key."""
        headers = {"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(shown, headers=headers)

    return routes

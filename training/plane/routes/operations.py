"""Routes of operators: health, metrics, and the page in the browser."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import HTMLResponse, PlainTextResponse

from training.plane import health, metrics
from training.plane.services import Services

_PAGE = Path(__file__).parents[1] / "page.html"
# The page is one file: it loads nothing, and sends to this plane alone.
_PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def router(services: Services) -> APIRouter:
    """The routes at /."""
    routes = APIRouter(tags=["operations"])

    @routes.get("/health")
    def look(response: Response) -> dict[str, Any]:
        """Whether the store and the objects can be written and read; 503 if not."""
        found = health.look(services)
        response.status_code = 200 if found["status"] == "healthy" else 503
        return found

    @routes.get("/metrics", response_class=PlainTextResponse)
    def scrape() -> Response:
        """Prometheus' text format. Every worker answers the same figures: these come from the store."""
        return PlainTextResponse(
            metrics.exposition(services.store, services.clock.now()), media_type=metrics.MEDIA_TYPE
        )

    @routes.get("/", response_class=HTMLResponse)
    def page() -> Response:
        """Jobs and datasets in the browser; the page asks for an API key."""
        headers = {"Content-Security-Policy": _PAGE_POLICY, "X-Content-Type-Options": "nosniff"}
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=headers)

    return routes

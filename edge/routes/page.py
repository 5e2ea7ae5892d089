"""The page at / and the reference at /docs: static files of edge/page, without a build step and without other sites."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import Response

from edge.errors import NoRouteError

_FOLDER: Final = Path(__file__).resolve().parents[1] / "page"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def router() -> APIRouter:
    """The routes. The files are read once."""
    made = APIRouter(include_in_schema=False)
    files = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if file.suffix in _TYPES}

    @made.get("/page/{name}")
    async def static(name: str) -> Response:
        if name not in files:
            raise NoRouteError("no such file")
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers={"Cache-Control": "no-cache"})

    @made.get("/")
    async def page() -> Response:
        return await static("index.html")

    @made.get("/docs")
    async def docs() -> Response:
        return await static("docs.html")

    return made

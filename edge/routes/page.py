"""The page at / and the reference at /docs: static files of edge/page, without a build step and without other sites."""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from edge.errors import NoRouteError

_FOLDER: Final = Path(__file__).resolve().parents[1] / "page"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def router() -> APIRouter:
    """The routes. The files are read once."""
    made = APIRouter(include_in_schema=False)
    files = {file.name: file.read_bytes() for file in _FOLDER.iterdir() if file.suffix in _TYPES}

    async def static(request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in files:
            raise NoRouteError("no such file")
        return _file(name, files[name])

    async def page(_: Request) -> Response:
        return _file("index.html", files["index.html"])

    async def docs(_: Request) -> Response:
        return _file("docs.html", files["docs.html"])

    made.add_api_route("/", page, methods=["GET"])
    made.add_api_route("/docs", docs, methods=["GET"])
    made.add_api_route("/page/{name}", static, methods=["GET"])
    return made


def _file(name: str, content: bytes) -> Response:
    return Response(content, media_type=_TYPES[Path(name).suffix], headers={"Cache-Control": "no-cache"})

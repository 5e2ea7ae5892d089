"""Common parts of the routes: callers, and the forms of names and digests."""

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.access.auth import Client
from training.plane import caller, identifier, problem, rates
from training.plane.errors import InvalidRequestError, TooLargeError
from training.plane.services import Services
from training.plane.slow import machines_of
from training.plane.token import Holder
from training.recipes import recipe as recipes

Id = Annotated[str, StringConstraints(pattern=f"^{identifier.PATTERN}$")]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$")]
ShownName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
PageSize = Annotated[int, Field(ge=1, le=500)]


class Body(BaseModel):
    """A request's JSON body; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def quick_routes(services: Services, prefix: str, tag: str) -> APIRouter:
    """A router: quick threads run its functions, other than the asynchronous ones."""

    class Route(APIRoute):
        def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
            called = endpoint if inspect.iscoroutinefunction(endpoint) else services.quick.route()(endpoint)
            super().__init__(path, called, **given)

    return APIRouter(prefix=prefix, tags=[tag], route_class=Route)


class Callers:
    """FastAPI dependencies for the caller of a route."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def user(self, request: Request) -> Client:
        """A caller with the scope training:run."""
        return self._client(request, caller.RUN)

    async def promoter(self, request: Request) -> Client:
        """A caller with the scope training:promote."""
        return self._client(request, caller.PROMOTE)

    async def treasurer(self, request: Request) -> Client:
        """A caller with the scope training:budget."""
        return self._client(request, caller.BUDGET)

    async def pod(self, request: Request) -> Holder:
        """The attempt that a job token speaks for, of the job in the path where the path names one.

        Raises TokenRefusedError, OverloadedError.
        """
        job, now = request.path_params.get("job", ""), self._services.clock.now()
        look = functools.partial(caller.pod, self._services.store, request.headers, job, now)
        found = await self._services.quick.run(machines_of(request.state.client), look)
        request.state.owner = found.owner
        self._services.rates.spend(f"{found.job} {found.attempt}", rates.MACHINE)
        return found

    def _client(self, request: Request, scope: str) -> Client:
        found = caller.client(self._services.authenticator, request.headers, scope)
        request.state.owner = found.name  # guard.py counts the bytes of answers by owner
        return found


def shown(row: Any, *names: str) -> dict[str, Any]:
    """The named columns of a row, without those that are empty."""
    return {name: row[name] for name in names if row[name] not in (None, "")}


def shown_usd(usd: float) -> float:
    """USD as JSON, to the millionth: a second of the cheapest machine is visible."""
    return round(usd, 6)


def read_recipe(text: bytes) -> recipes.AnyRecipe:
    """The recipe in a request's body. Raises TooLargeError, InvalidRequestError."""
    if len(text) > recipes.MOST_BYTES:
        raise TooLargeError.over("recipe", recipes.MOST_BYTES, len(text))
    try:
        return recipes.parse(text)
    except recipes.RecipeError as error:
        mistakes = [{**one, "loc": ("recipe", *one["loc"])} for one in error.mistakes]
        raise InvalidRequestError(f"the recipe is not valid: {error}"[:500], *problem.violations(mistakes)) from None

"""Routes of money: the expected cost of a job, and the budgets of owners."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from sqlalchemy import RowMapping

from gateway.access.auth import Client
from training.plane import budget, dataset, jobs, preflight
from training.plane.caller import BUDGET
from training.plane.preflight import Question, Report
from training.plane.routes.parts import Body, Callers, Id, quick_routes, read_recipe, shown_usd
from training.plane.schema import MOST_OWNER_CHARACTERS
from training.plane.services import Services
from training.recipes.recipe import AnyRecipe

MOST_USD = 10_000_000.0
Owner = Annotated[str, Path(min_length=1, max_length=MOST_OWNER_CHARACTERS)]


class Limit(Body):
    """An owner's budget of a month; null for the default."""

    usd_per_month: float | None = Field(ge=0, le=MOST_USD)


def router(services: Services) -> APIRouter:
    """The routes under /api/training."""
    routes = quick_routes(services, "/api/training", "money")
    callers = Callers(services)
    User = Annotated[Client, Depends(callers.user)]  # noqa: N806 -- a type
    Treasurer = Annotated[Client, Depends(callers.treasurer)]  # noqa: N806 -- a type

    @routes.post("/estimate")
    async def estimate(request: Request, user: User, data: Annotated[Id, Query(alias="dataset")]) -> dict[str, Any]:
        """The checks of a job, and the cost on each offer, expected and at most. Makes no job."""
        text = await request.body()
        return await services.slow.run(user.name, lambda: _estimate(user.name, text, data))

    def _estimate(owner: str, text: bytes, data: str) -> dict[str, Any]:
        asked = read_recipe(text)
        with services.store.read() as connection:
            found = dataset.get(connection, owner, data, dataset.LABELS)
        return shown_report(check(services, owner, asked, found))

    @routes.get("/budget")
    def account(user: User) -> dict[str, Any]:
        """The caller's month: limit, reserved, charged, left."""
        return _account(user.name)

    @routes.get("/budgets")
    def accounts(user: User) -> dict[str, Any]:
        """The month of the caller; with the scope training:budget, of every owner with costs or a limit."""
        with services.store.read() as connection:
            others = budget.owners(connection, services.clock.now()) if BUDGET in user.scopes else []
        return {"budgets": [_account(owner) for owner in sorted({user.name, *others})]}

    @routes.put("/budgets/{owner:path}")  # a subject of a token may have slashes
    def limit(owner: Owner, sent: Limit, user: Treasurer) -> dict[str, Any]:
        """Give an owner a budget of a month. Needs the scope training:budget."""
        with services.store.begin() as connection:
            budget.set_limit(connection, owner, sent.usd_per_month)
        return _account(owner)

    def _account(owner: str) -> dict[str, Any]:
        with services.store.read() as connection:
            found = budget.account(connection, owner, services.clock.now(), services.config.budget_usd)
        amounts = {name: shown_usd(getattr(found, name)) for name in ("limit", "reserved", "charged", "left")}
        return {"owner": owner, "period": found.period, **{f"{name}_usd": usd for name, usd in amounts.items()}}

    return routes


def check(services: Services, owner: str, asked: AnyRecipe, found: RowMapping) -> Report:
    """The pre-flight of a job on the default launcher, on a dataset with its labels. Raises UnavailableError."""
    name = services.machines.default
    wanted = jobs.wanted(asked.machine.model_dump())
    question = Question(owner, asked, wanted, found["rows"] or 0, name, found["labels"] or ())
    launcher = services.machines.launcher(name)
    return preflight.run(services.config, services.store, launcher, question, services.clock.now())


def shown_report(report: Report) -> dict[str, Any]:
    """The report as JSON."""
    checks = [{"field": one.field, "passed": one.passed, "text": one.text} for one in report.checks]
    offers = [
        {
            "offer": one.kind,
            "usd_per_hour": one.usd_per_hour,
            "seconds_expected": round(one.seconds_expected),
            "usd_expected": shown_usd(one.usd_expected),
            "seconds_most": round(one.seconds_most),
            "usd_most": shown_usd(one.usd_most),
            "basis": one.basis,
        }
        for one in report.estimates
    ]
    return {"valid": report.passed, "checks": checks, "offers": offers}

"""The expected and the largest cost of a job, for each offer of a machine.

Owns the measured run times of earlier jobs, and the guess without a measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, select

from training.plane import terms
from training.plane.job import JobState
from training.plane.launcher import Offer
from training.plane.schema import attempts, datasets, jobs
from training.plane.step import START_SECONDS
from training.recipes.recipe import AnyRecipe

_JOBS_MEASURED: Final = 20
# Without a measurement: the image's pull, and so many seconds for each row and epoch.
GUESS_START_SECONDS: Final = 180.0
GUESS_SECONDS_PER_ROW: Final = 0.02


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds and USD of one job on one offer. `basis`: `measured` by earlier jobs of the kind, or a `guess`."""

    kind: str
    usd_per_hour: float
    seconds_expected: float
    usd_expected: float
    seconds_most: float
    usd_most: float
    basis: Literal["measured", "guess"]


def table(
    connection: Connection, launcher: str, offers: Sequence[Offer], recipe: AnyRecipe, rows: int
) -> list[Estimate]:
    """An estimate for each offer, in the order of the offers; `rows`: of the dataset."""
    return [_estimate(connection, launcher, offer, recipe, rows) for offer in offers]


def _estimate(connection: Connection, launcher: str, offer: Offer, recipe: AnyRecipe, rows: int) -> Estimate:
    most = START_SECONDS + recipe.max_seconds
    if recipe.max_usd is not None and offer.usd_per_hour > 0:
        most = min(most, recipe.max_usd / offer.usd_per_hour * 3600.0)
    per_row = _measured(connection, launcher, offer.kind, recipe.kind)
    basis: Literal["measured", "guess"] = "guess" if per_row is None else "measured"
    if per_row is None:
        expected = GUESS_START_SECONDS + rows * getattr(recipe, "epochs", 1) * GUESS_SECONDS_PER_ROW
    else:
        expected = rows * per_row
    expected = min(most, expected)
    usd, usd_most = (terms.cost(offer.usd_per_hour, seconds) for seconds in (expected, most))
    return Estimate(offer.kind, offer.usd_per_hour, expected, usd, most, usd_most, basis)


def _measured(connection: Connection, launcher: str, offer: str, recipe: str) -> float | None:
    """Seconds of a machine for each row, over the newest successful jobs of this recipe on such a machine."""
    joined = attempts.join(jobs, attempts.c.job == jobs.c.id).join(datasets, jobs.c.dataset == datasets.c.id)
    found = select(attempts.c.gone_at - attempts.c.created_at, datasets.c.rows).select_from(joined)
    alike = (
        jobs.c.kind == recipe,
        jobs.c.state == JobState.SUCCEEDED,
        attempts.c.n == jobs.c.attempt,
        attempts.c.launcher == launcher,
        attempts.c.offer == offer,
        attempts.c.gone_at.is_not(None),
        attempts.c.created_at.is_not(None),
        datasets.c.rows > 0,
    )
    rows = connection.execute(found.where(*alike).order_by(jobs.c.id.desc()).limit(_JOBS_MEASURED)).all()
    return sum(row[0] for row in rows) / sum(row[1] for row in rows) if rows else None

"""The gate at work: a worker claims a version, and judges the version on the rows or origins held back.

Owns the way from rows to arrays: answers of the candidate from evaluation.csv, labels and closes from the dataset,
answers of the champion through the gateway. The rules are those of gate/verdict.py. No machine passes itself: a machine
chooses neither rows nor outcomes nor quantile levels, and computes no measure of the verdict.
"""

import hashlib
import logging
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from sqlalchemy import Row, RowMapping, select

from runtime.logs import fields
from training.plane import database, dataset, versions
from training.plane.champion import Champion, ChampionAwayError
from training.plane.checks import report as checks
from training.plane.checks import rows
from training.plane.claims import Bound, Claims
from training.plane.clock import Clock
from training.plane.database import Database, Lease
from training.plane.gate import baselines, verdict
from training.plane.gate.statistics import Floats
from training.plane.gate.verdict import Report, Verdict
from training.plane.model_tables import versions as table
from training.plane.objects import ObjectMissingError, Objects, at_most
from training.plane.schema import datasets, jobs
from training.recipes import bars, evaluation, origins, split, texts
from training.recipes import recipe as recipes
from training.recipes.evaluation import EvaluationError
from training.recipes.recipe import Classifier, Sentiment
from training.recipes.run import DataRefusedError

log = logging.getLogger(__name__)

MOST_TRIES: Final = 5
"""Tries of a verdict that may end without one: some end with their worker, at a restart."""
MOST_JUDGED: Final = 20_000
"""Rows or origins that a verdict is made of; of more that are held back, a draw."""
_SEED = 1
_RENEW_SECONDS = 5.0
LABELS = ("negative", "neutral", "positive")


class Gatekeeper:
    """Judges versions in a worker. `most_looks` bounds the versions that are judged on the same rows."""

    def __init__(
        self, store: Database, objects: Objects, champion: Champion | None, most_looks: int, worker: str, clock: Clock
    ) -> None:
        self._store = store
        self._objects = objects
        self._champion = champion
        self._most_looks = most_looks
        self._clock = clock
        self._claims = Claims(store, table, worker, clock, by_owner=True, bound=Bound(MOST_TRIES, self._give_up))

    def turn(self) -> bool:
        """Judge the next version that is due; False without one."""
        return self._claims.turn(self._work)

    def _work(self, row: Row[Any], lease: Lease) -> None:
        report = self._judge(row._mapping, lease)
        with self._store.begin() as connection:
            versions.judged(connection, lease, report, self._clock.now())
        log.info("version judged", extra=fields(model=row.name, version=row.label, verdict=str(report.verdict)))

    def _give_up(self, row: Row[Any], lease: Lease, why: str) -> None:
        with self._store.begin() as connection:
            versions.given_up(connection, lease, why, self._clock.now())

    def _judge(self, version: RowMapping, lease: Lease) -> Report:
        if self._champion is None:
            return verdict.undecided("MARKET_TRAINING_GATEWAY names no gateway to ask for the champion's answers")
        with self._store.read() as connection:
            job = connection.execute(select(jobs).where(jobs.c.id == version["job"])).mappings().one()
            found = select(*dataset.PLAIN).where(datasets.c.id == version["dataset"])
            data = connection.execute(found).mappings().first()
        if data is None or data["state"] != "ready":
            return verdict.undecided("the dataset is deleted, and with it what was held back")
        if evaluation.NAME not in version["files"]:
            return verdict.undecided(f"the job has made no {evaluation.NAME}")
        recipe = recipes.of(job["recipe"])
        given = _Given(self._objects, data, version["files"][evaluation.NAME], self._renew(lease))
        try:
            if isinstance(recipe, Sentiment | Classifier):
                return self._judge_texts(version, recipe, given, self._champion)
            return self._judge_bands(version, recipe, given, self._champion)
        except (EvaluationError, DataRefusedError) as error:
            return Report(Verdict.REJECTED, [str(error)])
        except (ChampionAwayError, ObjectMissingError) as error:
            return verdict.undecided(str(error))

    def _judge_texts(
        self, version: RowMapping, recipe: Sentiment | Classifier, given: "_Given", champion: Champion
    ) -> Report:
        if too_many := given.too_many(rows.MOST_TEXTS):
            return too_many
        columns = texts.columns(given.data(), len(LABELS), recipe.seed)
        divided = split.parts(columns, recipe.split, range(texts.FIRST_ROW, len(columns.labels) + texts.FIRST_ROW))
        if not len(divided.gate):
            return verdict.undecided("the recipe holds nothing back: split.gate is 0")
        kept = _sample(len(divided.gate))
        held = divided.gate[kept]
        labels = columns.labels[held].astype(np.int64)
        candidate = evaluation.read_texts(given.answers(), divided.gate + texts.FIRST_ROW, len(LABELS), kept)
        if isinstance(recipe, Classifier):
            order = _label_order(recipe.labels)
            candidate = candidate[:, order]
            labels = np.argsort(order)[labels]
        looks = self._look(version, [str(row) for row in (held + texts.FIRST_ROW).tolist()])
        if looks is None:
            return self._used_up()
        places = np.argsort(held)
        picked = dict(zip(places.tolist(), texts.picked(given.data(), held[places].tolist()), strict=True))
        asked = [picked[place] for place in range(len(held))]
        name, rival = champion.texts(version["name"], asked, given.alive)
        trained = columns.labels[divided.train].astype(np.int64)
        baseline = baselines.label_shares(trained, len(LABELS), len(held))
        report = verdict.of_texts(candidate, rival, baseline, labels, looks=looks, names=LABELS)
        report.figures["held_back"] = len(divided.gate)
        return self._with_champion(version, report, name)

    def _judge_bands(self, version: RowMapping, recipe: Any, given: "_Given", champion: Champion) -> Report:
        if too_many := given.too_many(rows.MOST_BARS):
            return too_many
        closes = dict(sorted(bars.closes(given.data()).items()))
        ends = {symbol: origins.held_back(recipe, len(values)) for symbol, values in closes.items()}
        held_back = sum(map(len, ends.values()))
        if not held_back:
            return verdict.undecided("the recipe holds nothing back")
        levels = tuple(sorted(set(recipe.levels)))
        if missing := [level for level in verdict.COVERED if level not in levels]:
            return verdict.undecided(f"the gate needs the quantile {missing[0]:g}, the recipe's levels lack it")
        kept = _sample(held_back)
        held = _at(ends, kept)
        candidate = evaluation.read_bands(given.answers(), ends, levels, kept)
        looks = self._look(version, [f"{symbol} {end}" for symbol, end in held])
        if looks is None:
            return self._used_up()
        # Symbols are aligned at their newest bars.
        times = np.array([end - len(closes[symbol]) for symbol, end in held])
        together: dict[int, list[tuple[str, int]]] = defaultdict(list)
        for one, moment in zip(held, times.tolist(), strict=True):
            together[moment].append(one)
        asked = [together[moment] for moment in sorted(together)]
        contexts = [{symbol: closes[symbol][:end] for symbol, end in at_once} for at_once in asked]
        name, found = champion.bands(version["name"], contexts, recipe.horizon, levels, given.alive)
        champion_of: dict[tuple[str, int], Floats] = {}
        for at_once, bands in zip(asked, found, strict=True):
            champion_of |= {(symbol, end): bands[symbol] for symbol, end in at_once}
        report = verdict.of_bands(
            candidate,
            np.array([champion_of[one] for one in held]),
            baselines.random_walk(closes, held, recipe.horizon, np.array(levels)),
            np.array([closes[symbol][end - 1 + recipe.horizon] for symbol, end in held]),
            np.array([closes[symbol][end - 1] for symbol, end in held]),
            levels,
            times,
            looks=looks,
        )
        report.figures["held_back"] = held_back
        return self._with_champion(version, report, name)

    def _with_champion(self, version: RowMapping, report: Report, answered: str) -> Report:
        """The report with the model that answered, which must be the champion where the history has one."""
        with self._store.read() as connection:
            champion = versions.model(connection, version["owner"], version["name"])["champion"]
        if champion and answered != f"{version['name']} {champion}":
            return verdict.undecided(f"the champion is {champion}, and {answered} answered")
        report.figures["champion"] = answered
        return report

    def _look(self, version: RowMapping, judged: Sequence[str]) -> int | None:
        content = "\n".join([version["dataset_sha256"], *sorted(judged)])
        holdout = hashlib.sha256(content.encode()).hexdigest()
        with self._store.begin() as connection:
            return versions.look(connection, holdout, version["id"], self._clock.now(), self._most_looks)

    def _used_up(self) -> Report:
        return verdict.undecided(f"{self._most_looks} versions were judged on these rows: bring newer data")

    def _renew(self, lease: Lease) -> Callable[[], None]:
        """Called often; the lease is renewed now and then."""
        newest = time.monotonic()

        def renew() -> None:
            nonlocal newest
            if time.monotonic() - newest > _RENEW_SECONDS:
                with self._store.begin() as connection:
                    database.write(connection, lease, self._clock.now(), {})
                newest = time.monotonic()

        return renew


class _Given:
    """The dataset's file and the machine's answers, read in bounded memory: no file is written or held."""

    def __init__(
        self, objects: Objects, data: RowMapping, answers: Mapping[str, Any], alive: Callable[[], None]
    ) -> None:
        self._objects = objects
        self._data = data
        self._answers = answers
        self.alive = alive

    def too_many(self, most: int) -> Report | None:
        """The verdict on a dataset that was checked before the checks had this limit."""
        if (self._data["rows"] or 0) <= most:
            return None
        return verdict.undecided(f"the dataset has {self._data['rows']} rows, the gate reads at most {most}")

    def data(self) -> Iterator[str]:
        """The lines of the dataset. Raises as _lines()."""
        return self._lines(self._data, "the dataset")

    def answers(self) -> Iterator[str]:
        """The lines of evaluation.csv. Raises as _lines()."""
        return self._lines(self._answers, evaluation.NAME)

    def _lines(self, stored: Mapping[Any, Any], name: str) -> Iterator[str]:
        """Raises ObjectMissingError, EvaluationError for other bytes than were declared, and for no text."""
        report = checks.Report()
        try:
            yield from rows.lines(self._chunks(stored, name), report)
        except rows.UnreadableError:
            raise EvaluationError(f"{name}: {report.reason}") from None

    def _chunks(self, stored: Mapping[Any, Any], name: str) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for chunk in at_most(self._objects.read(stored["key"]), stored["bytes"]):
            digest.update(chunk)
            self.alive()
            yield chunk
        if digest.hexdigest() != stored["sha256"]:
            raise EvaluationError(f"{name}: the stored bytes have another SHA-256")


def _sample(count: int) -> npt.NDArray[np.int64]:
    """The places that are judged, of so many: all, or a draw that is the same each time. The places increase."""
    if count <= MOST_JUDGED:
        return np.arange(count)
    return np.array(sorted(random.Random(_SEED).sample(range(count), MOST_JUDGED)))  # noqa: S311 -- no secrecy


def _at(ends: Mapping[str, npt.NDArray[np.int64]], places: npt.NDArray[np.int64]) -> list[tuple[str, int]]:
    """The origins at these places, counted over all symbols in their order."""
    symbols = list(ends)
    starts = np.cumsum([0, *map(len, ends.values())])
    found = np.searchsorted(starts, places, "right") - 1
    return [
        (symbols[at], int(ends[symbols[at]][place - starts[at]]))
        for at, place in zip(found.tolist(), places.tolist(), strict=True)
    ]


def _label_order(labels: Sequence[str]) -> list[int]:
    """The recipe's labels in the order of LABELS. Raises EvaluationError for other names."""
    plain = [label.strip().lower() for label in labels]
    if sorted(plain) != sorted(LABELS):
        raise EvaluationError(f"the gate judges the labels {', '.join(LABELS)}, the recipe has {', '.join(labels)}")
    return [plain.index(name) for name in LABELS]

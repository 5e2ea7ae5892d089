"""The gate at work: a worker claims a version, and judges the version on the rows or origins held back.

Owns the way from rows to arrays: answers of the candidate from evaluation.csv, labels and closes from the dataset,
answers of the champion through the gateway. The rules are those of gate/verdict.py. No machine passes itself: a machine
chooses neither rows nor outcomes nor quantile levels, and computes no measure of the verdict.
"""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Row, RowMapping, select

from runtime.logs import fields
from training.plane import database, versions
from training.plane.champion import Champion, ChampionAwayError
from training.plane.claims import Claims
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
        self._claims = Claims(store, table, worker, clock, by_owner=True)

    def turn(self) -> bool:
        """Judge the next version that is due; False without one."""
        return self._claims.turn(self._work)

    def _work(self, row: Row[Any], lease: Lease) -> None:
        report = self._judge(row._mapping, lease)
        with self._store.begin() as connection:
            versions.judged(connection, lease, report, self._clock.now())
        log.info("version judged", extra=fields(model=row.name, version=row.label, verdict=str(report.verdict)))

    def _judge(self, version: RowMapping, lease: Lease) -> Report:
        if self._champion is None:
            return verdict.undecided("MARKET_TRAINING_GATEWAY names no gateway to ask for the champion's answers")
        with self._store.read() as connection:
            job = connection.execute(select(jobs).where(jobs.c.id == version["job"])).mappings().one()
            found = select(datasets).where(datasets.c.id == version["dataset"])
            data = connection.execute(found).mappings().first()
        if data is None or data["state"] != "ready":
            return verdict.undecided("the dataset is deleted, and with it what was held back")
        if evaluation.NAME not in version["files"]:
            return verdict.undecided(f"the job has made no {evaluation.NAME}")
        recipe = recipes.of(job["recipe"])
        try:
            with tempfile.TemporaryDirectory(prefix="gate-") as folder:
                content, answers = Path(folder) / "data.csv", Path(folder) / evaluation.NAME
                self._fetch(data, content, lease)
                self._fetch(version["files"][evaluation.NAME], answers, lease)
                if isinstance(recipe, Sentiment | Classifier):
                    return self._judge_texts(version, recipe, content, answers, lease)
                return self._judge_bands(version, recipe, content, answers, lease)
        except (EvaluationError, DataRefusedError) as error:
            return Report(Verdict.REJECTED, [str(error)])
        except (ChampionAwayError, ObjectMissingError) as error:
            return verdict.undecided(str(error))

    def _judge_texts(
        self, version: RowMapping, recipe: Sentiment | Classifier, data: Path, answers: Path, lease: Lease
    ) -> Report:
        divided = split.divide(texts.read(data, len(LABELS)), recipe.split, recipe.seed)
        if not divided.gate:
            return verdict.undecided("the recipe holds nothing back: split.gate is 0")
        held = divided.gate
        labels = np.array([row.label for row in held])
        candidate = evaluation.read_texts(answers, [row.row for row in held], len(LABELS))
        if isinstance(recipe, Classifier):
            candidate = candidate[:, _label_order(recipe.labels)]
            labels = np.array([_place(recipe.labels, row.label) for row in held])
        looks = self._look(version, [str(row.row) for row in held])
        if looks is None:
            return self._used_up()
        assert self._champion is not None  # noqa: S101 -- narrows the type
        name, champion = self._champion.texts(version["name"], [row.text for row in held], self._renew(lease))
        trained = np.array([row.label for row in divided.train])
        baseline = baselines.label_shares(trained, len(LABELS), len(held))
        report = verdict.of_texts(candidate, champion, baseline, labels, looks=looks, names=LABELS)
        return self._with_champion(version, report, name)

    def _judge_bands(self, version: RowMapping, recipe: Any, data: Path, answers: Path, lease: Lease) -> Report:
        closes = bars.read(data)
        held = [(symbol, int(end)) for symbol, c in sorted(closes.items()) for end in origins.held_back(recipe, len(c))]
        if not held:
            return verdict.undecided("the recipe holds nothing back")
        levels = tuple(sorted(set(recipe.levels)))
        if missing := [level for level in verdict.COVERED if level not in levels]:
            return verdict.undecided(f"the gate needs the quantile {missing[0]:g}, the recipe's levels lack it")
        candidate = evaluation.read_bands(answers, held, levels)
        looks = self._look(version, [f"{symbol} {end}" for symbol, end in held])
        if looks is None:
            return self._used_up()
        # Symbols are aligned at their newest bars.
        times = np.array([end - len(closes[symbol]) for symbol, end in held])
        champion_of: dict[tuple[str, int], Floats] = {}
        moments = np.unique(times)
        asked = [[one for one, time in zip(held, times, strict=True) if time == moment] for moment in moments]
        contexts = [{symbol: closes[symbol][:end] for symbol, end in together} for together in asked]
        assert self._champion is not None  # noqa: S101 -- narrows the type
        name, found = self._champion.bands(version["name"], contexts, recipe.horizon, levels, self._renew(lease))
        for together, bands in zip(asked, found, strict=True):
            champion_of |= {(symbol, end): bands[symbol] for symbol, end in together}
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
        return self._with_champion(version, report, name)

    def _with_champion(self, version: RowMapping, report: Report, answered: str) -> Report:
        """The report with the model that answered, which must be the champion where the history has one."""
        with self._store.read() as connection:
            champion = versions.model(connection, version["owner"], version["name"])["champion"]
        if champion and answered != f"{version['name']} {champion}":
            return verdict.undecided(f"the champion is {champion}, and {answered} answered")
        report.figures["champion"] = answered
        return report

    def _fetch(self, stored: Mapping[Any, Any], path: Path, lease: Lease) -> None:
        """Raises ObjectMissingError, EvaluationError for other bytes than those that were declared."""
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in at_most(self._objects.read(stored["key"]), stored["bytes"]):
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != stored["sha256"]:
            raise EvaluationError(f"{path.name}: the stored bytes have another SHA-256")
        self._renew(lease)()

    def _look(self, version: RowMapping, rows: Sequence[str]) -> int | None:
        content = "\n".join([version["dataset_sha256"], *sorted(rows)])
        holdout = hashlib.sha256(content.encode()).hexdigest()
        with self._store.begin() as connection:
            return versions.look(connection, holdout, version["id"], self._clock.now(), self._most_looks)

    def _used_up(self) -> Report:
        return verdict.undecided(f"{self._most_looks} versions were judged on these rows: bring newer data")

    def _renew(self, lease: Lease) -> Callable[[], None]:
        def renew() -> None:
            with self._store.begin() as connection:
                database.write(connection, lease, self._clock.now(), {})

        return renew


def _label_order(labels: Sequence[str]) -> list[int]:
    """The recipe's labels in the order of LABELS. Raises EvaluationError for other names."""
    return [_index(labels, name) for name in LABELS]


def _place(labels: Sequence[str], label: int) -> int:
    return LABELS.index(labels[label].strip().lower())


def _index(labels: Sequence[str], name: str) -> int:
    plain = [label.strip().lower() for label in labels]
    if sorted(plain) != sorted(LABELS):
        raise EvaluationError(f"the gate judges the labels {', '.join(LABELS)}, the recipe has {', '.join(labels)}")
    return plain.index(name)

"""The gate on a real store: the plane chooses the rows and the outcomes, so that no machine passes itself."""

import itertools
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sqlalchemy import RowMapping, select, update

from tests.training.plane.conftest import NOW, OWNER
from tests.training.plane.models import Champion, add_version_job, evaluation, folder_objects, texts_csv
from training.plane import database, gatekeeper, metrics, versions
from training.plane.checks.rows import MOST_TEXTS
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.errors import ConflictError, NotFoundError
from training.plane.folder import FolderObjects
from training.plane.gatekeeper import Gatekeeper
from training.plane.model_tables import versions as table
from training.plane.objects import CHUNK_BYTES
from training.plane.schema import datasets, jobs
from training.recipes import split, texts
from training.recipes.recipe import Split

RECIPE = {"kind": "sentiment", "split": {"gate": 0.2}}


@pytest.fixture
def objects(store: Database, tmp_path: Path):
    return folder_objects(store, tmp_path)


def held(folder: Path, data: bytes) -> list[texts.Text]:
    (folder / "held.csv").write_bytes(data)
    return split.divide(texts.read(folder / "held.csv", 3), Split(gate=0.2), 1).gate


def sure(label: int, share: float = 0.98) -> list[float]:
    return [share if place == label else (1 - share) / 2 for place in range(3)]


def registered(store: Database, objects: object, job: str, name: str = "desk") -> RowMapping:
    with store.read() as connection:
        row = connection.execute(select(jobs).where(jobs.c.id == job)).mappings().one()
        manifest, files = versions.manifest_of(connection, objects, row)
    with store.begin() as connection:
        return versions.register(connection, name, row, manifest, files, NOW)


def judged(store: Database, objects: object, version: RowMapping, champion: object, most: int = 20) -> RowMapping:
    assert Gatekeeper(store, objects, champion, most, "w", Clock()).turn()
    with store.read() as connection:
        return connection.execute(select(table).where(table.c.id == version["id"])).mappings().one()


def test_a_version_is_judged_on_the_datasets_labels_and_passes(
    store: Database, objects: object, tmp_path: Path
) -> None:
    data = texts_csv()
    rows = held(tmp_path, data)
    job = add_version_job(
        store, objects, RECIPE, data,
        {"w": b"weights", "evaluation.csv": evaluation([row.row for row in rows], lambda row: sure((row - 2) % 3))},
    )  # fmt: skip
    version = registered(store, objects, job)
    assert version["label"].startswith("1-")
    champion = Champion()
    found = judged(store, objects, version, champion)
    assert found["state"] == "passed", found["report"]
    assert champion.asked == [row.text for row in rows]
    assert found["report"]["champion"] == "minilm 1"
    assert found["report"]["looks_before"] == 0
    assert registered(store, objects, job)["id"] == version["id"]


def test_labels_that_a_machine_makes_up_do_not_count(store: Database, objects: object, tmp_path: Path) -> None:
    """A machine that is sure of wrong labels is judged by the right ones."""
    data = texts_csv()
    rows = held(tmp_path, data)
    wrong = evaluation([row.row for row in rows], lambda row: sure((row - 1) % 3, 0.99))
    job = add_version_job(store, objects, RECIPE, data, {"w": b"weights", "evaluation.csv": wrong})
    found = judged(store, objects, registered(store, objects, job), Champion())
    assert found["state"] == "rejected"
    assert "NLL: worse than the champion" in found["report"]["reasons"]


def test_rows_that_a_machine_chooses_are_refused(store: Database, objects: object, tmp_path: Path) -> None:
    data = texts_csv()
    rows = held(tmp_path, data)[:-1]
    easy = evaluation([row.row for row in rows], lambda row: sure((row - 2) % 3))
    job = add_version_job(store, objects, RECIPE, data, {"w": b"weights", "evaluation.csv": easy})
    found = judged(store, objects, registered(store, objects, job), Champion())
    assert found["state"] == "rejected"
    assert "40 rows were held back, 39 are answered" in found["report"]["reasons"][0]


def test_looks_at_one_holdout_are_counted_and_end(store: Database, objects: object, tmp_path: Path) -> None:
    data = texts_csv()
    rows = held(tmp_path, data)
    good = evaluation([row.row for row in rows], lambda row: sure((row - 2) % 3))
    alphas = []
    for number in range(3):
        files = {"w": b"weights %d" % number, "evaluation.csv": good}
        version = registered(store, objects, add_version_job(store, objects, RECIPE, data, files))
        found = judged(store, objects, version, Champion(), most=2)
        alphas.append(found["report"].get("alpha"))
    assert alphas == [0.05, 0.025, None]
    assert found["state"] == "undecided"
    assert "2 versions were judged on these rows: bring newer data" in found["report"]["reasons"]
    with store.begin() as connection:
        first = versions.get(connection, OWNER, "desk", "1")
        versions.judge_again(connection, first, NOW)
    assert judged(store, objects, first, Champion(), most=2)["report"]["looks_before"] == 0


def test_a_version_that_is_judged_again_waits_behind_the_others(store: Database, objects: object) -> None:
    """Else the owner of the oldest version could hold the gate by asking again and again."""
    first, second = (registered(store, objects, add_version_job(store, objects, RECIPE, texts_csv(), {})) for _ in "ab")
    judged(store, objects, first, Champion())
    with store.begin() as connection:
        versions.judge_again(connection, versions.get(connection, OWNER, "desk", "1"), NOW + 1)
    order = []
    for _ in range(2):
        with store.begin() as connection:
            claimed = database.claim(connection, table, "w", NOW + 1)
            assert claimed is not None
            order.append(claimed[0].id)
    assert order == [second["id"], first["id"]]


def test_looks_at_the_same_moment_are_counted_one_after_the_other(
    store: Database, objects: object, tmp_path: Path
) -> None:
    made = [registered(store, objects, add_version_job(store, objects, RECIPE, texts_csv(), {})) for _ in range(8)]
    barrier, found = threading.Barrier(len(made)), []

    def look(version: RowMapping) -> None:
        barrier.wait()
        with store.begin() as connection:
            found.append(versions.look(connection, "h", version["id"], NOW, 3))

    threads = [threading.Thread(target=look, args=(version,)) for version in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found, key=str) == [0, 1, 2, None, None, None, None, None]


def test_without_a_champion_to_ask_the_verdict_is_undecided(store: Database, objects: object, tmp_path: Path) -> None:
    data = texts_csv()
    job = add_version_job(store, objects, RECIPE, data, {"w": b"weights", "evaluation.csv": b"row\n"})
    found = judged(store, objects, registered(store, objects, job), None)
    assert found["state"] == "undecided"
    assert "names no gateway" in found["report"]["reasons"][0]


def add_forecaster(
    store: Database, objects: object, levels: Sequence[float], answered: Sequence[float] | None = None
) -> RowMapping:
    """A version with the right spread at the levels that the machine has answered, by default the recipe's."""
    draws = np.random.default_rng(8)
    closes = {symbol: 100 * np.exp(np.cumsum(draws.normal(0, 0.01, 400))) for symbol in ("A", "B")}
    for values in closes.values():  # the bars that are held back move half as much as those before
        values[330:] = values[329] * np.exp(np.cumsum(draws.normal(0, 0.005, 70)))
    lines = [f"{symbol},{n},{c:.10f}" for symbol, values in closes.items() for n, c in enumerate(values)]
    recipe = {"kind": "calibration", "horizon": 1, "folds": 4, "levels": list(levels)}
    ends = [(symbol, end) for symbol in closes for end in range(330, 400)]
    answered = levels if answered is None else answered
    normal = np.exp(0.005 * stats.norm.ppf(answered))
    header = ",".join(["symbol,end", *(f"q{level:g}" for level in answered)])
    rows = [",".join([s, str(end), *(f"{closes[s][end - 1] * q:.9g}" for q in normal)]) for s, end in ends]
    job = add_version_job(
        store, objects, recipe, "\n".join(["symbol,time,close", *lines]).encode(),
        {"t": b"{}", "evaluation.csv": "\n".join([header, *rows]).encode()}, kind="forecast",
    )  # fmt: skip
    return registered(store, objects, job)


def test_a_forecaster_is_judged_on_the_datasets_closes(store: Database, objects: object) -> None:
    found = judged(store, objects, add_forecaster(store, objects, [0.1, 0.5, 0.9]), Champion("auto 1.1"))
    assert found["state"] == "passed", found["report"]
    assert found["report"]["origins"] == 140
    assert found["report"]["times"] == 70
    assert found["report"]["loss_ratio"]["champion"] < 1


def test_a_draw_of_what_is_held_back_is_judged_and_each_answer_is_needed(
    store: Database, objects: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gatekeeper, "MOST_JUDGED", 32)
    data = texts_csv(400)
    rows = held(tmp_path, data)
    answers = evaluation([row.row for row in rows], lambda row: sure((row - 2) % 3))
    version = registered(store, objects, add_version_job(store, objects, RECIPE, data, {"evaluation.csv": answers}))
    champion = Champion()
    found = judged(store, objects, version, champion)
    assert (found["report"]["rows"], found["report"]["held_back"]) == (32, 80)
    assert found["state"] == "passed", found["report"]
    places = [[row.text for row in rows].index(text) for text in champion.asked]
    assert places == sorted(set(places)), "in the order of time"
    with store.begin() as connection:
        versions.judge_again(connection, versions.get(connection, OWNER, "desk", "1"), NOW)
    again = Champion()
    assert judged(store, objects, version, again)["report"]["looks_before"] == 0
    assert again.asked == champion.asked
    less = evaluation([row.row for row in rows[:-1]], lambda row: sure((row - 2) % 3))
    version = registered(store, objects, add_version_job(store, objects, RECIPE, data, {"evaluation.csv": less}))
    reasons = judged(store, objects, version, Champion())["report"]["reasons"]
    assert "80 rows were held back, 79 are answered" in reasons[0]


def test_a_draw_of_origins_is_judged(store: Database, objects: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatekeeper, "MOST_JUDGED", 100)
    found = judged(store, objects, add_forecaster(store, objects, [0.1, 0.5, 0.9]), Champion("auto 1.1"))
    assert found["state"] == "passed", found["report"]
    assert (found["report"]["origins"], found["report"]["held_back"]) == (100, 140)
    assert 50 < found["report"]["times"] <= 70


def test_a_lease_lasts_while_a_large_dataset_is_read(
    store: Database, objects: FolderObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One renewal behind a file of gigabytes came when another worker had taken the version over."""
    monkeypatch.setattr(gatekeeper, "_RENEW_SECONDS", 0.0)
    data = texts_csv(10_000)
    rows = held(tmp_path, data)
    answers = evaluation([row.row for row in rows], lambda row: sure((row - 2) % 3))
    version = registered(store, objects, add_version_job(store, objects, RECIPE, data, {"evaluation.csv": answers}))
    renewed = []
    write = database.write
    monkeypatch.setattr(database, "write", lambda *given: renewed.append(given) or write(*given))
    judged(store, objects, version, Champion())
    assert len(renewed) > 2 * len(data) / CHUNK_BYTES


def test_a_dataset_above_the_limit_of_rows_is_undecided(store: Database, objects: object) -> None:
    version = registered(store, objects, add_version_job(store, objects, RECIPE, texts_csv(), {"evaluation.csv": b""}))
    with store.begin() as connection:
        connection.execute(update(datasets).values(rows=MOST_TEXTS + 1))
    found = judged(store, objects, version, Champion())
    why = ["the dataset has 10000001 rows, the gate reads at most 10000000"]
    assert (found["state"], found["report"]["reasons"]) == ("undecided", why)


def test_a_bug_of_the_gate_is_tried_some_times_then_the_version_fails(
    store: Database, objects: object, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The version was judged again every 30 s, without an end."""
    version = registered(store, objects, add_version_job(store, objects, RECIPE, texts_csv(), {"evaluation.csv": b""}))
    times, pauses = Times(), []

    def fails(*_: object) -> None:
        pauses.append(times.at)
        raise ZeroDivisionError

    monkeypatch.setattr(Gatekeeper, "_judge", fails)
    worker = Gatekeeper(store, objects, Champion(), 20, "w", times)
    for _ in range(gatekeeper.MOST_TRIES):
        with pytest.raises(ZeroDivisionError):
            worker.turn()
        while not database_due(store, times.at):
            times.at += 10.0
    assert [later - before for before, later in itertools.pairwise(pauses)] == [30.0, 60.0, 120.0, 240.0]
    assert failed(store) == 0
    assert worker.turn()
    with store.read() as connection:
        found = versions.get(connection, OWNER, "desk", "1")
    why = "5 tries ended without an answer; the log of the plane has the error"
    assert (found["state"], found["report"]["reasons"], failed(store)) == ("failed", [why], 1)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["row given up"]
    times.at += 1000.0
    assert not worker.turn()
    monkeypatch.undo()
    with store.begin() as connection:
        versions.judge_again(connection, found, times.at)
    assert judged(store, objects, version, Champion())["state"] == "rejected"
    assert failed(store) == 0


class Times(Clock):
    """A clock of the test."""

    def __init__(self) -> None:
        self.at = NOW
        super().__init__(lambda: self.at)


def database_due(store: Database, now: float) -> bool:
    with store.read() as connection:
        return database.is_due(connection, table, now)


def failed(store: Database) -> float:
    lines = metrics.exposition(store, NOW).decode().splitlines()
    line = next(line for line in lines if line.startswith('market_training_versions{state="failed"}'))
    return float(line.split()[1])


def test_levels_that_a_machine_chooses_are_refused(store: Database, objects: object) -> None:
    version = add_forecaster(store, objects, [0.1, 0.5, 0.9], answered=[0.5])
    found = judged(store, objects, version, Champion("auto 1.1"))
    assert (found["state"], found["report"]["reasons"]) == ("rejected", ["evaluation.csv: lacks the column 'q0.1'"])


@pytest.mark.parametrize(("levels", "missing"), [([0.5], 0.1), ([0.1, 0.5, 0.89], 0.9)])
def test_a_recipe_without_the_gates_levels_is_undecided(
    store: Database, objects: object, levels: list[float], missing: float
) -> None:
    found = judged(store, objects, add_forecaster(store, objects, levels), Champion("auto 1.1"))
    assert found["state"] == "undecided"
    assert found["report"]["reasons"] == [f"the gate needs the quantile {missing:g}, the recipe's levels lack it"]


def test_a_name_belongs_to_its_first_owner_and_kind(store: Database, objects: object) -> None:
    registered(store, objects, add_version_job(store, objects, RECIPE, texts_csv(), {"w": b"1"}))
    other = add_version_job(store, objects, RECIPE, texts_csv(), {"w": b"2"}, owner="other")
    with pytest.raises(ConflictError, match="is taken"):
        registered(store, objects, other)
    forecaster = add_version_job(store, objects, RECIPE, texts_csv(), {"w": b"3"}, kind="forecast")
    with pytest.raises(ConflictError, match="is of kind sentiment"):
        registered(store, objects, forecaster)
    with store.read() as connection, pytest.raises(NotFoundError):
        versions.get(connection, "other", "desk", "1")


def test_a_manifest_that_lists_other_files_makes_no_version(store: Database, objects: object) -> None:
    job = add_version_job(store, objects, RECIPE, texts_csv(), {"w": b"1"}, listed={"w": "0" * 64})
    with pytest.raises(ConflictError, match="lists 'w', and the job has not uploaded"):
        registered(store, objects, job)

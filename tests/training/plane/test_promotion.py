"""Promotion, shadow, rollback and history on both databases, and the registry that replicas read."""

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from inference.loading.folder import FolderSource
from models.manifest import Manifest, digest
from tests.training.plane.conftest import NOW, OWNER
from tests.training.plane.models import add_version_job, folder_objects, texts_csv
from tests.training.plane.test_gatekeeper import RECIPE, registered
from training.plane import promotion, versions
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.errors import ConflictError, LimitReachedError, NotFoundError
from training.plane.model_tables import versions as table
from training.plane.promotion import Author
from training.plane.publisher import REFUSED, Publisher
from training.plane.registry import FolderRegistry, ForeignModelError, Read, RegistryError
from training.plane.schema import events
from training.plane.watch import Counts, advance, disappoints, read
from training.plane.watchdog import Watchdog

PERSON = Author("alice", "better on the news of March")


class Desk:
    """A model `desk` with three versions, whose verdicts are given."""

    def __init__(self, store: Database, folder: Path, *states: str) -> None:
        self.store = store
        objects = folder_objects(store, folder)
        self.registry = folder / "registry"
        self.publisher = Publisher(store, objects, FolderRegistry(self.registry), Clock())
        self.labels = []
        for number, state in enumerate(states):
            job = add_version_job(store, objects, RECIPE, texts_csv(), {"w": b"weights %d" % number})
            version = registered(store, objects, job)
            with store.begin() as connection:
                connection.execute(update(table).where(table.c.id == version["id"]).values(state=state, due_at=None))
            self.labels.append(version["label"])

    def model(self) -> Any:
        with self.store.read() as connection:
            return versions.model(connection, OWNER, "desk")

    def judge(self, number: int) -> None:
        """The same verdict, against the present champion."""
        report = {"champion": f"desk {self.model()['champion'] or '1'}"}
        with self.store.begin() as connection:
            connection.execute(update(table).where(table.c.label == self.labels[number - 1]).values(report=report))

    def promote(self, number: int, author: Author = PERSON) -> None:
        self.judge(number)
        with self.store.begin() as connection:
            version = versions.get(connection, OWNER, "desk", str(number))
            promotion.promote(connection, versions.model(connection, OWNER, "desk"), version, author, NOW, 100.0)
        self.publisher.publish("desk")

    def rollback(self, author: Author = PERSON, expected: str | None = None) -> None:
        with self.store.begin() as connection:
            promotion.rollback(connection, "desk", author, NOW, expected)
        self.publisher.publish("desk")

    def shadow(self, number: int | None) -> None:
        with self.store.begin() as connection:
            version = None if number is None else versions.get(connection, OWNER, "desk", str(number))
            promotion.shadow(connection, versions.model(connection, OWNER, "desk"), version, 0.25, PERSON, NOW)
        self.publisher.publish("desk")

    def history(self) -> list[tuple[str, str, str, str, str]]:
        with self.store.read() as connection:
            rows = promotion.history(connection, "desk", 100)
        return [(row["action"], row["before"], row["after"], row["author"], row["cause"]) for row in reversed(rows)]

    def served(self) -> dict[str, Manifest]:
        """The content for a replica."""
        found = FolderSource(self.registry).listed()
        assert not found.unreadable
        return {name: Manifest.read_from(content, name) for name, content in found.manifests.items()}


@pytest.fixture
def desk(store: Database, tmp_path: Path) -> Desk:
    return Desk(store, tmp_path, "passed", "passed", "undecided", "rejected")


def test_a_promoted_version_is_served_with_its_label_and_lineage(desk: Desk) -> None:
    desk.promote(1)
    served = desk.served()["desk"]
    assert (served.name, served.version) == ("desk", desk.labels[0])
    assert len(served.lineage["dataset_sha256"]) == len(served.lineage["recipe_sha256"]) == 64
    assert served.read(desk.registry / "desk", "w") == b"weights 0"
    desk.promote(2)
    assert desk.served()["desk"].version == desk.labels[1]
    assert desk.history() == [
        ("promote", "", desk.labels[0], "alice", "person"),
        ("promote", desk.labels[0], desk.labels[1], "alice", "person"),
    ]


def test_a_version_that_was_compared_with_another_champion_is_judged_again_first(desk: Desk) -> None:
    desk.judge(2)
    desk.promote(1)
    first, second = desk.labels[:2]

    def promote() -> None:
        with desk.store.begin() as connection:
            version = versions.get(connection, OWNER, "desk", "2")
            promotion.promote(connection, versions.model(connection, OWNER, "desk"), version, PERSON, NOW, 100.0)

    with pytest.raises(ConflictError, match=f"compared {second} with the configured model, and {first} is in service"):
        promote()
    desk.judge(2)
    desk.rollback()
    with pytest.raises(ConflictError, match=f"compared {second} with {first}, and the configured model is in service"):
        promote()
    assert desk.model()["champion"] == ""
    desk.judge(2)
    promote()
    assert desk.model()["champion"] == second


def test_a_verdict_that_comes_during_a_promotion_counts(desk: Desk) -> None:
    with desk.store.read() as connection:
        passed = versions.get(connection, OWNER, "desk", "1")
    with desk.store.begin() as connection:
        connection.execute(update(table).where(table.c.id == passed["id"]).values(state="rejected"))
    with pytest.raises(ConflictError, match="rejected"), desk.store.begin() as connection:
        promotion.promote(connection, versions.model(connection, OWNER, "desk"), passed, PERSON, NOW, 100.0)


def test_a_job_has_a_bounded_number_of_versions(store: Database, tmp_path: Path) -> None:
    objects = folder_objects(store, tmp_path)
    job = add_version_job(store, objects, RECIPE, texts_csv(), {"w": b"weights"})
    first, *_ = [registered(store, objects, job, f"desk{number}") for number in range(versions.MOST_OF_JOB)]
    with pytest.raises(LimitReachedError, match=f"at most {versions.MOST_OF_JOB} versions of a job"):
        registered(store, objects, job, "more")
    assert registered(store, objects, job, "desk0")["id"] == first["id"]
    with store.read() as connection, pytest.raises(NotFoundError):
        versions.model(connection, OWNER, "more")


@pytest.mark.parametrize("number", [3, 4])
def test_neither_an_undecided_nor_a_rejected_version_is_promoted(desk: Desk, number: int) -> None:
    with pytest.raises(ConflictError, match="the gate must have let a version pass"):
        desk.promote(number)
    assert desk.history() == []
    assert desk.served() == {}


def test_rollbacks_go_back_version_by_version_to_the_configured_model(desk: Desk) -> None:
    desk.promote(1)
    desk.promote(2)
    desk.rollback()
    assert desk.served()["desk"].version == desk.labels[0]
    desk.rollback()
    assert desk.served() == {}
    with pytest.raises(ConflictError, match="the configured model is in service"):
        desk.rollback()
    assert [row[:3] for row in desk.history()[2:]] == [
        ("rollback", desk.labels[1], desk.labels[0]),
        ("rollback", desk.labels[0], ""),
    ]


def test_rollbacks_of_a_version_that_was_promoted_twice_end_at_the_configured_model(desk: Desk) -> None:
    first, second = desk.labels[:2]
    for number in (1, 2, 1):
        desk.promote(number)
    desk.rollback()
    desk.promote(1)
    champions = []
    for _ in range(4):
        champions.append(desk.model()["champion"])
        if champions[-1]:
            desk.rollback()
    assert champions == [first, second, first, ""]


def test_a_shadow_is_a_model_of_its_own_until_it_is_promoted(desk: Desk) -> None:
    desk.promote(1)
    desk.shadow(3)
    assert desk.served()["desk.shadow"].extra == {"shadow": {"of": "desk", "share": 0.25}}
    assert desk.served()["desk"].version == desk.labels[0]
    with pytest.raises(ConflictError, match="rejected"):
        desk.shadow(4)
    desk.shadow(2)
    desk.promote(2)
    assert set(desk.served()) == {"desk"}
    with pytest.raises(ConflictError, match="no version runs in the shadow"):
        desk.shadow(None)


def test_of_two_swaps_at_once_one_waits_for_the_other(desk: Desk) -> None:
    desk.promote(1)
    refused = []

    def swap() -> None:
        try:
            desk.rollback(expected=desk.labels[0])
        except ConflictError as error:
            refused.append(error)

    threads = [threading.Thread(target=swap) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 3
    assert [row[0] for row in desk.history()] == ["promote", "rollback"]


def test_a_promotion_that_was_not_published_is_published_by_the_duty(desk: Desk) -> None:
    with desk.store.begin() as connection:
        version = versions.get(connection, OWNER, "desk", "1")
        promotion.promote(connection, versions.model(connection, OWNER, "desk"), version, PERSON, NOW, 100.0)
    desk.publisher.everything()
    assert desk.served()["desk"].version == desk.labels[0]
    (desk.registry / "desk").unlink()
    desk.publisher.everything()
    assert desk.served()["desk"].version == desk.labels[0]


def test_a_worker_that_publishes_late_does_not_undo_a_newer_promotion(desk: Desk) -> None:
    class Late(FolderRegistry):
        """Before the first write of this worker another worker promotes and publishes."""

        def publish(self, name: str, manifest: Mapping[str, Any], read: Read) -> None:
            if desk.model()["champion"] == desk.labels[0]:
                desk.promote(2)
            super().publish(name, manifest, read)

    with desk.store.begin() as connection:
        version = versions.get(connection, OWNER, "desk", "1")
        promotion.promote(connection, versions.model(connection, OWNER, "desk"), version, PERSON, NOW, 100.0)
    objects = folder_objects(desk.store, desk.registry.parent)
    Publisher(desk.store, objects, Late(desk.registry), Clock()).publish("desk")
    assert desk.served()["desk"].version == desk.labels[1]


def test_workers_that_publish_one_version_at_once_hinder_each_other_in_nothing(tmp_path: Path) -> None:
    manifest = {"files": {"w": digest(b"weights")}}
    first, second = (FolderRegistry(tmp_path / "registry") for _ in range(2))
    home = tmp_path / "registry" / ".versions" / "m"

    def read(name: str) -> Iterator[bytes]:
        second.publish("m", manifest, lambda name: iter([b"weights"]))
        (home / "renamed").symlink_to("nowhere")  # a folder in the list that is gone at the next look
        return iter([b"weights"])

    first.publish("m", manifest, read)
    assert json.loads(first.manifest("m") or b"") == manifest


def place(desk: Desk, name: str, form: str) -> Path:
    """A model that a person has placed in the registry, as a folder or as a link to a folder."""
    entry = desk.registry / name
    folder = entry if form == "folder" else desk.registry.parent / f"elsewhere-{name}"
    folder.mkdir(parents=True)
    desk.registry.mkdir(exist_ok=True)
    (folder / "w").write_bytes(b"a person's weights")
    manifest = Manifest("sentiment", "any", name, "1", "Apache-2.0", "float32", {"w": digest(b"a person's weights")})
    if form != "without a manifest":
        manifest.write(folder)
    if folder != entry:
        entry.symlink_to(folder)
    return entry


def refusals(desk: Desk) -> list[dict[str, str]]:
    with desk.store.read() as connection:
        return list(connection.execute(select(events.c.data).where(events.c.kind == REFUSED)).scalars())


@pytest.mark.parametrize("form", ["folder", "link"])
def test_a_model_that_a_person_has_placed_is_neither_removed_nor_replaced(desk: Desk, form: str) -> None:
    placed = [place(desk, name, form) for name in ("desk", "desk.shadow")]
    desk.publisher.everything()
    assert set(desk.served()) == {"desk", "desk.shadow"}
    assert all((entry / "w").read_bytes() == b"a person's weights" for entry in placed)
    for shadow in (False, True):
        with pytest.raises(ForeignModelError, match="has not published"):
            desk.publisher.refuse_foreign("desk", shadow=shadow)
    with pytest.raises(ForeignModelError, match="has a model 'desk' that"):
        desk.promote(1)
    with pytest.raises(RegistryError, match="has not published"):
        desk.publisher.everything()
    assert (placed[0] / "w").read_bytes() == b"a person's weights"
    assert refusals(desk) == [{"model": "desk", "version": desk.labels[0]}]
    for entry in placed:
        entry.rename(desk.registry.parent / f"taken-{entry.name}")
    desk.publisher.everything()
    assert desk.served()["desk"].version == desk.labels[0]
    desk.publisher.refuse_foreign("desk", shadow=False)


def test_an_entry_without_a_manifest_is_not_replaced(desk: Desk) -> None:
    entry = place(desk, "desk", "without a manifest")
    with pytest.raises(ForeignModelError):
        desk.promote(1)
    assert entry.resolve().name == "elsewhere-desk"
    assert len(refusals(desk)) == 1


@pytest.mark.parametrize("change", [{"lineage": {}}, {"lineage": {"job": "J"}}, {"version": "9"}, {"version": 1}])
def test_a_manifest_with_another_origin_is_foreign(desk: Desk, change: dict[str, object]) -> None:
    desk.promote(1)
    manifest = json.loads((desk.registry / "desk" / "manifest.json").read_text())
    (desk.registry / "desk" / "manifest.json").write_text(json.dumps({**manifest, **change}))
    desk.rollback()
    assert (desk.registry / "desk" / "w").exists()
    (desk.registry / "desk" / "manifest.json").write_text(json.dumps(manifest))
    desk.publisher.everything()
    assert not (desk.registry / "desk").exists()


def test_a_copy_of_a_version_stays_when_the_version_goes(desk: Desk, tmp_path: Path) -> None:
    desk.promote(1)
    shutil.copytree(desk.registry / "desk", tmp_path / "copy")
    (desk.registry / "desk").unlink()
    (tmp_path / "copy").rename(desk.registry / "desk")
    desk.rollback()
    assert (desk.registry / "desk" / "w").read_bytes() == b"weights 0"


def test_a_registry_that_cannot_be_written_is_said(desk: Desk) -> None:
    desk.registry.write_text("a file in the place of the folder")
    with pytest.raises(RegistryError, match="cannot be written"):
        desk.promote(1)
    assert desk.model()["champion"] == desk.labels[0]


NEW, OLD = "2-aaaaaaaa", "1-bbbbbbbb"


def exposition(version: str, **counts: float) -> str:
    names = {
        "checks": "watch_interval_checks", "hits": "watch_interval_hits", "items": "model_items",
        "failures": "model_failures", "units": "model_units", "seconds": "model_busy_seconds",
    }  # fmt: skip
    labels = f'{{model="desk",version="{version}",clients="3"}}'
    return "".join(f"market_inference_{names[name]}_total{labels} {value}\n" for name, value in counts.items())


def test_counts_are_read_by_version_and_survive_restarts_of_replicas() -> None:
    text = exposition(NEW, checks=10, hits=7, items=100, units=800, seconds=1.5) + exposition(OLD, items=900, seconds=9)
    new = Counts(10, 7, 100, failures=0, units=800, seconds=1.5)
    assert read(text, "desk") == {NEW: {"3": new}, OLD: {"3": Counts(items=900, seconds=9)}}
    assert read(text, "other") == {}
    state: Any = None
    for first, second in ((10, 0), (15, 4), (3, 6)):  # the first replica starts again after the second look
        looks = {name: {NEW: {"3": Counts(checks=at)}} for name, at in (("a", first), ("b", second))}
        state = advance(state, NEW, looks)
    assert state["total"]["3"]["checks"] == 5 + 3 + 6


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ([Counts(29, 0, 29)], ""),
        ([Counts(60, 47, 60)], ""),
        ([Counts(60, 30, 60)], "coverage: the 80% interval held 30 of 60 closes"),
        ([Counts(300, 300, 300)], ""),
        ([Counts(items=1000, failures=12)], ""),
        ([Counts(items=1000, failures=60)], "errors: 60 of 1000 items failed"),
        ([Counts(items=1000, units=9000, seconds=1)], ""),
        ([Counts(items=1000, units=9000, seconds=25)], ""),
        ([Counts(items=1000, units=9000, seconds=40)], "latency: 40.0 ms of the device for an item, 10.0 ms before"),
        ([Counts(items=1000, units=36000, seconds=40)], ""),  # larger items
        # One client alone, beside others' closes or calls.
        ([Counts(200, 155, 200), Counts(400, 100, 400)], ""),
        ([Counts(20, 10, 20), Counts(400, 100, 400)], ""),
        ([Counts(items=1), Counts(400, 100, 400)], ""),
        ([Counts(items=500), Counts(items=900, failures=90)], ""),
        ([Counts(items=500, units=4500, seconds=0.05), Counts(items=600, units=5400, seconds=600)], ""),
        # Several clients.
        ([Counts(90, 50, 90), Counts(400, 250, 400), Counts(items=9)], "coverage: the 80% interval held 300 of 490"),
        ([Counts(items=500, failures=40), Counts(items=900, failures=90)], "errors"),
        ([Counts(items=500, units=4500, seconds=50), Counts(items=600, units=5400, seconds=600)], "latency"),
    ],
)
def test_a_model_disappoints_by_coverage_errors_or_latency(counts: list[Counts], reason: str) -> None:
    state = advance(None, NEW, {"a": {OLD: {"0": Counts(items=1000, units=9000, seconds=10.0)}}})
    state = advance(state, NEW, {"a": {NEW: {str(name): one for name, one in enumerate(counts)}}})
    assert disappoints(state).startswith(reason)
    assert bool(disappoints(state)) == bool(reason)


def test_the_watchdog_rolls_back_once_with_the_reason_and_only_within_the_window(desk: Desk, tmp_path: Path) -> None:
    desk.promote(1)
    desk.promote(2)
    now = [NOW]
    metrics = tmp_path / "metrics"
    watchdog = Watchdog(desk.store, [metrics.as_uri()], desk.publisher.publish, Clock(lambda: now[0], lambda: now[0]))
    metrics.write_text(exposition(desk.labels[1], checks=0, hits=0))
    watchdog.look()
    metrics.write_text(exposition(desk.labels[1], checks=100, hits=79))
    watchdog.look()
    assert desk.served()["desk"].version == desk.labels[1]
    metrics.write_text(exposition(desk.labels[1], checks=200, hits=120))
    for _ in range(3):
        watchdog.look()
    assert desk.served()["desk"].version == desk.labels[0]
    assert desk.history()[2:] == [("rollback", desk.labels[1], desk.labels[0], "watchdog", "watchdog")]
    with desk.store.read() as connection:
        assert "120 of 200" in promotion.history(connection, "desk", 1)[0]["reason"]
    desk.promote(2)
    now[0] = NOW + 101
    metrics.write_text(exposition(desk.labels[1], checks=900, hits=0))
    watchdog.look()
    assert desk.model()["champion"] == desk.labels[1]

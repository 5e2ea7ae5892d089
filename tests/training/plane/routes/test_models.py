"""Promotions over HTTP, with a model of a person's in the registry."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.training.planes import PlaneProcess
from market_inference.contract import keys
from tests.training.plane.conftest import OWNER
from tests.training.plane.models import add_version_job, folder_objects, texts_csv
from training.plane.config import Config
from training.plane.database import Database


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    with keys.edit(tmp_path / "keys.json") as known:
        secret, made = keys.issue(OWNER, ("training:run", "training:promote"))
        known.append(made)
    (tmp_path / "secrets.json").write_text(json.dumps({OWNER: secret}))
    process = PlaneProcess(tmp_path, REGISTRY=tmp_path / "registry", WATCH_EVERY=0.1)
    yield process
    process.stop()


def test_a_promotion_over_a_persons_model_is_refused_and_changes_nothing(plane: PlaneProcess) -> None:
    store = Database(Config(folder=plane.folder / "plane").store_url)
    job = add_version_job(
        store, folder_objects(store, plane.folder / "plane"), {"kind": "sentiment"}, texts_csv(), {"w": b"weights"}
    )
    store.close()
    assert plane.ask("POST", "/models/desk/versions", {"job": job}).status == 201
    plane.wait("/models/desk/versions/1", "undecided")
    placed = plane.folder / "registry" / "desk.shadow"
    placed.mkdir(parents=True)
    (placed / "manifest.json").write_text("{}")
    asked = {"version": "1", "reason": "a look", "shadow": True}
    refused = plane.ask("POST", "/models/desk/promote", asked)
    assert (refused.status, refused.json["reason"]) == (409, "CONFLICT")
    assert "has a model 'desk.shadow' that this plane has not published" in refused.json["detail"]
    assert plane.ask("GET", "/models/desk/history").json["history"] == []
    assert plane.ask("POST", "/models/other/promote", asked).status == 404
    placed.rename(plane.folder / "taken")
    assert plane.ask("POST", "/models/desk/promote", asked).json["shadow"].startswith("1-")
    assert placed.is_symlink()

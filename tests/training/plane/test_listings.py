"""Lists of many rows read no documents: reports, recipes, results, manifests."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from tests.training.plane.conftest import NOW, OWNER, add_dataset, new_job
from training.plane import dataset, identifier, jobs, versions
from training.plane.database import Database
from training.plane.model_tables import models
from training.plane.model_tables import versions as version_table
from training.plane.schema import datasets


def test_listings_read_no_documents(file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path)
    with closing(Database(f"sqlite:///{tmp_path}/store.db")) as store:
        data = add_dataset(store)
        with store.begin() as connection:
            job, _ = jobs.create(connection, new_job(data), NOW)
            connection.execute(insert(models).values(name="desk", owner=OWNER, kind="sentiment", created_at=NOW))
            row = {"name": "desk", "owner": OWNER, "job": job, "dataset": data, "dataset_sha256": "", "state": "passed"}
            empty = {"manifest": {}, "files": {}, "measures": {}, "created_at": NOW}
            numbers = [(number, identifier.new()) for number in (1, 2, 3)]
            for number, made in numbers:
                one = {"id": made, "number": number, "label": f"{number}-0", **row, "job": made, **empty}
                connection.execute(insert(version_table).values(**one))
            for column in ("datasets SET report", "jobs SET recipe", "jobs SET result", "versions SET manifest"):
                connection.execute(text(f"UPDATE {column} = 'no JSON'"))
        with store.read() as connection:
            assert [one["id"] for one in dataset.listed(connection, OWNER, "", 500)] == [data]
            assert dataset.get(connection, OWNER, data)["id"] == data
            assert [one["id"] for one in jobs.listed(connection, OWNER, "", 500)] == [job]
            assert [one["number"] for one in versions.listed(connection, OWNER, "desk", 3, 1)] == [2]
            with pytest.raises(json.JSONDecodeError):  # whoever reads a document meets it
                connection.execute(select(datasets)).all()

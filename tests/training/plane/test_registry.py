"""The registry in a real S3 server: replicas read the plane's bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from benchmarks.training.planes import S3Server
from inference.loading.bucket import BucketSource
from models.manifest import Manifest, digest
from runtime.remote.location import Location
from tests.training.plane.conftest import NOW, OWNER
from tests.training.plane.models import add_version_job, folder_objects, texts_csv
from tests.training.plane.test_gatekeeper import RECIPE, registered
from training.plane import promotion, registry, versions
from training.plane.clock import Clock
from training.plane.database import Database
from training.plane.model_tables import versions as table
from training.plane.promotion import Author
from training.plane.publisher import Publisher
from training.plane.registry import BucketRegistry, ForeignModelError, RegistryError

WEIGHTS = b"weights of a model"
WHY = Author("alice", "better")


@pytest.fixture
def address(s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of this test's own."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    bucket, _, query = s3.objects.removeprefix("s3://").partition("?")
    return f"s3://{bucket}/{request.node.name.replace('[', '-').rstrip(']')}?{query}"


@pytest.fixture
def bucket(address: str) -> BucketRegistry:
    found = registry.of(address)
    assert isinstance(found, BucketRegistry)
    return found


@pytest.fixture
def replica(address: str, tmp_path: Path) -> BucketSource:
    return BucketSource(Location.of(address), tmp_path / "cache")


def described(version: str, sha256: str = digest(WEIGHTS)) -> dict[str, Any]:
    return {"kind": "sentiment", "architecture": "any", "name": "m", "version": version, "licence": "Apache-2.0",
            "dtype": "float32", "files": {"w": sha256}}  # fmt: skip


def served(replica: BucketSource) -> dict[str, Manifest]:
    """The content for a replica."""
    return {name: Manifest.read_from(content, name) for name, content in replica.listed().manifests.items()}


def test_what_is_published_is_listed_and_fetched_by_a_replica(bucket: BucketRegistry, replica: BucketSource) -> None:
    reads = []

    def read(name: str) -> Iterator[bytes]:
        reads.append(name)
        return iter([WEIGHTS[:5], WEIGHTS[5:]])

    assert bucket.manifest("m") is None
    for version in ("1", "2"):
        bucket.publish("m", described(version), read)
        assert bucket.manifest("m") == registry.text(described(version))
        manifest = served(replica)["m"]
        assert manifest.version == version
        assert manifest.read(replica.fetch("m", manifest), "w") == WEIGHTS
    assert reads == ["w"], "a file of two versions is uploaded once"
    for _ in range(2):
        bucket.remove("m")
        assert bucket.manifest("m") is None
    assert served(replica) == {}


def test_a_file_with_other_bytes_is_not_published(bucket: BucketRegistry, replica: BucketSource) -> None:
    with pytest.raises(RegistryError, match="'file' has other bytes than its digest"):
        bucket.publish("m", described("1", "0" * 64), lambda name: iter([WEIGHTS]))
    assert served(replica) == {}


@pytest.mark.usefixtures("address")  # sets the credentials
def test_a_bucket_that_is_away_is_said() -> None:
    away = registry.of("s3://bucket/prefix?endpoint=http://127.0.0.1:9")
    for verb in (lambda: away.manifest("m"), lambda: away.remove("m"), lambda: away.publish("m", described("1"), iter)):
        with pytest.raises(RegistryError, match="the bucket does not answer"):
            verb()


def test_the_publisher_swaps_its_own_models_in_a_bucket_and_leaves_foreign_ones(
    store: Database, bucket: BucketRegistry, replica: BucketSource, tmp_path: Path
) -> None:
    objects = folder_objects(store, tmp_path)
    publisher = Publisher(store, objects, bucket, Clock())
    version = registered(store, objects, add_version_job(store, objects, RECIPE, texts_csv(), {"w": WEIGHTS}))
    bucket.publish("desk", described("a person's"), lambda name: iter([WEIGHTS]))
    publisher.everything()
    with store.begin() as connection:
        connection.execute(update(table).where(table.c.id == version["id"]).values(state="passed", due_at=None))
        passed = versions.get(connection, OWNER, "desk", "1")
        promotion.promote(connection, versions.model(connection, OWNER, "desk"), passed, WHY, NOW, 100.0)
    with pytest.raises(ForeignModelError):
        publisher.publish("desk")
    assert served(replica)["desk"].version == "a person's"
    bucket.remove("desk")
    publisher.everything()
    manifest = served(replica)["desk"]
    assert manifest.version == version["label"]
    assert manifest.read(replica.fetch("desk", manifest), "w") == WEIGHTS
    with store.begin() as connection:
        promotion.rollback(connection, "desk", WHY, NOW)
    publisher.everything()
    assert served(replica) == {}

"""The registry in a real S3 server."""

import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.training.planes import S3Server
from inference.loading.bucket import BucketSource
from inference.loading.source import SourceAwayError
from models.manifest import Manifest, digest
from models.model import ModelUnavailableError
from runtime.remote.location import Location

WEIGHTS = b"weights of a model"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3Server]:
    server = S3Server(Path(tempfile.mkdtemp(prefix="mi-s3-")))
    yield server
    server.stop()


@pytest.fixture
def location(s3: S3Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Location:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SK")
    bucket, _, query = s3.objects.removeprefix("s3://").partition("?")
    return Location.of(f"s3://{bucket}/{request.node.name}?{query}")


@pytest.fixture
def source(location: Location, tmp_path: Path) -> BucketSource:
    return BucketSource(location, tmp_path / "cache")


def put(source: BucketSource, location: Location, key: str, content: bytes) -> None:
    source._s3.put_object(Bucket=location.bucket, Key=f"{location.prefix}{key}", Body=content)


def manifest(version: str, sha256: str = digest(WEIGHTS)) -> Manifest:
    return Manifest("sentiment", "any", "m", version, "Apache-2.0", "float32", {"w": sha256})


def test_a_model_is_listed_by_its_manifest_and_fetched_when_it_is_loaded(
    source: BucketSource, location: Location
) -> None:
    send = functools.partial(put, source, location)
    assert source.listed().manifests == {}
    send(f".files/{digest(WEIGHTS)}", WEIGHTS)
    send("m/w.part", b"a model that is being written")
    assert source.listed().manifests == {}
    send("m/manifest.json", manifest("1").text().encode())
    assert Manifest.read_from(source.listed().manifests["m"], "m") == manifest("1")
    folder = source.fetch("m", manifest("1"))
    assert Manifest.of(folder) == manifest("1")
    assert manifest("1").read(folder, "w") == WEIGHTS
    send("m/manifest.json", manifest("2").text().encode())
    assert Manifest.read_from(source.listed().manifests["m"], "m") == manifest("2")
    assert source.fetch("m", manifest("2")) != folder
    assert manifest("1").read(folder, "w") == WEIGHTS
    source._s3.delete_object(Bucket=location.bucket, Key=f"{location.prefix}m/manifest.json")
    assert source.listed().manifests == {}


def test_a_file_with_other_bytes_is_refused_and_not_kept(source: BucketSource, location: Location) -> None:
    put(source, location, f".files/{'0' * 64}", b"other bytes")
    for _ in range(2):
        with pytest.raises(ModelUnavailableError, match="SHA-256"):
            source.fetch("m", manifest("1", "0" * 64))


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(
    source: BucketSource, location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(source, location, f".files/{digest(WEIGHTS)}", WEIGHTS)
    monkeypatch.setattr("inference.loading.bucket.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(ModelUnavailableError, match="no room for 'm' in the cache: No space left on device"):
        source.fetch("m", manifest("1"))


def test_a_missing_file_is_named(source: BucketSource) -> None:
    with pytest.raises(ModelUnavailableError, match="'m' cannot be fetched: the registry bucket answers NoSuchKey"):
        source.fetch("m", manifest("1", "1" * 64))


def test_a_bucket_that_is_away_is_no_empty_registry(tmp_path: Path, location: Location) -> None:
    away = BucketSource(Location(location.bucket, "", "http://127.0.0.1:9", "us-east-1"), tmp_path)
    with pytest.raises(SourceAwayError, match="does not answer"):
        away.listed()

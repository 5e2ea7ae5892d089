"""Manifests: written and read back; malformed manifests and altered files are refused."""

import json
from pathlib import Path

import pytest

from models.manifest import FILE_NAME, Base, Manifest, digest
from models.model import ModelUnavailableError

CONTENT = b"weights"


def manifest(**changes: object) -> Manifest:
    fields = {
        "kind": "sentiment",
        "architecture": "tiny",
        "name": "a",
        "version": "1",
        "licence": "Apache-2.0",
        "dtype": "float16",
        "files": {"w.safetensors": digest(CONTENT)},
        "labels": ("negative", "neutral", "positive"),
        "base": Base(package="json", licence="PSF-2.0", files={"decoder.py": "0" * 64}),
        "settings": {"temperature": 1.25},
    }
    return Manifest(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "w.safetensors").write_bytes(CONTENT)
    manifest().write(tmp_path)
    return tmp_path


def test_a_manifest_survives_writing_and_reading(folder: Path) -> None:
    assert Manifest.of(folder) == manifest()


def test_listed_files_are_read(folder: Path) -> None:
    assert Manifest.of(folder).read(folder, "w.safetensors") == CONTENT


def test_an_altered_file_is_refused(folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(CONTENT + b"!")
    with pytest.raises(ModelUnavailableError, match="SHA-256"):
        Manifest.of(folder).read(folder, "w.safetensors")


def test_a_missing_file_is_refused_without_its_path(folder: Path) -> None:
    (folder / "w.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match=r"^the file 'w\.safetensors' cannot be read") as refused:
        Manifest.of(folder).read(folder, "w.safetensors")
    assert str(folder) not in str(refused.value)


def test_an_unlisted_file_is_not_read(folder: Path) -> None:
    (folder / "other").write_bytes(b"x")
    with pytest.raises(ModelUnavailableError, match="does not list"):
        Manifest.of(folder).read(folder, "other")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "sentiment", "surprise": 1}'])
def test_a_malformed_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ModelUnavailableError, match=FILE_NAME):
        Manifest.of(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="has no"):
        Manifest.of(tmp_path)


@pytest.mark.parametrize("name", ["../w", "a/b", "/etc/hostname"])
def test_files_outside_the_folder_cannot_be_listed(folder: Path, name: str) -> None:
    fields = json.loads((folder / FILE_NAME).read_text())
    fields["files"] = {name: "0" * 64}
    (folder / FILE_NAME).write_text(json.dumps(fields))
    with pytest.raises(ModelUnavailableError, match="plain file name"):
        Manifest.of(folder)


def test_a_base_is_read_from_the_package_and_checked() -> None:
    with pytest.raises(ModelUnavailableError, match=r"decoder\.py"):
        manifest().base.read("decoder.py")  # type: ignore[union-attr]


def test_a_base_that_is_not_installed_is_named() -> None:
    with pytest.raises(ModelUnavailableError, match="no_such_package"):
        Base(package="no_such_package", licence="", files={"w": "0" * 64}).read("w")

"""Manifests: written and read back; malformed manifests and altered files are refused."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from models.forecast import catalog
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


GARBAGE = {
    "no JSON": b"{",
    "no text": b"\xff\xfe",
    "empty": b"",
    "null": b"null",
    "a list": b"[]",
    "nesting": b"[" * 100_000,
    "nesting in settings": b'{"settings": ' + b'{"a": ' * 50_000,
    "too large": b" " * (1 << 20) + b"{}",
}
WRONG = {
    "name": [["x"], 5, None, "", "x" * 129, {}, "a\n", "a\x1b[31m", "../x", "a/../x", "/a", "a/", "a b", "\u202ea"],
    "version": [1, ["1"], "1\n", "\x9b31m"],
    "kind": [None, 7],
    "files": [[], {"w": 5}, {"w": "0" * 63}, {"../w": "0" * 64}, {"a/b": "0" * 64}, None],
    "labels": ["abc", [1], [["a"]]],
    "quantile_levels": [[0.0], ["0.5"], 0.5],
    "base": [5, {"package": "x"}, {"package": "x", "licence": "y", "files": {"../../etc/passwd": "0" * 64}}],
    "settings": [[], 5],
    "lineage": [1],
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused(content: bytes) -> None:
    with pytest.raises(ModelUnavailableError, match=r"manifest\.json of 'm' is malformed: ") as refused:
        Manifest.read_from(content, "m")
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(("member", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_member_of_the_wrong_type_or_size_is_named(member: str, value: object) -> None:
    fields = {**json.loads(json.dumps(asdict(manifest()))), member: value}
    with pytest.raises(ModelUnavailableError, match=rf"is malformed: {member}"):
        Manifest.read_from(json.dumps(fields).encode(), "m")


def test_all_missing_members_are_named_at_once() -> None:
    known = {"kind": "forecast", "architecture": "auto", "name": "desk", "files": {}}
    with pytest.raises(ModelUnavailableError) as refused:
        Manifest.read_from(json.dumps(known).encode(), "m")
    needed = "version: Field required; licence: Field required; dtype: Field required"
    assert str(refused.value).endswith(f"is malformed: {needed}")


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


def test_unknown_fields_are_carried(folder: Path) -> None:
    fields = {**json.loads((folder / FILE_NAME).read_text()), "surprise": {"a": [1]}, "extra": 5}
    (folder / FILE_NAME).write_text(json.dumps(fields))
    found = Manifest.of(folder)
    assert found.extra == {"surprise": {"a": [1]}, "extra": 5}
    found.write(folder)
    assert json.loads((folder / FILE_NAME).read_text()) == fields


def test_a_model_without_files_survives_writing_and_reading(tmp_path: Path) -> None:
    manifest(files={}, lineage={"job": "1"}).write(tmp_path)
    assert Manifest.of(tmp_path) == manifest(files={}, lineage={"job": "1"})


def test_linked_files_are_the_listed_ones_and_checked(folder: Path) -> None:
    (folder / "unlisted.py").write_text("raise SystemExit")
    with manifest().linked(folder) as links:
        assert [path.name for path in links.iterdir()] == ["w.safetensors"]
        assert (links / "w.safetensors").read_bytes() == CONTENT
    (folder / "w.safetensors").write_bytes(b"other")
    with pytest.raises(ModelUnavailableError, match="SHA-256"), manifest().linked(folder):
        pass


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "sentiment", "surprise": 1}'])
def test_a_malformed_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ModelUnavailableError, match=FILE_NAME):
        Manifest.of(tmp_path)


def test_the_manifests_of_the_documents_are_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    texts = re.findall(r"```json\n(\{.*?\n\})\n```", page, re.DOTALL)
    desk, tone = (Manifest.read_from(text.replace("64 hexadecimal digits", "0" * 64).encode(), "m") for text in texts)
    assert catalog.of_folder(desk, tmp_path).name == "desk"
    assert (tone.kind, tone.architecture, len(tone.files)) == ("sentiment", "transformers", 4)


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

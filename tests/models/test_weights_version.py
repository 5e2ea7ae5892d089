"""The version of a folder: whatever changes the answers changes the version."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from models.weights_version import weights_version

FILES = {
    "model.safetensors": "1", "config.json": "2", "tokenizer.json": "3", "vocab.txt": "4",
    "generation_config.json": "5", "pytorch_model.bin": "6", "spiece.model": "7",
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name, text in FILES.items():
        (made / name).write_text(text)
    return made


def version(folder: Path, **config: str) -> str:
    return weights_version(str(folder), SimpleNamespace(**config))


def test_every_file_that_is_read_counts_by_name_and_content(folder: Path) -> None:
    """Two folders with other configurations or tokenisers had one version."""
    first = version(folder)
    assert len(first) == 12
    found = {first}
    for name, text in FILES.items():
        for changed in (f"{text}0", None):
            (folder / name).write_text(changed) if changed else (folder / name).unlink()
            found.add(version(folder))
        (folder / name).write_text(text)
    (folder / "config.json").rename(folder / "other.json")
    found.add(version(folder))
    assert len(found) == 2 + 2 * len(FILES)
    (folder / "other.json").rename(folder / "config.json")
    (folder / "README.md").write_text("changed")
    (folder / "runs.json").mkdir()
    assert version(folder) == first


def test_an_adapter_counts_with_its_base(folder: Path, tmp_path: Path) -> None:
    """The configuration of an adapter is that of its base."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_text("8")
    first = version(adapter, _name_or_path=str(folder))
    (folder / "model.safetensors").write_text("9")
    on_hub = {version(adapter, _name_or_path="owner/base", _commit_hash=commit * 20) for commit in ("ab", "cd")}
    assert len({first, version(adapter, _name_or_path=str(folder)), version(adapter), *on_hub}) == 5


def test_a_model_of_the_hub_has_the_version_of_its_commit() -> None:
    assert weights_version("owner/name", SimpleNamespace(_commit_hash="0123456789abcdef")) == "0123456789ab"

"""The version of a pretrained model: the hub's commit, or a digest of the files in a local folder."""

import hashlib
from pathlib import Path
from typing import Any, Final

from models.regular_file import opened

_READ: Final = {".bin", ".jinja", ".json", ".model", ".safetensors", ".txt"}
"""Endings of weights, configurations and vocabularies, as libraries read these: each may change the answers."""


def weights_version(source: str, config: Any) -> str:
    """Twelve hex digits for the model at ``source``, a folder or hub id; ``config`` is that of transformers.

    The configuration of an adapter is that of its base, which is another folder or on the hub.
    """
    folder, commit = Path(source), str(getattr(config, "_commit_hash", None) or "")
    if commit and not folder.is_dir():
        return commit[:12]
    base = Path(getattr(config, "_name_or_path", None) or source)
    digest = hashlib.sha256(commit.encode())
    for place in dict.fromkeys((folder, base)):
        for path in sorted(place.glob("*")):
            if path.suffix in _READ and not path.is_dir():
                with opened(path) as file:
                    digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]

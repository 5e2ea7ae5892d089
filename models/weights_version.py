"""The version of the weights of a pretrained model: the hub's commit, or a digest of the files in a local folder."""

import hashlib
from pathlib import Path
from typing import Any

from models.regular_file import opened


def weights_version(source: str, config: Any) -> str:
    """Twelve hex digits for the weights at ``source``, a folder or hub id; ``config`` is that of transformers."""
    commit = getattr(config, "_commit_hash", None)
    if commit:
        return str(commit)[:12]
    digest = hashlib.sha256()
    for path in sorted(Path(source).glob("*.safetensors")):
        with opened(path) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]

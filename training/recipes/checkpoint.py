"""State of a training run in a folder: tensors as safetensors, the rest as JSON. No pickle.

Owns the two files and that these belong together: the JSON names the digest of the tensors.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

TENSORS, STATE = "state.safetensors", "state.json"


class WrongCheckpointError(Exception):
    """The folder's files do not belong together, or to this recipe."""


def save(folder: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Write both files, the JSON last."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    (folder / TENSORS).write_bytes(content)
    described = {**state, "tensors_sha256": hashlib.sha256(content).hexdigest()}
    (folder / STATE).write_text(json.dumps(described), encoding="utf-8")


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both files' content. Raises WrongCheckpointError."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        content = (folder / TENSORS).read_bytes()
    except (OSError, ValueError) as error:
        raise WrongCheckpointError(f"the checkpoint cannot be read: {type(error).__name__}") from error
    if hashlib.sha256(content).hexdigest() != state.get("tensors_sha256"):
        raise WrongCheckpointError("the checkpoint's tensors are not those that its state names")
    return safetensors.torch.load(content), state

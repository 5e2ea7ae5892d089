"""Sentiment models of transformers: any sequence classifier with the three labels, from a folder or a hub id."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.manifest import Manifest
from models.missing_weights import refuse_missing
from models.model import ModelUnavailableError
from models.sentiment import EMBEDDED, precision
from models.sentiment.batch import parts
from models.sentiment.chunk import Probabilities
from models.sentiment.labels import order
from models.sentiment.model import Expected, SentimentModel
from models.sentiment.text import Ids, Windows
from models.sentiment.torch_network import CPU_BUDGET, CUDA_BUDGET, on_host, rounded
from models.weights_version import weights_version

LONGEST_WINDOW = 512

_PROBES = ("Profit rose sharply.", "Shares plunged after the profit warning.", "The meeting is on Monday.")


def load(
    source: str, device: torch.device, dtype: torch.dtype, manifest: Manifest | None, stored: Expected | None
) -> SentimentModel:
    """The classifier at ``source``, a folder or hub id, under the name and version of ``manifest``, if given.

    ``stored``: answers for self-tests; without them, the answers right after loading. Raises ModelUnavailableError.
    """
    config, tokenizer, model = _transformers(source, manifest)
    labels = order(_labels(config, manifest))
    network = PretrainedNetwork(model, tokenizer.pad_token_id or 0, labels, device, dtype)
    windows = Windows(tokenizer.backend_tokenizer, _window(config, tokenizer))
    recorded = _recorded(windows, network)
    if manifest is not None:
        return SentimentModel(manifest.name, manifest.version, windows, network, stored or recorded)
    name = Path(source).name if Path(source).is_dir() else source
    return SentimentModel(name, weights_version(source, config), windows, network, recorded)


class PretrainedNetwork:
    """A transformers sequence classifier, on rectangles padded to the longest sequence of each part."""

    def __init__(
        self, model: Any, padding: int, order: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.dtype = precision.name(dtype)
        self._model = model.to(device=device, dtype=dtype).eval()
        self._padding = padding
        self._order = list(order)
        self._device = device
        self._budget = CUDA_BUDGET if device.type == "cuda" else CPU_BUDGET

    def size(self, length: int) -> int:
        return rounded(length)

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        with torch.inference_mode():
            answers = [
                self._logits(sequences[part]).float().softmax(1)[:, self._order]
                for part in parts([len(sequence) for sequence in sequences], self._budget)
            ]
            return on_host(answers)

    def _logits(self, sequences: Sequence[Ids]) -> Tensor:
        shape = (len(sequences), max(map(len, sequences)))
        ids, mask = np.full(shape, self._padding), np.zeros(shape, dtype=np.int64)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._device.type == "cuda":
            inputs = {name: values.pin_memory().to(self._device, non_blocking=True) for name, values in inputs.items()}
        logits: Tensor = self._model(**inputs).logits
        return logits


def _labels(config: Any, manifest: Manifest | None) -> Mapping[int, str]:
    """The names of the outputs: those of the manifest where it has any, else those of the configuration."""
    names: Mapping[int, str] = config.id2label
    return dict(enumerate(manifest.labels)) if manifest is not None and manifest.labels else names


def _transformers(source: str, manifest: Manifest | None) -> tuple[Any, Any, Any]:
    """Configuration, fast tokeniser and network. Weights come from safetensors only; no code of the source is run."""
    named = source if manifest is None else manifest.name
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(source)
        order(_labels(config, manifest))
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError) as away:
        reason = str(away).splitlines()[0]
        reason = reason.replace(source, named)
        raise ModelUnavailableError(f"{named!r} is neither {EMBEDDED!r} nor a model to be had here: {reason}") from away
    refuse_missing(named, info)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelUnavailableError(f"{named!r} has no fast tokeniser (tokenizer.json)")
    return config, tokenizer, model


def _window(config: Any, tokenizer: Any) -> int:
    """The window in tokens. RoBERTa's positions begin after the padding id."""
    reserved = config.pad_token_id + 1 if "roberta" in config.model_type or config.model_type == "camembert" else 0
    return int(min(config.max_position_embeddings - reserved, tokenizer.model_max_length, LONGEST_WINDOW))


def _recorded(windows: Windows, network: PretrainedNetwork) -> Expected:
    """The network's answers right after loading, for later self-tests: a transformers folder has no stored answers.

    Raises ModelUnavailableError when the answers are not probabilities.
    """
    answers = [network.probabilities([ids])[0] for (ids,) in windows.of(_PROBES)]
    probabilities = np.stack(answers)
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ModelUnavailableError("the model's answers are not finite probabilities")
    return Expected(_PROBES, probabilities)

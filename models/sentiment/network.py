"""Networks from token sequences to probabilities: the packed MiniLM, or any transformers sequence classifier."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from models.sentiment.batch import parts
from models.sentiment.chunk import Probabilities
from models.sentiment.encoder import Classifier, Packed
from models.sentiment.text import Ids

CPU_BUDGET = 1024
CUDA_BUDGET = 16_384


class Network(Protocol):
    """A loaded network on a device. Called by one thread."""

    dtype: torch.dtype

    def size(self, length: int) -> int:
        """The cost of a sequence of this length, in tokens with padding."""
        ...

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        """Float32 [n, 3], negative, neutral, positive, for n sequences ordered by length."""
        ...


class PackedNetwork:
    """The MiniLM classifier: without padding on the CPU, padded to the longest sequence of a part on CUDA."""

    def __init__(self, model: Classifier, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._model = model.to(device, dtype)
        self._device = device
        self._pack = Packed.padded if device.type == "cuda" else Packed.of
        self._budget = CUDA_BUDGET if device.type == "cuda" else CPU_BUDGET

    def size(self, length: int) -> int:
        return _rounded(length) if self._device.type == "cuda" else length

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        tensors = [torch.from_numpy(sequence) for sequence in sequences]
        with torch.inference_mode():
            answers = [
                self._model(self._pack(tensors[part]).to(self._device)).float().softmax(1)
                for part in parts([len(tensor) for tensor in tensors], self._budget)
            ]
            return _on_host(answers)


class PretrainedNetwork:
    """A transformers sequence classifier, on rectangles padded to the longest sequence of each part."""

    def __init__(
        self, model: Any, padding: int, order: Sequence[int], device: torch.device, dtype: torch.dtype
    ) -> None:
        self.dtype = dtype
        self._model = model.to(device=device, dtype=dtype).eval()
        self._padding = padding
        self._order = list(order)
        self._device = device
        self._budget = CUDA_BUDGET if device.type == "cuda" else CPU_BUDGET

    def size(self, length: int) -> int:
        return _rounded(length)

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        with torch.inference_mode():
            answers = [
                self._logits(sequences[part]).float().softmax(1)[:, self._order]
                for part in parts([len(sequence) for sequence in sequences], self._budget)
            ]
            return _on_host(answers)

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


def _on_host(answers: Sequence[Tensor]) -> Probabilities:
    joined: Probabilities = torch.cat(list(answers)).cpu().numpy()
    return joined


def _rounded(length: int) -> int:
    """The length rounded up to a multiple of 16, an estimate of the padding in a batch ordered by length."""
    return -(-length // 16) * 16

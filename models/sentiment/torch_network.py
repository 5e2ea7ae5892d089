"""The MiniLM classifier by torch: on CUDA, and in bfloat16 on CPUs that multiply bfloat16 matrices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from models.sentiment import precision
from models.sentiment.batch import parts
from models.sentiment.chunk import Probabilities
from models.sentiment.encoder import Classifier, Packed
from models.sentiment.text import Ids

CPU_BUDGET = 1024
CUDA_BUDGET = 16_384


class PackedNetwork:
    """The MiniLM classifier: without padding on the CPU, padded to the longest sequence of a part on CUDA."""

    def __init__(self, model: Classifier, device: torch.device, dtype: torch.dtype) -> None:
        self.dtype = precision.name(dtype)
        self._model = model.to(device, dtype)
        self._device = device
        self._pack = Packed.padded if device.type == "cuda" else Packed.of
        self._budget = CUDA_BUDGET if device.type == "cuda" else CPU_BUDGET

    def size(self, length: int) -> int:
        return rounded(length) if self._device.type == "cuda" else length

    def probabilities(self, sequences: Sequence[Ids]) -> Probabilities:
        tensors = [torch.from_numpy(sequence) for sequence in sequences]
        with torch.inference_mode():
            answers = [
                self._model(self._pack(tensors[part]).to(self._device)).float().softmax(1)
                for part in parts([len(tensor) for tensor in tensors], self._budget)
            ]
            return on_host(answers)


def on_host(answers: Sequence[Tensor]) -> Probabilities:
    joined: Probabilities = torch.cat(list(answers)).cpu().numpy()
    return joined


def rounded(length: int) -> int:
    """The length rounded up to a multiple of 16, an estimate of the padding in a batch ordered by length."""
    return -(-length // 16) * 16

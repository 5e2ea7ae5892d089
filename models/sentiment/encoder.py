"""The BERT encoder of MiniLM in plain torch, over packed tokens, with mean pooling and a linear head.

For CUDA, bfloat16 and training; graph.py is the same for onnxruntime, weights.py reads the weights. Advantages over
transformers' BertModel: packed tokens need no padding, fused query-key-value projections are faster, and importing
transformers takes longer than the rest of the loading. The tests compare the results with BertModel.

Sources: Devlin et al., "BERT" (2019); Wang et al., "MiniLM" (2020); Reimers and Gurevych, "Sentence-BERT" (2019).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.sentiment.weights import Array, Shape


@dataclass(frozen=True)
class Packed:
    """Token sequences laid end to end, ordered by length, so that equal lengths are neighbours.

    `ids`, `positions`: int64 [tokens]. `runs`: (sequences, length) for each run of equal lengths. `real`: for a padded
    pack, bool [sequences, length], False for padding; a padded pack is one run.
    """

    ids: Tensor
    positions: Tensor
    runs: tuple[tuple[int, int], ...]
    real: Tensor | None = None

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> "Packed":
        """Pack int64 sequences, ordered by length, without padding. Raises ValueError when a length decreases."""
        lengths = [len(sequence) for sequence in sequences]
        if any(later < earlier for earlier, later in pairwise(lengths)):
            raise ValueError("sequences must be ordered by length")
        runs = tuple((count, length) for length, count in Counter(lengths).items())
        positions = torch.cat([torch.arange(length).repeat(count) for count, length in runs])
        return cls(torch.cat(list(sequences)), positions, runs)

    @classmethod
    def padded(cls, sequences: Sequence[Tensor]) -> "Packed":
        """Pack int64 sequences as one run, padded to the longest: fewer and larger kernels, for CUDA."""
        rectangle = nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
        count, length = rectangle.shape
        places = torch.arange(length)
        real = places < torch.tensor([len(sequence) for sequence in sequences])[:, None]
        return cls(rectangle.flatten(), places.repeat(count), ((count, length),), real)

    def to(self, device: torch.device) -> "Packed":
        """The same pack on a device; copies from pinned memory overlap with the device's work."""
        parts = [self.ids, self.positions, *([] if self.real is None else [self.real])]
        if device.type == "cuda":
            parts = [part.pin_memory() for part in parts]
        ids, positions, *real = (part.to(device, non_blocking=True) for part in parts)
        return Packed(ids, positions, self.runs, real[0] if real else None)

    def stretches(self, values: Tensor) -> list[Tensor]:
        """Split [tokens, width] into one [sequences, length, width] per run."""
        parts = torch.split(values, [count * length for count, length in self.runs])
        return [part.view(count, length, -1) for part, (count, length) in zip(parts, self.runs, strict=True)]


class SteadyLinear(nn.Linear):
    """A projection of float [rows, width]; for bfloat16 on CPUs in blocks of few sizes, padded with rows of zeros.

    oneDNN compiles a kernel for every number of rows and keeps it: texts of many lengths cost a replica 0.5 GB. oneDNN
    also adds up the products of a row of over 384 in an order that depends on the number of rows and of threads: an
    answer would depend on the batch. The order is the same for up to 32 rows and for 384.
    """

    def forward(self, values: Tensor) -> Tensor:
        if self.training or values.dtype != torch.bfloat16 or values.device.type != "cpu":
            return super().forward(values)
        padded = F.pad(values, (0, 0, 0, -len(values) % 16))
        large = len(padded) // 384 * 384
        blocks = torch.split(padded[:large], 384) if large else ()
        rest = torch.split(padded[large:], 384 if self.in_features <= 384 else 32)
        return torch.cat([super(SteadyLinear, self).forward(block) for block in (*blocks, *rest)])[: len(values)]


class Layer(nn.Module):
    """Self-attention and feed-forward, each followed by residual and norm."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.heads = shape.heads
        self.dropout = dropout
        self.qkv = SteadyLinear(shape.width, 3 * shape.width)
        self.out = SteadyLinear(shape.width, shape.width)
        self.attention_norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.up = SteadyLinear(shape.width, shape.inner)
        self.down = SteadyLinear(shape.inner, shape.width)
        self.output_norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)

    def forward(self, hidden: Tensor, packed: Packed) -> Tensor:
        """Float [tokens, width] in and out; tokens attend only to real tokens of the same sequence."""
        attended = self._drop(self.out(self._attend(self.qkv(hidden), packed)))
        hidden = self.attention_norm(hidden + attended)
        normed: Tensor = self.output_norm(hidden + self._drop(self.down(F.gelu(self.up(hidden)))))
        return normed

    def _attend(self, qkv: Tensor, packed: Packed) -> Tensor:
        visible = None if packed.real is None else packed.real[:, None, None, :]
        mixed = []
        for stretch in packed.stretches(qkv):
            heads = stretch.view(*stretch.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=visible)
            mixed.append(attended.transpose(1, 2).flatten(2).flatten(0, 1))
        return torch.cat(mixed)

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)


class Classifier(nn.Module):
    """The encoder with mean pooling over all tokens of a sequence and a linear head."""

    def __init__(self, shape: Shape, labels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.words = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.positions, shape.width)
        self.embedding_norm = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.layers = nn.ModuleList(Layer(shape, dropout) for _ in range(shape.layers))
        self.head = nn.Linear(shape.width, labels)
        self.dropout = dropout

    @classmethod
    def of(cls, weights: Mapping[str, Array], shape: Shape | None = None, dropout: float = 0.0) -> "Classifier":
        """A classifier in float32 on the CPU with a copy of the weights; the default shape is that of MiniLM."""
        model = cls(shape or Shape(), len(weights["head.bias"]), dropout)  # device "meta" saves 0.2 s, imports for 2 s
        model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, assign=True)
        return model

    def forward(self, packed: Packed) -> Tensor:
        """Logits, float [sequences, labels], in the order of the packed sequences."""
        logits: Tensor = self.head(self.embed(packed))
        return logits

    def embed(self, packed: Packed) -> Tensor:
        """Mean of the last layer over each sequence, float [sequences, width]."""
        hidden = self.embedding_norm(self.words(packed.ids) + self.places(packed.positions))
        hidden = F.dropout(hidden, self.dropout, self.training)
        for layer in self.layers:
            hidden = layer(hidden, packed)
        if packed.real is None:
            return torch.cat([stretch.mean(1) for stretch in packed.stretches(hidden)])
        real = packed.real[:, :, None].to(hidden.dtype)
        return (packed.stretches(hidden)[0] * real).sum(1) / real.sum(1)

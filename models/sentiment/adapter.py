"""Low-rank adapters (LoRA) of the encoder's projections: training form and stored form.

Owns the arithmetic of LoRA (Hu et al., 2021) and the names of the stored tensors; weights.py merges a stored adapter.
The fused query-key-value projection has three adapters, one for each part.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.sentiment.encoder import Classifier
from models.sentiment.weights import PROJECTIONS


class Adapted(nn.Module):
    """A frozen linear map plus scale * B A x, with `parts` adapters for equal slices of the outputs."""

    def __init__(self, linear: nn.Linear, parts: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(parts * rank, linear.in_features) / linear.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(parts, linear.out_features // parts, rank))
        self.scale = scale
        self.dropout = dropout

    def forward(self, values: Tensor) -> Tensor:
        """Float [tokens, in] to float [tokens, out]."""
        parts, _, rank = self.b.shape
        low = F.linear(F.dropout(values, self.dropout, self.training), self.a).view(-1, parts, rank)
        correction = torch.bmm(low.transpose(0, 1), self.b.transpose(1, 2)).transpose(0, 1)
        return torch.add(self.linear(values), correction.reshape(len(values), -1), alpha=self.scale)


def adapt(model: Classifier, rank: int, scale: float, dropout: float) -> None:
    """Add adapters to every projection, in place, and freeze all other weights except the head."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.head.requires_grad_(True)
    for layer in model.layers:
        for name, parts in PROJECTIONS.items():
            setattr(layer, name, Adapted(getattr(layer, name), parts, rank, scale, dropout))


def stored(model: Classifier) -> dict[str, Tensor]:
    """The trained tensors of an adapted model, in float16: `layers.N.NAME.a` and `.b`, `head.weight`, `head.bias`."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return {name: value.detach().to(torch.float16).contiguous() for name, value in trained.items()}

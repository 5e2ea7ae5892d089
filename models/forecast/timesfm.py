"""TimesFM 2.5 (transformers, Apache-2.0) from a local folder or a hub id.

Owns loading, scaling and blocks. The scaling of the network counts padding as zeros, and the clamp at zero looks at the
whole batch; here every series is standardised and clamped alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.forecast.pretrained import Blockwise, Pretrained
from models.forecast.series import Array, Forecast, Series
from models.missing_weights import refuse_missing
from models.model import Model, ModelUnavailableError
from models.weights_version import weights_version


def load(name: str, device: str, source: str | None, backtests: int) -> Model[Series, Forecast]:
    """TimesFM with the weights at ``source``."""
    if source is None:
        raise ModelUnavailableError(f"{name} needs a source: a local folder or a hub id with its weights")
    try:
        from transformers import TimesFm2_5ModelForPrediction
    except ImportError as error:
        raise ModelUnavailableError(f"{name} needs transformers 5 or later: pip install 'transformers>=5'") from error
    try:
        network, info = TimesFm2_5ModelForPrediction.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError) as error:
        raise ModelUnavailableError(f"{name}: no TimesFM 2.5 weights at {source}: {error}") from error
    refuse_missing(name, info)
    network = network.to(device).eval()
    return Pretrained(name, TimesFm(network, weights_version(source, network.config)), backtests)


class TimesFm(Blockwise):
    """The network over standardised contexts, in blocks of the output length."""

    def __init__(self, network: Any, version: str) -> None:
        self.version = version
        self.device: torch.device = network.device
        self.levels = tuple(network.config.quantiles)
        self.longest: int = network.config.context_length
        self._network = network
        self.block: int = min(network.config.horizon_length, network.config.output_quantile_len)
        self._patch: int = network.config.patch_length

    def _next_block(self, contexts: Sequence[Array]) -> torch.Tensor:
        """[b, block, levels]. Rows meet only rows padded to the same number of patches."""
        patches = [-(-len(context) // self._patch) for context in contexts]
        shape = len(contexts), self.block, len(self.levels)
        found = torch.empty(shape, dtype=torch.float64, device=self.device)
        for size in sorted(set(patches)):
            rows = [row for row, own in enumerate(patches) if own == size]
            places = torch.tensor(rows, device=self.device)
            found[places] = self._forward([contexts[row] for row in rows], size * self._patch)
        return found

    def _forward(self, contexts: Sequence[Array], length: int) -> torch.Tensor:
        middle = np.array([context.mean() for context in contexts])
        spread = np.array([context.std() or 1.0 for context in contexts])
        pairs = zip(contexts, middle, spread, strict=True)
        inputs = [torch.from_numpy((context - mean) / sd).to(self.device, torch.float32) for context, mean, sd in pairs]
        answer = self._network(past_values=inputs, forecast_context_len=length, truncate_negative=False)
        # The first column is the mean; the levels follow.
        found = answer.full_predictions[:, : self.block, 1:].double()
        scale, offset = (torch.from_numpy(part).to(self.device)[:, None, None] for part in (spread, middle))
        floor = torch.from_numpy(np.array([0.0 if context.min() >= 0 else -np.inf for context in contexts]))
        return torch.maximum(found * scale + offset, floor.to(self.device)[:, None, None])

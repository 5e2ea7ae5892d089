"""Fracast (PyPI `fracast`, Apache-2.0): an 85,001-parameter network, fast on short contexts.

Owns loading, the window and the blocks of 48 steps. The package pads every context to 2048 positions and runs all
positions; here the core runs on the last positions, and the states of padding come from one run over padding alone.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from models.forecast.blended import Blended
from models.forecast.pretrained import Blockwise, Pretrained
from models.forecast.series import Array, Forecast, Series
from models.model import Model, ModelUnavailableError
from models.staging import to_device

# The head looks back 128 positions: the shortest window.
_WINDOWS = (128, 192, 256, 384, 512, 768, 1024, 1536, 2048)
# Larger batches don't go faster: the activations leave the cache.
_ROWS = 8
_CONSTANT_SPAN = 1e-5


def load(name: str, device: str, source: str | None, backtests: int) -> Model[Series, Forecast]:
    """`fracast` alone, or `auto_fracast`: `auto` with Fracast mixed into the autoregression.

    ``source`` is a folder or hub id of other weights; None takes the weights inside the package.
    """
    from fracast import FracastModel

    try:
        network = FracastModel.from_pretrained(source, weights="fp32", device=device)
    except (OSError, RuntimeError) as error:
        raise ModelUnavailableError(f"{name}: no Fracast weights at {source or 'the package'}: {error}") from error
    foundation = Fracast(network)
    if name == "auto_fracast":
        return Blended(name, foundation, backtests)
    return Pretrained(name, foundation, backtests)


class Fracast(Blockwise):
    """The network behind a short window. With ``short`` false the whole 2048 positions run, as the package does."""

    def __init__(self, network: Any, *, short: bool = True) -> None:
        self.version = version("fracast")
        self.device: torch.device = network.device
        self.levels = tuple(network.quantiles)
        self.longest: int = network.context_length
        self._core, self._head = network.core, network.head
        self.block: int = network.horizon
        self._short = short
        with torch.inference_mode():
            self._padding = self._padding_states()

    def _next_block(self, contexts: Sequence[Array]) -> torch.Tensor:
        """[b, 48, 9]. Rows meet only rows of the same window, since the window's edge is an approximation."""
        windows = [self._window(len(context)) for context in contexts]
        order = sorted(range(len(contexts)), key=windows.__getitem__)
        found = torch.empty(len(contexts), self.block, len(self.levels), dtype=torch.float64, device=self.device)
        for window in sorted(set(windows)):
            same = [row for row in order if windows[row] == window]
            for start in range(0, len(same), _ROWS):
                rows = same[start : start + _ROWS]
                places = torch.tensor(rows, device=self.device)
                found[places] = self._forward([contexts[row] for row in rows], window)
        return found

    def _window(self, length: int) -> int:
        return next(window for window in _WINDOWS if window >= length) if self._short else self.longest

    def _forward(self, contexts: Sequence[Array], window: int) -> torch.Tensor:
        """[b, 48, 9] from contexts of at most ``window`` points, scaled to [0, 1]."""
        values = np.zeros((len(contexts), window))
        known = np.zeros((len(contexts), window), dtype=bool)
        low = np.array([context.min() for context in contexts])[:, None, None]
        span = np.array([np.ptp(context) or _CONSTANT_SPAN for context in contexts])[:, None, None]
        for row, context in enumerate(contexts):
            values[row, window - len(context) :] = (context - low[row, 0]) / span[row, 0]
            known[row, window - len(context) :] = True
        scaled = to_device(values, self.device).float()
        mask = to_device(known, self.device)
        whole = torch.nn.functional.pad(scaled, (self.longest - window, 0))
        whole_mask = torch.nn.functional.pad(mask, (self.longest - window, 0))
        states = self._encode(whole, whole_mask, window)
        head: torch.Tensor = self._head.forward_horizon(states, ctx=whole, ctx_mask=whole_mask)
        return head.double() * to_device(span, self.device) + to_device(low, self.device)

    def _encode(self, values: torch.Tensor, mask: torch.Tensor, window: int) -> torch.Tensor:
        """The core's states [b, 2048, D], with the last ``window`` computed."""
        state = self._embed(values, mask)[:, -window:]
        core, start = self._core, self.longest - window
        for stage, dilation in enumerate(core.dilations()):
            reach = min(2 * dilation, start)
            left = self._padding[stage][start - reach : start].expand(len(state), -1, -1)
            state = self._stage(left, state, dilation)
        return torch.cat([self._padding[-1][:start].expand(len(state), -1, -1), core.norm(state)], dim=1)

    def _stage(self, left: torch.Tensor, state: torch.Tensor, dilation: int) -> torch.Tensor:
        """One causal block over ``state`` [b, C, D]; the taps also reach into ``left`` [b, R, D], R <= 2 dilation."""
        block = self._core.block
        scaled = self._core.scale(torch.cat([left, state], dim=1), dilation)
        before = torch.nn.functional.pad(scaled, (0, 0, 2 * dilation - left.shape[1], 0)).mT
        taps = torch.nn.functional.conv1d(before, block.dw_weight, block.dw_bias, dilation=dilation, groups=block.d)
        mixed = block.norm1(scaled[:, left.shape[1] :] + block.pw(taps.mT))
        result: torch.Tensor = block.norm2(mixed + block.ffn(mixed))
        return result

    def _embed(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The core's input [b, 2048, D]: value, coverage, recency, and the phases of periods found in the whole."""
        from fracast._core.periodic.official_encoding import _recency_encoding

        core = self._core
        place = torch.arange(self.longest, device=self.device).expand(len(values), -1)
        features = [values[..., None], mask[..., None].to(values.dtype), _recency_encoding(place, self.longest)]
        state: torch.Tensor = core.in_proj(torch.cat(features, dim=-1)) + core.periodic(values, mask, core.level_widths)
        return state

    def _padding_states(self) -> list[torch.Tensor]:
        """The states [2048, D] before every stage and after the last norm, for padding alone."""
        nothing = torch.zeros(1, self.longest, device=self.device)
        state = self._embed(nothing, nothing.bool())
        states = []
        for dilation in self._core.dilations():
            states.append(state[0])
            state = self._stage(state[:, :0], state, dilation)
        return [*states, self._core.norm(state)[0]]

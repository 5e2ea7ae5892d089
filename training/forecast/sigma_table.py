"""`python -m training.forecast.sigma_table`: fit the pooled table of volatility of `auto` version 2.

Owns the fit of models/forecast/sigma_table.json: pinball loss of the random walk at seven levels, over rolling origins,
minimised by L-BFGS with a small ridge; about a minute. Every series, horizon and context length counts alike; within
one, losses count in prices. The memory of the steps (models/forecast/memory.py) is left out: on these series it changes
no loss by more than .0005.

Series: adjusted daily closes of GOOG, AAPL, IBM, MSFT (packages backtesting and bokeh_sampledata), of the S&P 500 and
the Nasdaq Composite (package arch, folder --arch), and hourly EURUSD (backtesting).
"""

import argparse
import json
import math
from pathlib import Path

import backtesting.test
import bokeh_sampledata.stocks as stocks
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from models.forecast import sigma_table, student
from models.forecast.path import make_path
from models.forecast.volatility import Origins

HORIZONS = np.array([1, 2, 3, 5, 8, 12, 16, 24, 48])
# Long horizons have few independent origins.
SHARES = np.where(HORIZONS <= 24, 1.0, 0.2)
LEVELS = np.array([0.01, 0.05, *np.arange(1, 10) / 10, 0.95, 0.99])
TAIL_LEVELS = (0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
# Context, and steps between origins.
WINDOWS = ((256, 4), (64, 13))
RIDGE = 1e-3
# The constants are fitted to the series in which the loss is measured: on others the bands would be a little narrow.
WIDENING = 1.02
ROUNDS = 80

Floats = NDArray[np.float64]


def series(arch: Path) -> dict[str, Floats]:
    """The prices by name."""
    found = {"GOOG": backtesting.test.GOOG["Close"], "EURUSD": backtesting.test.EURUSD["Close"]}
    found |= {name: getattr(stocks, name)["adj_close"] for name in ("AAPL", "IBM", "MSFT")}
    for name in ("sp500", "nasdaq"):
        found[name] = pd.read_csv(arch / "data" / name / f"{name}.csv.gz")["Adj Close"].dropna()
    return {name: np.ascontiguousarray(values, dtype=np.float64) for name, values in found.items()}


def block(values: Floats, context: int, every: int) -> list[Floats]:
    """Of one series: s [n], features [n, 7], moves ahead [n, H], weights [n, H]."""
    starts = range(0, len(values) - context - int(HORIZONS[-1]) + 1, every)
    windows = np.stack([values[start : start + context] for start in starts])
    path = make_path(windows, np.full(len(windows), context - 1.0), padded=False)
    end = np.array([[context - 1]])
    sigma, features = sigma_table.measures(path, path.step * path.step, Origins(end, path.level[:, -1:], None, None))
    logs = np.log(values)
    ahead = np.stack([logs[start + context - 1 + HORIZONS] - logs[start + context - 1] for start in starts])
    weight = np.repeat(windows[:, -1:], len(HORIZONS), axis=1)
    weight *= SHARES / (weight * np.abs(ahead)).sum(0)
    return [sigma[:, 0], features[:, :, 0], ahead, weight]


def fit(blocks: list[list[Floats]]) -> Floats:
    """The constants: now [8], growth [8], tails [levels, 2]."""
    sigma, features, ahead, weight = (torch.from_numpy(np.concatenate(column)) for column in zip(*blocks, strict=True))
    growth, root = torch.from_numpy(sigma_table.scale(HORIZONS)), torch.from_numpy(np.sqrt(HORIZONS))
    plain = torch.from_numpy(student.table(tuple(LEVELS), "cpu")[HORIZONS - 1])
    levels = torch.from_numpy(LEVELS)
    width = features.shape[1] + 1
    found = torch.zeros(2 * width + 2 * len(TAIL_LEVELS), dtype=torch.float64, requires_grad=True)
    place = [TAIL_LEVELS.index(round(max(level, 1 - level), 6)) if level != 0.5 else 0 for level in LEVELS]

    def loss() -> torch.Tensor:
        now, grown = found[:width], found[width : 2 * width]
        tails = found[2 * width :].view(-1, 2)
        exponent = (now[0] + features @ now[1:])[:, None] + (grown[0] + features @ grown[1:])[:, None] * growth
        limit = sigma_table.LARGEST_EXPONENT
        deviation = sigma[:, None] * torch.exp(exponent.clamp(-limit, limit)) * root
        factor = torch.exp(tails[place, 0] + tails[place, 1] * growth[:, None])
        gap = ahead[:, :, None] - deviation[:, :, None] * (plain * factor)
        pinball = torch.maximum(levels * gap, (levels - 1) * gap).sum(2)
        return (pinball * weight).sum() / len(blocks) + RIDGE * found.square().sum()

    optimiser = torch.optim.LBFGS([found], max_iter=ROUNDS, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return found.detach().numpy()


def main() -> None:
    """Fit and write the constants."""
    parser = argparse.ArgumentParser(prog="python -m training.forecast.sigma_table", description=__doc__)
    parser.add_argument("--arch", type=Path, required=True, metavar="FOLDER", help="the package arch, unpacked")
    parser.add_argument("--out", type=Path, default=sigma_table.FILE, help="default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    prices = series(options.arch)
    blocks = [block(values, context, every) for context, every in WINDOWS for values in prices.values()]
    found = fit(blocks)
    width = sigma_table.FEATURES + 1
    found[2 * width :: 2] += math.log(WIDENING)
    found = np.round(found, 5)
    document = {
        "made_by": "training/forecast/sigma_table.py",
        "series": {name: len(values) for name, values in prices.items()},
        "features": "ln of variance over s^2: 8 steps, .999, .94, .97, sizes .94; newest 8 steps over s; newest over s",
        "now": found[:width].tolist(),
        "growth": found[width : 2 * width].tolist(),
        "levels": list(TAIL_LEVELS),
        "tails": found[2 * width :].reshape(-1, 2).tolist(),
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"{len(found)} constants written to {options.out}")


if __name__ == "__main__":
    main()

"""The formulas of the forecasters for one series at a time, in plain float64 numpy and scipy.

Independent of the product: written from the formulas, as the reference of the batched code.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm as normal
from scipy.stats import t as student

Array = NDArray[np.float64]
Levels = tuple[float, ...]
TABLE = Path(__file__).resolve().parents[3] / "models" / "forecast" / "sigma_table.json"


def transform(x: Array) -> tuple[Array, bool]:
    """(log x, True) where logarithms are used, else (x, False)."""
    if x.min() > 0 and np.abs(np.diff(np.log(x))).max() < 2:
        return np.log(x), True
    return x.copy(), False


def t_edges(horizon: int, levels: Levels) -> Array:
    h = np.arange(1, horizon + 1)
    nu = np.minimum(4 + 4 * np.log(h) / np.log(48), 30)
    return np.stack([student.ppf(a, nu) * np.sqrt((nu - 2) / nu) for a in levels], axis=1)


def ewma(d: Array, decay: float) -> float:
    weights = decay ** np.arange(len(d))[::-1]
    return np.sqrt((weights * d**2).sum() / weights.sum())


def smallest(x: Array, d: Array, logs: bool) -> float:
    """The floor under sigma: a tenth of the rms, and a millionth of the series' size."""
    return max(0.1 * np.sqrt((d**2).mean()), 1e-6 if logs else 1e-6 * (np.abs(x).max() or 1.0))


def vol_rw(x: Array, horizon: int, levels: Levels) -> Array:
    path, logs = transform(x)
    d = np.diff(path)
    s = max(1.05 * np.mean([ewma(d, decay) for decay in (0.94, 0.97, 0.99)]), smallest(x, d, logs))
    h = np.arange(1, horizon + 1)[:, None]
    band = path[-1] + s * np.sqrt(h) * t_edges(horizon, levels)
    return np.exp(band) if logs else band


def lower_median(values: Array) -> float:
    return np.sort(values)[(len(values) - 1) // 2]


def gate(x: Array) -> float:
    path, _ = transform(x)
    d = np.diff(path)
    n, sd = len(d), d.std()
    if sd == 0:
        return 0.0
    lags = min(n // 3, 100)
    theta = 2 * np.log(lags) / n
    centre = lower_median(d)
    scale = max(1.4826 * lower_median(np.abs(d - centre)), 0.1 * sd)
    z = np.clip((d - centre) / scale, -4, 4)
    z = z - z.mean()
    rho = np.array([(z[k:] * z[:-k]).sum() for k in range(1, lags + 1)]) / (z * z).sum()
    score = np.maximum(rho**2 - theta, 0).sum() + max((d.mean() / sd) ** 2 - theta, 0)
    score += max(reversion(path) - 12, 0) / n
    return float(np.clip((score - 0.02 - 2 / n) / 0.04, 0, 1))


def reversion(path: Array) -> float:
    """The squared Dickey-Fuller statistic where it is negative, at most 3 for each effective step."""
    d = np.diff(path)
    n = len(d)
    design = np.column_stack([np.ones(n), path[:-1] - path[:-1].mean()])
    beta = np.linalg.lstsq(design, d, rcond=None)[0]
    if beta[1] >= 0:
        return 0.0
    residual = d - design @ beta
    error = np.sqrt((residual**2).sum() / (n - 2) / (design[:, 1] ** 2).sum())
    products = (d - d.mean()) * design[:, 1]
    bound = 4 * np.abs(products).mean()
    products = np.clip(products, -bound, bound)
    return float(min((beta[1] / error) ** 2, 3 * products.sum() ** 2 / (products**2).sum()))


@dataclass
class Ridge:
    beta: Array
    lags: int
    scale: float
    drift: float
    centre: float
    deviation: float
    missed: Array


def scaled(d: Array, scale: float) -> Array:
    return np.clip(d / scale, -5, 5)


def ridge_fit(path: Array) -> Ridge:
    d = np.diff(path)
    n = len(d)
    scale = float(np.sqrt((d**2).mean()))
    y = scaled(d, scale)
    p = max(4, min(64, n // 4))
    mean, deviation = path[:-1].mean(), path[:-1].std()
    design = np.array([[*y[t - p : t], (path[t] - mean) / deviation] for t in range(p, n)])
    target = y[p:]
    weight = 0.995 ** np.arange(len(target))[::-1]
    share = weight / weight.sum()
    x_mean, y_mean = share @ design, share @ target
    xc, yc = design - x_mean, target - y_mean
    best = None
    for penalty in (0.3, 1, 3, 10, 30, 100):
        inverse = np.linalg.inv(xc.T @ (weight[:, None] * xc) + penalty * p / 4 * np.eye(p + 1))
        beta = inverse @ (xc.T @ (weight * yc))
        hat = weight * np.einsum("ij,jk,ik->i", xc, inverse, xc) + share
        missed = (yc - xc @ beta) / np.maximum(1 - hat, 0.05)
        loss = (weight * missed**2).sum()
        if best is None or loss < best[0]:
            best = loss, beta, missed
    _, beta, missed = best
    drift = y.mean() * max(1 - 4 / (n * y.mean() ** 2 / y.var()), 0)
    return Ridge(beta, p, scale, drift, mean + x_mean[-1] * deviation, deviation, missed)


def ridge_step(fit: Ridge, recent: Array, level: float, centre: float, drift: float) -> float:
    return drift + fit.beta[:-1] @ (recent - drift) + fit.beta[-1] / fit.deviation * (level - centre)


def ridge_forecast(fit: Ridge, path: Array, missed: Array, horizon: int) -> tuple[Array, Array]:
    """Median and standard deviation on the path, from the end."""
    recent, level, median = list(scaled(np.diff(path), fit.scale)[-fit.lags :]), path[-1], []
    ghost, height, psi = [0.0] * (fit.lags - 1) + [1.0], fit.scale, []
    for _ in range(horizon):
        moved = ridge_step(fit, np.array(recent[-fit.lags :]), level, fit.centre, fit.drift)
        recent.append(moved)
        level = level + fit.scale * moved
        median.append(level)
        psi.append(np.clip(height / fit.scale, -5, 5))
        moved = ridge_step(fit, np.array(ghost[-fit.lags :]), height, 0.0, 0.0)
        ghost.append(moved)
        height = height + fit.scale * moved
    half = (path.max() - path.min()) / 2
    sigma = np.mean([ewma(missed, decay) for decay in (0.97, 0.99, 1.0)])
    spread = sigma * fit.scale * np.sqrt(np.cumsum(np.square(psi)))
    return np.clip(median, path.min() - half, path.max() + half), spread


def ridge_ar(x: Array, horizon: int, levels: Levels) -> Array:
    path, logs = transform(x)
    fit = ridge_fit(path)
    median, spread = ridge_forecast(fit, path, fit.missed, horizon)
    band = median[:, None] + spread[:, None] * t_edges(horizon, levels)
    return np.exp(band) if logs else band


def ridge_coverage(x: Array, horizon: int) -> tuple[int, int]:
    """(kept, tried) in the latest half, with one fit on the older half and sigma following the errors."""
    path, _ = transform(x)
    n = len(path) - 1
    old = max(-(-n // 2), 29)
    fit = ridge_fit(path[: old + 1])
    y = scaled(np.diff(path), fit.scale)
    later = [y[t] - ridge_step(fit, y[t - fit.lags : t], path[t], fit.centre, fit.drift) for t in range(old, n)]
    missed = np.concatenate([fit.missed, later])
    kept, tried, origin = 0, 0, n - horizon
    while origin >= old and tried < 64:
        seen = missed[: len(fit.missed) + origin - old]
        median, spread = ridge_forecast(fit, path[: origin + 1], seen, horizon)
        edge = spread[-1] * t_edges(horizon, (0.9,))[-1, 0]
        kept += abs(path[origin + horizon] - median[-1]) <= edge
        tried += 1
        origin -= horizon
    return kept, tried


def auto_v1(x: Array, horizon: int, levels: Levels) -> Array:
    w = gate(x)
    walk = vol_rw(x, horizon, levels)
    return (1 - w) * walk + w * ridge_ar(x, horizon, levels) if w else walk


def pooled(x: Array, horizon: int, levels: Levels) -> Array:
    """The random walk of `auto` version 2."""
    path, logs = transform(x)
    d = np.diff(path)
    s = max(np.mean([ewma(d, decay) for decay in (0.94, 0.97, 0.99)]), smallest(x, d, logs))
    quick, lean = 0.7 ** np.arange(8)[::-1], 0.8 ** np.arange(8)[::-1]
    size = 0.94 ** np.arange(len(d))[::-1]
    variances = [
        quick @ d[-8:] ** 2 / quick.sum(),
        *(ewma(d, decay) ** 2 for decay in (0.999, 0.94, 0.97)),
        (size @ np.abs(d) / size.sum()) ** 2,
    ]
    with np.errstate(divide="ignore"):
        f = [*np.clip(np.log(np.array(variances) / s**2), -4, 4), lean @ d[-8:] / lean.sum() / s, d[-1] / s]
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    h = np.arange(1, horizon + 1)
    scale = np.log(np.minimum(h, 48)) / np.log(24)
    now, growth = (row[0] + np.dot(row[1:], f) for row in (table["now"], table["growth"]))
    sigma = s * np.exp(np.clip(now + growth * scale, -1.5, 1.5)) * np.sqrt(h * memory(d, h))
    known = normal.ppf(table["levels"])
    first, slope = (np.interp(np.abs(normal.ppf(levels)), known, column) for column in np.transpose(table["tails"]))
    edges = t_edges(horizon, levels) * np.exp(first + slope * scale[:, None])
    band = path[-1] + sigma[:, None] * edges
    return np.exp(band) if logs else band


def memory(d: Array, h: Array) -> Array:
    """The variance over ``h`` steps relative to a random walk's, by the autocorrelation at the first lag."""
    products = d[1:] * d[:-1]
    if not products.any():
        return np.ones(len(h))
    found = products.sum() / (np.sum(d**2) + 1e-12 * len(d)) * max(1 - 4 * np.sum(products**2) / products.sum() ** 2, 0)
    growth: Array = 1 + max(2 * found, -0.75) * (1 - 1 / h)
    return growth


def clustered_gate(x: Array) -> float:
    """The gate of `auto` version 2."""
    path, _ = transform(x)
    d = np.diff(path)
    n, sd = len(d), d.std()
    if sd == 0:
        return 0.0
    lags = min(n // 3, 100)
    theta = 2 * np.log(lags) / n
    centre = lower_median(d)
    z = np.clip((d - centre) / max(1.4826 * lower_median(np.abs(d - centre)), 0.1 * sd), -4, 4)
    z = z - z.mean()
    total = (z * z).sum()
    excess = []
    for k in range(1, lags + 1):
        inflated = n * (z[k:] ** 2 * z[:-k] ** 2).sum() / total**2
        excess.append(max(((z[k:] * z[:-k]).sum() / total) ** 2 - theta * max(inflated, 1), 0))
    evidence = reversion(path)
    score = sum(excess[3:]) + min(max(evidence - 14, 0) / 8, 1) * sum(excess[:3])
    score += max((d.mean() / sd) ** 2 - theta, 0) + max(evidence - 14, 0) / n
    return min(gate(x), float(np.clip((score - 0.04 - 2 / n) / 0.04, 0, 1)))


def vol_rw_coverage(x: Array, horizon: int) -> tuple[int, int]:
    """(kept, tried) on origins one horizon apart, latest first, with at least 29 steps behind an origin."""
    path, _ = transform(x)
    n, kept, tried = len(path) - 1, 0, 0
    origin = n - horizon
    while origin >= 29 and tried < 250:
        d = np.diff(path[: origin + 1])
        s = 1.05 * np.mean([ewma(d, decay) for decay in (0.94, 0.97, 0.99)])
        edge = s * np.sqrt(horizon) * t_edges(horizon, (0.9,))[-1, 0]
        kept += abs(path[origin + horizon] - path[origin]) <= edge
        tried += 1
        origin -= horizon
    return kept, tried

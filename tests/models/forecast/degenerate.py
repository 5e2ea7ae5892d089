"""Series with degenerate statistics (constants, jumps, ticks, halts, denormals, exact growth) and ordinary series.

Owns the strategies of the property tests on batches, of models and of the service.
"""

import numpy as np
from hypothesis import strategies as st

from models.forecast import Series
from models.forecast.series import Array

SCALES = (1.0, 100.0, 101.0, 0.1, 3.7, 1e-5, 1e9, 1e-300, 1e300, 5e-324)
RATIOS = (1.01, 1 + 1e-6, 1 + 1e-12, 0.99, 0.5, 1.5, 2.0, 3.0, float(np.exp(2.0)), 10.0, 100.0, -1.0, 0.0)
KINDS = (
    "constant",
    "first value differs",
    "last value differs",
    "one jump",
    "one spike",
    "two values",
    "alternating",
    "few moves",
    "ticks",
    "geometric ticks",
    "mostly zero steps",
    "halt at the end",
    "halt at the start",
    "rounding noise",
    "exact growth",
    "straight line",
    "stairs",
    "period",
    "sine",
    "denormals",
    "ramp to a cap",
    "walk",
    "noisy sine",
)


def make(kind: str, length: int, scale: float, ratio: float, place: int, seed: int) -> Array:
    """A series of ``kind``, [length]; ``place`` in [1, length) is where a jump, spike or halt lies."""
    rng, time = np.random.default_rng(seed), np.arange(length)
    walk = 100 * np.exp(np.cumsum(0.01 * rng.normal(size=length)))
    flat = np.full(length, scale)
    with np.errstate(all="ignore"):
        other = flat * ratio
    values = {
        "constant": flat,
        "first value differs": np.where(time == 0, flat, other),
        "last value differs": np.where(time == length - 1, other, flat),
        "one jump": np.where(time < place, flat, other),
        "one spike": np.where(time == place, other, flat),
        "two values": np.where(rng.random(length) < rng.random(), flat, other),
        "alternating": np.where(time % 2, flat, other),
        "few moves": np.cumsum(np.where(rng.random(length) < 4 / length, rng.choice([-1.0, 1.0], length), 0)) + 50,
        "ticks": np.round(100 / 0.01 + np.cumsum(rng.integers(-1, 2, length))) * 0.01,
        "geometric ticks": 100 * 1.01 ** np.cumsum(rng.integers(-1, 2, length)),
        "mostly zero steps": np.where(rng.random(length) < 0.8, 1.0, walk / 100),
        "halt at the end": np.where(time < place, walk, walk[place]),
        "halt at the start": np.where(time < place, walk[place], walk),
        "rounding noise": 100 * (1 + 2.0**-52 * rng.integers(-3, 4, length)),
        "exact growth": min(max(abs(ratio), 0.99), 1.5) ** time,
        "straight line": 7.0 * (1 + time),
        "stairs": 7.0 * (1 + time // 9),
        "period": np.tile(1 + rng.random(2 + seed % 7), length)[:length],
        "sine": 100 + 10 * np.sin(2 * np.pi * time / 12),
        "denormals": 5e-324 * rng.integers(0, 5, length),
        "ramp to a cap": np.minimum(time, place) + 10.0,
        "walk": walk,
        "noisy sine": 50 + 10 * np.sin(2 * np.pi * time / 12) + rng.normal(size=length),
    }[kind]
    return np.ascontiguousarray(np.clip(np.nan_to_num(values), -1e308, 1e308), dtype=np.float64)


@st.composite
def degenerate(draw: st.DrawFn, longest: int = 300) -> Array:
    """A series of any kind."""
    length = draw(st.integers(30, longest))
    place, seed = draw(st.integers(1, length - 1)), draw(st.integers(0, 1000))
    return make(
        draw(st.sampled_from(KINDS)), length, draw(st.sampled_from(SCALES)), draw(st.sampled_from(RATIOS)), place, seed
    )


LEVELS = st.sampled_from([(0.1, 0.5, 0.9), (0.5,), (1e-6, 0.1, 0.9, 1 - 1e-6)])
HORIZONS = st.sampled_from([1, 5, 24, 60, 365])
PERIODS = st.sampled_from([0, 0, 7, 24])
HOUR = 3_600_000_000_000


@st.composite
def batches(draw: st.DrawFn, largest: int = 6) -> list[Series]:
    """Series of any kinds and shapes; often of equal length (no padding) or of equal horizon, some with a period.

    Some have times, of hours with gaps.
    """
    drawn = draw(st.lists(degenerate(), min_size=2, max_size=largest))
    if draw(st.booleans()):
        drawn = [np.resize(values, len(drawn[0])) for values in drawn]
    horizon = draw(st.none() | HORIZONS)
    found = []
    for values in drawn:
        hours = np.cumsum(1 + (np.arange(len(values)) % 17 == 0) * 30)
        times = draw(st.none() | st.just(HOUR * hours))
        found.append(Series(values, horizon or draw(HORIZONS), draw(LEVELS), "", draw(PERIODS), None, times))
    return found

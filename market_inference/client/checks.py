"""The checks of answers: an answer that breaks the contract, or answers another question, is refused.

Owns the rules of each kind of answer, and the error of an answer that breaks a rule. decode.py, bulk.py and session.py
apply the rules to every answer before a user gets any value of it. NaN in the values of an indicator is legal: the
warm-up, or the logarithm of a price below zero. Only names and lengths of indicators are checked.
"""

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeAlias

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from market_inference.client import arrays
from market_inference.client.arrays import Floats
from market_inference.contract import answer_size
from market_inference.contract.generated import inference_pb2 as pb
from market_inference.contract.generated.answers_pb2 import ForecastAnswer
from market_inference.errors import WRONG_ANSWER, InternalError

Shape: TypeAlias = tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
"""The indicators of an answer: the name of each, and the name and number of values of each of its outputs."""

DEFAULT_LEVELS: Final = tuple(at / 10 for at in range(1, answer_size.DEFAULT_LEVELS + 1))
ROUNDING: Final = 1e-9
"""Rounding of a model's quantiles, as a share of the largest number of the step."""
FLOAT_ROUNDING: Final = 1e-3
"""Rounding of probabilities, which are float32 and may be computed in bfloat16."""
LABELS: Final = ("negative", "neutral", "positive")
"""Of a text, in the order of the contract's numbers from 1 on."""
_CACHED_BYTES: Final = 128


def wrong(place: str, expected: object, got: object, request_id: str = "") -> InternalError:
    """The error of an answer that is refused; `place`: the field."""
    text = f"expected {expected}, got {got}"
    return InternalError(
        f"the service sent a wrong answer: {place}: {text}",
        code="INTERNAL",
        reason=WRONG_ANSWER,
        request_id=request_id,
        violations=[(place, text)],
    )


def symbol(got: str, expected: str, place: str, request_id: str) -> None:
    """An answer repeats the symbol of its item. Raises InternalError."""
    if got != expected:
        raise wrong(f"{place}.symbol", repr(expected), repr(got), request_id)


def word(kind: Any, number: int, place: str, request_id: str) -> str:
    """The name of an enum's value, in small letters; the number of a newer service's. Raises InternalError for none."""
    names: Any = kind.DESCRIPTOR.values_by_number
    if not number:
        known = ", ".join([one.name for value, one in names.items() if value])
        raise wrong(place, f"one of {known}", number, request_id)
    if number not in names:
        return str(number)
    return str(names[number].name).removeprefix(names[0].name.removesuffix("UNSPECIFIED")).lower()


@dataclass(frozen=True, slots=True, eq=False)
class AskedForecast:
    """The question of a forecast. Equal by identity, as a key of a cache.

    `levels` [levels] ascending; `period`: 0 for none.
    """

    horizon: int
    levels: tuple[float, ...]
    period: int = 0
    raw_levels: bytes = field(init=False)
    median: bool = field(init=False)
    """The median lies between the lowest and the highest level."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(sorted(self.levels)) or DEFAULT_LEVELS)
        object.__setattr__(self, "raw_levels", np.asarray(self.levels, dtype="<f8").tobytes())
        object.__setattr__(self, "median", self.levels[0] <= 0.5 <= self.levels[-1])

    def check_levels(self, got: bytes, request_id: str) -> None:
        """An answer has the levels of the question, ascending. Raises InternalError."""
        if got != self.raw_levels:
            sent = [f"{level:g}" for level in arrays.view(got).tolist()]
            raise wrong("quantile_levels", [f"{level:g}" for level in self.levels], sent, request_id)


def forecast(found: Any, asked: AskedForecast, values: int, *, timed: bool, place: str, request_id: str) -> None:
    """A Forecast or its twin: of every step and level, finite, ordered, with its coverage. Raises InternalError.

    `values`: of the series; `timed`: the series has times.
    """
    steps, levels = asked.horizon, len(asked.levels)
    point, quantiles = arrays.view(found.point), arrays.view(found.quantiles)
    if point.size != steps:
        raise wrong(f"{place}.point", f"{steps} values", point.size, request_id)
    if quantiles.size != steps * levels:
        raise wrong(f"{place}.quantiles", f"{steps} steps of {levels} levels", f"{quantiles.size} values", request_id)
    quantiles = quantiles.reshape(steps, levels)
    if not sound(point, quantiles, median=asked.median):
        _check_numbers(point, quantiles, asked, place, request_id)
    check_rest(found, asked, values, timed=timed, place=place, request_id=request_id)


def sound(point: Floats, quantiles: Floats, *, median: bool) -> bool:
    """Whether forecasts [..., steps] and [..., steps, levels] are finite and ordered."""
    if not _all(np.isfinite(quantiles)) or not _all(quantiles[..., :-1] <= quantiles[..., 1:]):
        return False
    if median:
        # NaN fails every comparison.
        return _all(quantiles[..., 0] <= point) and _all(point <= quantiles[..., -1])
    return _all(np.isfinite(point))


def _all(found: NDArray[np.bool_]) -> bool:
    # A fifth of the time of all() for the numbers of one forecast. np.dot() would start threads for many.
    return 0 not in found.tobytes()


def _check_numbers(point: Floats, quantiles: Floats, asked: AskedForecast, place: str, request_id: str) -> None:
    """As sound(), with the name of the first wrong number, and with a tolerance for rounding."""
    for name, values in (("point", point), ("quantiles", quantiles)):
        if not np.isfinite(values).all():
            step, *level = np.argwhere(~np.isfinite(values))[0].tolist()
            at = f"step {step + 1}{f', level {asked.levels[level[0]]:g}' if level else ''}"
            raise wrong(f"{place}.{name}", "finite numbers", f"{values[step, *level]} at {at}", request_id)
    slack = ROUNDING * np.abs(quantiles).max(axis=1)
    crossed = quantiles[:, 1:] < quantiles[:, :-1] - slack[:, None]
    if crossed.any():
        step, level = np.argwhere(crossed)[0].tolist()
        low, high = (f"{quantiles[step, at]:.9g} at level {asked.levels[at]:g}" for at in (level, level + 1))
        raise wrong(f"{place}.quantiles", "ascending levels", f"{low} and {high} at step {step + 1}", request_id)
    outside = (point < quantiles[:, 0] - slack) | (point > quantiles[:, -1] + slack)
    if asked.median and outside.any():
        step = int(np.flatnonzero(outside)[0])
        band = f"{quantiles[step, 0]:.9g} to {quantiles[step, -1]:.9g}"
        raise wrong(f"{place}.point", f"a median within {band} at step {step + 1}", f"{point[step]:.9g}", request_id)


def check_rest(found: Any, asked: AskedForecast, values: int, *, timed: bool, place: str, request_id: str) -> None:
    """The fields of a Forecast beside its columns. Raises InternalError."""
    if not 0.0 <= found.gate <= 1.0 + ROUNDING:
        raise wrong(f"{place}.gate", "a weight from 0 to 1", found.gate, request_id)
    if not 1 <= found.context <= values:
        raise wrong(f"{place}.context", f"1 to {values} values", found.context, request_id)
    if not found.HasField("coverage"):
        raise wrong(f"{place}.coverage", "the measured coverage", "none", request_id)
    coverage = found.coverage
    if not 0.0 < coverage.nominal < 1.0:
        raise wrong(f"{place}.coverage.nominal", "a share between 0 and 1", coverage.nominal, request_id)
    if not _share_of(coverage.measured, coverage.origins):
        expected = f"{_SHARE} of {coverage.origins} origins"
        raise wrong(f"{place}.coverage.measured", expected, coverage.measured, request_id)
    if asked.period or timed or coverage.phase_measured or coverage.phase_origins or coverage.phase_ahead:
        _check_phases(coverage, asked, timed, f"{place}.coverage", request_id)


_SHARE: Final = "a share from 0 to 1, NaN without origins,"


def _share_of(share: float, origins: int) -> bool:
    return 0.0 <= share <= 1.0 if origins else math.isnan(share)


def _check_phases(coverage: Any, asked: AskedForecast, timed: bool, place: str, request_id: str) -> None:
    measured, origins, ahead = coverage.phase_measured, coverage.phase_origins, coverage.phase_ahead
    # With times alone the service finds the cycle; a series without a cycle has no phases.
    expected = asked.period or (len(measured) if timed else 0)
    if len(measured) != expected:
        raise wrong(f"{place}.phase_measured", f"{expected} phases", len(measured), request_id)
    if len(origins) != len(measured):
        raise wrong(f"{place}.phase_origins", f"{len(measured)} phases", len(origins), request_id)
    for phase, (share, count) in enumerate(zip(measured, origins, strict=True)):
        if not _share_of(share, count):
            raise wrong(f"{place}.phase_measured[{phase}]", f"{_SHARE} of {count} origins", share, request_id)
    steps = asked.horizon if timed and measured else 0
    if len(ahead) != steps:
        raise wrong(f"{place}.phase_ahead", f"{steps} phases", len(ahead), request_id)
    if steps and max(ahead) >= len(measured):
        raise wrong(f"{place}.phase_ahead", f"phases below {len(measured)}", max(ahead), request_id)


def is_rest_sound(raw: bytes, asked: AskedForecast, values: int, *, timed: bool) -> bool:
    """Whether the bytes after the columns of a Forecast are the other fields, and pass check_rest()."""
    read = _is_rest_sound if len(raw) <= _CACHED_BYTES else _is_rest_sound.__wrapped__
    return read(raw, asked, values, timed)


# Few bytes differ between series alike.
@lru_cache(maxsize=4096)
def _is_rest_sound(raw: bytes, asked: AskedForecast, values: int, timed: bool) -> bool:  # a cache's key
    try:
        found = ForecastAnswer.FromString(raw)
        check_rest(found, asked, values, timed=timed, place="", request_id="")
    except (DecodeError, InternalError):
        return False
    return not (found.point or found.quantiles)


@dataclass(frozen=True, slots=True, eq=False)
class AskedIndicators:
    """The question of indicators: the functions in order, in capitals, and of each the newest values wanted, 0 for all.

    Equal by identity, as a key of a cache.
    """

    functions: tuple[str, ...]
    newest: tuple[int, ...]


def indicators(shape: Shape, asked: AskedIndicators, bars: int, place: str, request_id: str) -> None:
    """An IndicatorSet has every indicator in order, with a value for every bar, or the newest. Raises InternalError."""
    if len(shape) != len(asked.functions):
        raise wrong(f"{place}.indicators", f"{len(asked.functions)} indicators", len(shape), request_id)
    for at, ((name, outputs), function, newest) in enumerate(zip(shape, asked.functions, asked.newest, strict=True)):
        here = f"{place}.indicators[{at}]"
        if name.upper() != function:
            raise wrong(f"{here}.name", repr(function), repr(name), request_id)
        names = [output for output, _ in outputs]
        # A newer service may have more outputs.
        count = answer_size.OUTPUTS.get(function, 1)
        if len(names) < count or len(set(names)) != len(names):
            raise wrong(f"{here}.outputs", f"{count} outputs of different names", names, request_id)
        size = min(bars, newest) if newest else bars
        for output, values in outputs:
            if values != size:
                raise wrong(f"{here}.outputs: {output}", f"{size} values for {bars} bars", values, request_id)


def shape_of(found: Any) -> Shape:
    """The shape of an IndicatorSet's twin."""
    return tuple(
        (one.name, tuple((output.name, arrays.view(output.values).size) for output in one.outputs))
        for one in found.indicators
    )


def sentiment(found: pb.Sentiment, place: str, request_id: str) -> None:
    """A Sentiment: probabilities with the sum 1, and the label and the score of these. Raises InternalError."""
    shares = found.negative, found.neutral, found.positive
    # NaN fails every comparison.
    if not all(-FLOAT_ROUNDING <= share <= 1.0 + FLOAT_ROUNDING for share in shares):
        raise wrong(place, "probabilities from 0 to 1", shares, request_id)
    if not abs(sum(shares) - 1.0) <= FLOAT_ROUNDING:
        raise wrong(place, "probabilities with the sum 1", f"{shares} with the sum {sum(shares):.9g}", request_id)
    if not abs(found.score - (found.positive - found.negative)) <= FLOAT_ROUNDING:
        expected = f"{found.positive - found.negative:.9g}, positive less negative"
        raise wrong(f"{place}.score", expected, found.score, request_id)
    if not 1 <= found.label <= len(LABELS) or shares[found.label - 1] < max(shares) - FLOAT_ROUNDING:
        expected = f"the most probable label of {dict(zip(LABELS, shares, strict=True))}"
        raise wrong(f"{place}.label", expected, f"number {found.label}", request_id)
    if not found.chunks:
        raise wrong(f"{place}.chunks", "at least 1 window", 0, request_id)

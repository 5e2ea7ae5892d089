"""TA-Lib functions in recursive form: the next value from a small state and the newest bar.

Owns the recurrences. Each recurrence repeats the loop of the C function, operation by operation where rounding matters,
and covers the whole history, even if only few bars
are held. A step returns a new state and leaves the old state unchanged, so a correction of the newest bar is a second
step from the old state. Sources: TA-Lib's C code; Wilder, New Concepts in Technical Trading Systems (1978), for RSI,
ATR and the directional movement; Tillson (1998) for T3.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from models.indicators.incremental_bars import Bars
from models.indicators.program import Call

State = tuple[Any, ...]
Values = tuple[float, ...]

NAN = math.nan
_LONGEST_TUPLE = 512
_EMA, _DEMA, _TEMA, _T3 = 1, 3, 4, 8


class Form(Protocol):
    """A function with parameters. `start`: the state before the first bar."""

    start: State

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        """The state and the outputs after the newest bar of `bars`; outputs are NaN during warm-up."""
        ...


def form(call: Call) -> Form | None:
    """The recursive form of a call, or None if the function or the parameters have no recursive form here."""
    make = _FORMS.get(call.function.name)
    return make(call) if make else None


class _Average:
    """An exponential average, seeded as in TA-Lib with the mean of the first `period` values."""

    start: State = (0, 0.0)

    def __init__(self, period: int, weight: float | None = None) -> None:
        self.period = period
        self.weight = 2.0 / (period + 1.0) if weight is None else weight

    def next(self, state: State, x: float) -> tuple[State, float]:
        count, value = state
        if count == self.period:
            value = (x - value) * self.weight + value
            return (count, value), value
        count, value = count + 1, value + x
        if count < self.period:
            return (count, value), NAN
        value /= self.period
        return (count, value), value

    def chain(self, states: Sequence[State], x: float) -> tuple[tuple[State, ...], list[float]]:
        """Averages of averages: each average takes input once the previous average has values."""
        after, values = list(states), [NAN] * len(states)
        for place, state in enumerate(states):
            after[place], x = self.next(state, x)
            values[place] = x
            if x != x:  # NaN
                break
        return tuple(after), values


class _OfColumn:
    """A function of one column."""

    def __init__(self, call: Call) -> None:
        self.column = call.function.columns[0]
        self.period = int(call.values[0]) if call.values else 0


class Ema(_OfColumn):
    start = _Average.start

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._average = _Average(self.period)

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        after, value = self._average.next(state, bars.at(self.column))
        return after, (value,)


class _Chained(_OfColumn):
    depth = 2

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._average = _Average(self.period)
        self.start: State = (_Average.start,) * self.depth

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        after, values = self._average.chain(state, bars.at(self.column))
        return after, (self.combine(values),)

    def combine(self, e: Sequence[float]) -> float:
        return 2.0 * e[0] - e[1]


class Dema(_Chained):
    pass


class Tema(_Chained):
    depth = 3

    def combine(self, e: Sequence[float]) -> float:
        return e[2] + (3.0 * e[0] - 3.0 * e[1])


class T3(_Chained):
    depth = 6

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        v = call.values[1] if len(call.values) > 1 and call.function.name == "T3" else 0.7
        cube = -(v * v * v)
        self._weights = (
            cube,
            3.0 * (v * v - cube),
            -6.0 * v * v - 3.0 * (v - cube),
            1.0 + 3.0 * v - cube + 3.0 * v * v,
        )

    def combine(self, e: Sequence[float]) -> float:
        a, b, c, d = self._weights
        return a * e[5] + b * e[4] + c * e[3] + d * e[2]


class Trix(_OfColumn):
    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._average = _Average(self.period)
        self.start: State = ((_Average.start,) * 3, NAN)

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        averages, before = state
        after, values = self._average.chain(averages, bars.at(self.column))
        now = values[2]
        change = (now / before - 1.0) * 100.0 if before != 0.0 else 0.0
        return (after, now), (change,)


class _Crossing:
    """MACD's two exponential averages. The fast average starts late, so that both have the first value together."""

    def __init__(self, fast: _Average, slow: _Average) -> None:
        if slow.period < fast.period:
            fast, slow = slow, fast
        self._fast, self._slow = fast, slow
        self.start: State = (0, _Average.start, _Average.start)

    def next(self, state: State, x: float) -> tuple[State, float, float]:
        count, fast, slow = state
        quick = NAN
        if count >= self._slow.period - self._fast.period:
            fast, quick = self._fast.next(fast, x)
        slow, steady = self._slow.next(slow, x)
        return (min(count + 1, self._slow.period), fast, slow), quick, steady


class Macd(_OfColumn):
    def __init__(self, call: Call) -> None:
        super().__init__(call)
        if call.function.name == "MACDFIX":
            self._crossing = _Crossing(_Average(12, 0.15), _Average(26, 0.075))
            self._signal = _Average(int(call.values[0]))
        else:
            fast, slow, signal = (int(value) for value in call.values)
            self._crossing = _Crossing(_Average(fast), _Average(slow))
            self._signal = _Average(signal)
        self.start: State = (self._crossing.start, _Average.start)

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        crossing, signal = state
        crossing, quick, steady = self._crossing.next(crossing, bars.at(self.column))
        macd = quick - steady
        if steady != steady:  # NaN
            return (crossing, signal), (NAN, NAN, NAN)
        signal, smooth = self._signal.next(signal, macd)
        return (crossing, signal), (macd if smooth == smooth else NAN, smooth, macd - smooth)


class PriceOscillator(_OfColumn):
    """APO and PPO of exponential averages."""

    start: State = (_Average.start, _Average.start)

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._percent = call.function.name == "PPO"
        fast, slow, _ = call.values
        self._fast, self._slow = _Average(int(min(fast, slow))), _Average(int(max(fast, slow)))

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        x = bars.at(self.column)
        fast, quick = self._fast.next(state[0], x)
        slow, steady = self._slow.next(state[1], x)
        if not self._percent or steady != steady:  # NaN
            return (fast, slow), (quick - steady,)
        return (fast, slow), ((quick - steady) / steady * 100.0 if steady != 0.0 else 0.0,)


class Strength(_OfColumn):
    """RSI and CMO: Wilder's averages of gains and losses."""

    start: State = (-1, 0.0, 0.0)

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._momentum = call.function.name == "CMO"

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        count, gain, loss = state
        if count < 0:
            return (0, gain, loss), (NAN,)
        period, change = self.period, bars.at(self.column) - bars.at(self.column, 1)
        if count >= period:
            gain, loss = gain * (period - 1), loss * (period - 1)
        if change < 0:
            loss -= change
        else:
            gain += change
        if count + 1 < period:
            return (count + 1, gain, loss), (NAN,)
        gain, loss = gain / period, loss / period
        total = gain + loss
        if total == 0.0:
            return (period, gain, loss), (0.0,)
        return (period, gain, loss), (100.0 * ((gain - loss if self._momentum else gain) / total),)


def _true_range(bars: Bars) -> float:
    high, low, before = bars.at("high"), bars.at("low"), bars.at("close", 1)
    return max(high - low, abs(before - high), abs(before - low))


class TrueRangeAverage:
    """ATR and NATR."""

    start: State = (-1, 0.0)

    def __init__(self, call: Call) -> None:
        self.period = int(call.values[0])
        self._normalised = call.function.name == "NATR"

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        count, average = state
        if count < 0:
            return (0, average), (NAN,)
        reach = _true_range(bars)
        if count < self.period:
            count, average = count + 1, average + reach
            if count < self.period:
                return (count, average), (NAN,)
            average /= self.period
        else:
            average = (average * (self.period - 1) + reach) / self.period
        return (count, average), (self._output(average, bars),)

    def _output(self, average: float, bars: Bars) -> float:
        if not self._normalised:
            return average
        close = bars.at("close")
        return average / close * 100.0 if close != 0.0 else 0.0


class Direction:
    """PLUS_DM, MINUS_DM, PLUS_DI, MINUS_DI, DX, ADX and ADXR: Wilder's directional movement."""

    def __init__(self, call: Call) -> None:
        self.period = int(call.values[0])
        self._name = call.function.name
        # Bars so far (at most two periods), smoothed +DM, -DM and true range, and the state of _strength().
        self.start: State = (0, 0.0, 0.0, 0.0, (0.0, 0.0, ()))

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        count, up, down, reach, strength = state
        if count == 0:
            return (1, up, down, reach, strength), (NAN,)
        up, down, reach = self._smooth(count, up, down, reach, bars)
        count += 1
        value = NAN
        if self._name in {"PLUS_DM", "MINUS_DM"}:
            if count >= self.period:
                value = up if self._name == "PLUS_DM" else down
        elif count > self.period:
            if self._name in {"PLUS_DI", "MINUS_DI"}:
                value = _percent(up if self._name == "PLUS_DI" else down, reach)
            else:
                strength, value = self._strength(strength, count, self._index(up, down, reach))
        return (min(count, 2 * self.period), up, down, reach, strength), (value,)

    def _smooth(self, count: int, up: float, down: float, reach: float, bars: Bars) -> tuple[float, float, float]:
        """Wilder's sums: plain over the first period - 1 changes, then decaying."""
        if count >= self.period:
            up, down, reach = up - up / self.period, down - down / self.period, reach - reach / self.period
        rise, fall = bars.at("high") - bars.at("high", 1), bars.at("low", 1) - bars.at("low")
        if fall > 0 and rise < fall:
            down += fall
        elif rise > 0 and rise > fall:
            up += rise
        if self._name not in {"PLUS_DM", "MINUS_DM"}:
            reach += _true_range(bars)
        return up, down, reach

    def _index(self, up: float, down: float, reach: float) -> float | None:
        """DX; None if range or movement is zero, in which case TA-Lib repeats the previous value."""
        if reach == 0.0:
            return None
        plus, minus = _percent(up, reach), _percent(down, reach)
        if plus + minus == 0.0:
            return None
        return 100.0 * (abs(minus - plus) / (plus + minus))

    def _strength(self, state: State, count: int, dx: float | None) -> tuple[State, float]:
        """DX, ADX or ADXR. State: the last DX, the sum or average of DX, and the ADX values of the last period."""
        last, adx, past = state
        last = last if dx is None else dx
        if self._name == "DX":
            return (last, adx, past), last
        if count <= 2 * self.period:
            adx += dx or 0.0
            if count < 2 * self.period:
                return (last, adx, past), NAN
            adx /= self.period
        elif dx is not None:
            adx = (adx * (self.period - 1) + dx) / self.period
        if self._name == "ADX":
            return (last, adx, past), adx
        past = (*past, adx)[-self.period :]
        return (last, adx, past), (adx + past[0]) / 2.0 if len(past) == self.period else NAN


def _percent(part: float, whole: float) -> float:
    return 0.0 if whole == 0.0 else 100.0 * (part / whole)


class Total:
    """A running total that needs nothing but itself, the newest bar and the bar before.

    `first`: the total after the first bar; `further`: the total after a further bar.
    """

    start: State = (None,)

    def __init__(self, first: Callable[[Bars], float], further: Callable[[float, Bars], float]) -> None:
        self._first, self._further = first, further

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        total = self._first(bars) if state[0] is None else self._further(state[0], bars)
        return (total,), (total,)


def _on_balance(call: Call) -> Form:
    price, volume = call.function.columns

    def further(total: float, bars: Bars) -> float:
        change = bars.at(price) - bars.at(price, 1)
        return total + (bars.at(volume) if change > 0 else -bars.at(volume) if change < 0 else 0.0)

    return Total(lambda bars: bars.at(volume), further)


def _cumulative_sum(call: Call) -> Form:
    [column] = call.function.columns
    return Total(lambda bars: bars.at(column), lambda total, bars: total + bars.at(column))


def _volume_index(call: Call, sign: float) -> Form:
    """NVI for -1, PVI for 1: the returns of the bars whose volume is smaller, or larger, than the one before."""

    def further(total: float, bars: Bars) -> float:
        before = bars.at("close", 1)
        counts = sign * (bars.at("volume") - bars.at("volume", 1)) > 0.0 and before != 0.0
        return total + total * ((bars.at("close") - before) / before) if counts else total

    return Total(lambda _: 1000.0, further)


def _price_volume_trend(_: Call) -> Form:
    def further(total: float, bars: Bars) -> float:
        before = bars.at("close", 1)
        return total + bars.at("volume") * ((bars.at("close") - before) / before) if before != 0.0 else total

    return Total(lambda _: 0.0, further)


def _williams_accumulation(_: Call) -> Form:
    def further(total: float, bars: Bars) -> float:
        close, before = bars.at("close"), bars.at("close", 1)
        if close > before:
            return total + (close - min(bars.at("low"), before))
        if close < before:
            return total + (close - max(bars.at("high"), before))
        return total

    return Total(lambda _: 0.0, further)


class VolumeWeightedPrice:
    """VWAP over all bars."""

    start: State = (0.0, 0.0)

    def __init__(self, call: Call) -> None:
        pass

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        turnover, volume = state
        newest = bars.at("volume")
        turnover += (bars.at("high") + bars.at("low") + bars.at("close")) / 3.0 * newest
        volume += newest
        return (turnover, volume), (turnover / volume if volume > 0.0 else 0.0,)


def _accumulate(total: float, bars: Bars) -> float:
    """Chaikin's accumulation/distribution line after one more bar."""
    high, low, close = bars.at("high"), bars.at("low"), bars.at("close")
    reach = high - low
    return total + ((close - low) - (high - close)) / reach * bars.at("volume") if reach > 0.0 else total


class AccumulationOscillator:
    """ADOSC: two exponential averages of AD, both seeded with the first value of AD."""

    start: State = (0, 0.0, NAN, NAN)

    def __init__(self, call: Call) -> None:
        fast, slow = call.values
        self._fast, self._slow = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0)
        self._lookback = call.lookback

    def step(self, state: State, bars: Bars) -> tuple[State, Values]:
        count, total, fast, slow = state
        total = _accumulate(total, bars)
        if count == 0:
            fast = slow = total
        else:
            fast = self._fast * total + (1.0 - self._fast) * fast
            slow = self._slow * total + (1.0 - self._slow) * slow
        value = fast - slow if count >= self._lookback else NAN
        return (min(count + 1, self._lookback), total, fast, slow), (value,)


def _moving_average(call: Call) -> Form | None:
    period, kind = (int(value) for value in call.values)
    averages: Mapping[int, Callable[[Call], Form]] = {_EMA: Ema, _DEMA: Dema, _TEMA: Tema, _T3: T3}
    made = averages.get(kind)
    return made(call) if made and period > 1 else None


def _above_one(made: Callable[[Call], Form]) -> Callable[[Call], Form | None]:
    """No recursive form for a period of 1, because TA-Lib computes a period of 1 by a different formula."""
    return lambda call: made(call) if call.values[0] > 1 else None


def _adxr(call: Call) -> Form | None:
    return Direction(call) if call.values[0] <= _LONGEST_TUPLE else None


_FORMS: Mapping[str, Callable[[Call], Form | None]] = {
    "AD": lambda _: Total(lambda bars: _accumulate(0.0, bars), _accumulate),
    "ADOSC": AccumulationOscillator,
    "ADX": Direction,
    "ADXR": _adxr,
    "APO": lambda call: PriceOscillator(call) if call.values[2] == _EMA else None,
    "ATR": _above_one(TrueRangeAverage),
    "CMO": _above_one(Strength),
    "CUMSUM": _cumulative_sum,
    "DEMA": Dema,
    "DX": Direction,
    "EMA": Ema,
    "MA": _moving_average,
    "MACD": _above_one(Macd),
    "MACDFIX": Macd,
    "MINUS_DI": _above_one(Direction),
    "MINUS_DM": _above_one(Direction),
    "NATR": _above_one(TrueRangeAverage),
    "NVI": lambda call: _volume_index(call, -1.0),
    "OBV": _on_balance,
    "PLUS_DI": _above_one(Direction),
    "PLUS_DM": _above_one(Direction),
    "PPO": lambda call: PriceOscillator(call) if call.values[2] == _EMA else None,
    "PVI": lambda call: _volume_index(call, 1.0),
    "PVT": _price_volume_trend,
    "RSI": _above_one(Strength),
    "T3": T3,
    "TEMA": Tema,
    "TRIX": _above_one(Trix),
    "VWAP": VolumeWeightedPrice,
    "WAD": _williams_accumulation,
}

"""A program: a list of indicators, checked once and reused for every panel; and a panel with its program.

Owns the checks of names, parameters and ranges, the layout of the answer, and the division of a costly program. The
list of functions is in functions.py, their costs in price.py, the computation in plan.py and kernels/.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import accumulate

from models.indicators.functions import FUNCTIONS, PERIODS, Function, Parameter
from models.indicators.panel import Panel
from models.indicators.price import Price, price

CALL_BYTES = 900
"""About the bytes of a call and of the spec that it was made from, for caches."""
_OUTPUT_BYTES = 32

WINDOWED = frozenset(("AROON", "AROONOSC", "AVGDEV", "DONCHIAN", "FRACTAL", "IMI", "PERCENTILE", "PERCENTRANK", "VHF"))
"""Costly functions with values that depend on the bars of their window alone, bit for bit: with `last`, only the last
values are computed. Other functions carry running sums, or the order of additions, from bar to bar."""


class SpecError(ValueError):
    """An invalid indicator: index of the spec, field, and message with the limit."""

    def __init__(self, index: int, field: str, message: str) -> None:
        super().__init__(f"indicators[{index}].{field}: {message}")
        self.index = index
        self.field = field
        self.message = message


@dataclass(frozen=True, slots=True)
class Spec:
    """One indicator: TA-Lib's name (upper case), parameters by TA-Lib's names, and the number of last bars to return.

    Omitted parameters take TA-Lib's defaults; without `last` every bar is returned.
    """

    name: str
    params: Mapping[str, float] = field(default_factory=dict)
    last: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One checked indicator: every parameter's value in TA-Lib's order, the bars of warm-up, the bars to return.

    `fresh`: a value comes from its own last lookback + 1 bars, without running sums over earlier bars; needs `last`.
    """

    function: Function
    values: tuple[float, ...]
    lookback: int
    last: int | None
    fresh: bool = False
    price: Price = field(init=False)
    key: Hashable = field(init=False)
    _hash: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "price", price(self.function, self.values))
        object.__setattr__(self, "key", (self.function.name, self.values, self.last, self.fresh))
        object.__setattr__(self, "_hash", hash(self.key))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Call) and self.key == other.key)

    @property
    def last_only(self) -> bool:
        """Whether only the last values are computed, and not the values before."""
        return self.last is not None and (self.fresh or self.function.name in WINDOWED)

    def units(self, bars: int) -> float:
        """The cost over so many bars, see price.py."""
        per_bar, per_window = self.price
        computed = max(0, bars - self.lookback)
        if self.last is not None and self.last_only:
            computed = min(computed, self.last)
            return per_bar * min(bars, computed + self.lookback) + per_window * computed
        return per_bar * bars + per_window * computed


class Program:
    """Checked indicators in the order of the specs. Equal and hashable by value; constructed by compile().

    The rows of an answer are the outputs of all calls, call after call, in TA-Lib's order. `outputs` holds the names of
    the rows, and `rows[i]` is the slice of call i.
    """

    __slots__ = ("_costly", "_hash", "_key", "_per_bar", "calls", "last", "needs", "outputs", "rows", "same_last")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        self.needs = frozenset(column for call in calls for column in call.function.columns)
        self.outputs = tuple(output.name for call in calls for output in call.function.outputs)
        self.last = tuple(call.last for call in calls for _ in call.function.outputs)
        self.same_last = len(set(self.last)) == 1
        self.rows = _slices([len(call.function.outputs) for call in calls])
        # The cost is linear in the bars, beside that of the costly calls.
        self._costly = [call for call in calls if call.price.per_window]
        self._per_bar = sum(call.price.per_bar for call in calls if not call.price.per_window)
        self._key: Hashable = tuple(call.key for call in calls)
        self._hash = hash(self._key)

    @property
    def size_bytes(self) -> int:
        """About the bytes of a program and of the specs that it was compiled from, for caches."""
        return CALL_BYTES * len(self.calls) + _OUTPUT_BYTES * len(self.outputs)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self._key == other._key)

    def __repr__(self) -> str:
        return f"Program({', '.join(call.function.name for call in self.calls)})"

    def units(self, bars: int) -> int:
        """The cost over a panel of so many bars; a unit is one bar of a simple function."""
        units = self._per_bar * bars
        for call in self._costly:
            units += call.units(bars)
        return int(units)

    def split(self, bars: int, most_units: int) -> "list[Program]":
        """The program as programs of at most so many units each over a panel, or of a single call, in order."""
        return [Program(calls) for calls in _divide(self.calls, bars, most_units)]

    def require(self, panel: Panel) -> None:
        """Raise SpecError for the first call with a column that the panel lacks."""
        if all(getattr(panel, column) is not None for column in self.needs):
            return
        for index, call in enumerate(self.calls):
            for column in call.function.columns:
                if getattr(panel, column) is None:
                    raise SpecError(index, "name", f"{call.function.name} needs the column {column}, which is missing")


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """A panel and a program. Raises SpecError when the panel lacks a column of the program."""

    panel: Panel
    program: Program

    def __post_init__(self) -> None:
        self.program.require(self.panel)


def _divide(calls: Sequence[Call], bars: int, most_units: int) -> Iterator[list[Call]]:
    part: list[Call] = []
    held = 0.0
    for call in calls:
        units = call.units(bars)
        if part and held + units > most_units:
            yield part
            part, held = [], 0.0
        part.append(call)
        held += units
    yield part


def compile(specs: Iterable[Spec]) -> Program:  # noqa: A001 - models.indicators.compile, as re.compile
    """Check the specs and lay out the answer. Raises SpecError for the first invalid spec."""
    return assemble(map(check, specs))


def assemble(calls: Iterable[Call]) -> Program:
    """The program of calls that are checked one by one, by check(). Raises SpecError with the place of the call."""
    checked: list[Call] = []
    try:
        for call in calls:
            checked.append(call)
    except SpecError as error:
        raise SpecError(len(checked), error.field, error.message) from None
    return Program(checked)


def check(spec: Spec) -> Call:
    """The call of a spec. Raises SpecError with the index 0."""
    name, last = spec.name, spec.last
    function, given = FUNCTIONS.get(name), spec.params
    if function is None:
        raise SpecError(0, "name", f"unknown function {name!r}{_suggestion(name, list(FUNCTIONS))}")
    if PERIODS in function.columns:
        message = f"{function.name} needs a series of periods, which a panel has no column for; MA takes a fixed one"
        raise SpecError(0, "name", message)
    _refuse_unknown(function, given)
    values = tuple(_value(parameter, given.get(parameter.name, parameter.default)) for parameter in function.parameters)
    lookback = function.lookback(values)
    if lookback < 0:
        raise SpecError(0, "params", f"{function.name} does not accept these parameters together")
    if last is not None and last < 1:
        raise SpecError(0, "last", f"must be at least 1, got {last}")
    return Call(function, values, lookback, last)


def _refuse_unknown(function: Function, params: Mapping[str, float]) -> None:
    names = [parameter.name for parameter in function.parameters]
    for name in params:
        if name not in names:
            takes = f"{function.name} takes {', '.join(names) if names else 'no parameters'}"
            raise SpecError(0, _path(name), f"unknown parameter{_suggestion(name, names)}; {takes}")


def _value(parameter: Parameter, value: float) -> float:
    # `not <=` instead of `>`, so that NaN is out of range too.
    if not parameter.minimum <= value <= parameter.maximum:
        limits = f"[{_number(parameter.minimum)}, {_number(parameter.maximum)}]"
        raise SpecError(0, _path(parameter.name), f"must be in {limits}, got {_number(value)}")
    if parameter.integer and value != int(value):
        raise SpecError(0, _path(parameter.name), f"must be a whole number, got {_number(value)}")
    return float(value)


def _path(name: str) -> str:
    return f'params["{name}"]'


def _number(value: float) -> str:
    return f"{value:.10g}"


def _suggestion(name: str, known: Sequence[str]) -> str:
    by_fold = {candidate.casefold(): candidate for candidate in known}
    close = get_close_matches(name.casefold(), by_fold, n=1)
    return f"; did you mean {by_fold[close[0]]!r}?" if close else ""


def _slices(lengths: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(end - length, end) for end, length in zip(accumulate(lengths), lengths, strict=True))

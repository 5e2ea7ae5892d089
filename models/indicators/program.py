"""A program: a list of indicators, checked once and reused for every panel.

Owns the checks of names, parameters and ranges, and the layout of the answer. The list of functions is in functions.py,
the computation in plan.py and kernels/.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from models.cache import sized_cache
from models.indicators.functions import FUNCTIONS, PERIODS, Function, Parameter
from models.indicators.panel import Panel

_CACHED_BYTES = 32 << 20
_CALL_BYTES = 900
_OUTPUT_BYTES = 32


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


@dataclass(frozen=True, slots=True)
class Call:
    """One checked indicator: every parameter's value in TA-Lib's order, the bars of warm-up, the bars to return."""

    function: Function
    values: tuple[float, ...]
    lookback: int
    last: int | None


class Program:
    """Checked indicators in the order of the specs. Equal and hashable by value; constructed by compile().

    The rows of an answer are the outputs of all calls, call after call, in TA-Lib's order. `outputs` holds the names of
    the rows, and `rows[i]` is the slice of call i.
    """

    __slots__ = ("_hash", "_key", "calls", "last", "needs", "outputs", "rows", "same_last")

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        self.needs = frozenset(column for call in calls for column in call.function.columns)
        self.outputs = tuple(output.name for call in calls for output in call.function.outputs)
        self.last = tuple(call.last for call in calls for _ in call.function.outputs)
        self.same_last = len(set(self.last)) == 1
        self.rows = _slices([len(call.function.outputs) for call in calls])
        self._key: Hashable = tuple((call.function.name, call.values, call.last) for call in calls)
        self._hash = hash(self._key)

    @property
    def size_bytes(self) -> int:
        """About the bytes of a program and of the specs that it was compiled from, for caches."""
        return _CALL_BYTES * len(self.calls) + _OUTPUT_BYTES * len(self.outputs)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Program) and self._key == other._key)

    def __repr__(self) -> str:
        return f"Program({', '.join(call.function.name for call in self.calls)})"

    def require(self, panel: Panel) -> None:
        """Raise SpecError for the first call with a column that the panel lacks."""
        if all(getattr(panel, column) is not None for column in self.needs):
            return
        for index, call in enumerate(self.calls):
            for column in call.function.columns:
                if getattr(panel, column) is None:
                    raise SpecError(index, "name", f"{call.function.name} needs the column {column}, which is missing")


def compile(specs: Sequence[Spec]) -> Program:  # noqa: A001 - models.indicators.compile, as re.compile
    """Check the specs and lay out the answer. Programs are cached, so equal specs are checked once.

    Raises SpecError for the first invalid spec.
    """
    return _compiled(tuple((spec.name, tuple(sorted(spec.params.items())), spec.last) for spec in specs))


@sized_cache(_CACHED_BYTES, lambda program: program.size_bytes)
def _compiled(key: tuple[tuple[str, tuple[tuple[str, float], ...], int | None], ...]) -> Program:
    return Program([_call(index, Spec(name, dict(params), last)) for index, (name, params, last) in enumerate(key)])


def _call(index: int, spec: Spec) -> Call:
    function = FUNCTIONS.get(spec.name)
    if function is None:
        raise SpecError(index, "name", f"unknown function {spec.name!r}{_suggestion(spec.name, list(FUNCTIONS))}")
    if PERIODS in function.columns:
        message = f"{function.name} needs a series of periods, which a panel has no column for; MA takes a fixed one"
        raise SpecError(index, "name", message)
    _refuse_unknown(index, function, spec.params)
    values = tuple(
        _value(index, parameter, spec.params.get(parameter.name, parameter.default))
        for parameter in function.parameters
    )
    lookback = function.lookback(values)
    if lookback < 0:
        raise SpecError(index, "params", f"{function.name} does not accept these parameters together")
    if spec.last is not None and spec.last < 1:
        raise SpecError(index, "last", f"must be at least 1, got {spec.last}")
    return Call(function, values, lookback, spec.last)


def _refuse_unknown(index: int, function: Function, params: Mapping[str, float]) -> None:
    names = [parameter.name for parameter in function.parameters]
    for name in params:
        if name not in names:
            takes = f"{function.name} takes {', '.join(names) if names else 'no parameters'}"
            raise SpecError(index, _path(name), f"unknown parameter{_suggestion(name, names)}; {takes}")


def _value(index: int, parameter: Parameter, value: float) -> float:
    # `not <=` instead of `>`, so that NaN is out of range too.
    if not parameter.minimum <= value <= parameter.maximum:
        limits = f"[{_number(parameter.minimum)}, {_number(parameter.maximum)}]"
        raise SpecError(index, _path(parameter.name), f"must be in {limits}, got {_number(value)}")
    if parameter.integer and value != int(value):
        raise SpecError(index, _path(parameter.name), f"must be a whole number, got {_number(value)}")
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
    ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
    return tuple(slice(end - length, end) for end, length in zip(ends, lengths, strict=True))

"""Every TA-Lib function: its inputs, parameters with defaults and ranges, outputs and lookback.

Owns the list of functions, read from TA-Lib's metadata: names and defaults from `talib.abstract`, ranges and output
types from the C library's description. Checks of requests are in program.py.

The assignment of columns to inputs follows `talib.abstract`. Named inputs (high, volume, ...) take the column of the
name; a single free input takes close; two free inputs (BETA, CORREL, ADD, ...) take high and low, in this order. MAVP's
second input is a series of periods: a panel has no such column.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from xml.etree import ElementTree

from models.indicators import library
from models.indicators.library import abstract

PERIODS = "periods"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter: name as in TA-Lib's Python package, default, inclusive range."""

    name: str
    description: str
    default: float
    minimum: float
    maximum: float
    integer: bool
    moving_average: bool
    """Whether the parameter selects a kind of moving average, numbered as in talib.MA_Type (0 is SMA, 1 EMA, ...)."""


@dataclass(frozen=True, slots=True)
class Output:
    """An output series. During warm-up integer outputs (candlestick patterns, indexes) are 0 and real outputs NaN."""

    name: str
    integer: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A TA-Lib function. `columns`: the panel columns for the inputs, in the order of the C function."""

    name: str
    group: str
    description: str
    columns: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    outputs: tuple[Output, ...]

    def lookback(self, values: Sequence[float]) -> int:
        """Bars before the first value, for parameter values in order; -1 if TA-Lib refuses the combination."""
        pairs = zip(values, self.parameters, strict=True)
        call = getattr(library.HOLDING, f"TA_{self.name}_Lookback")
        bars: int = call(*(library.argument(value, parameter.integer) for value, parameter in pairs))
        return bars


def _moving_average_kinds() -> int:
    """The number of kinds of moving average in the C library, numbered from 0."""
    kind = 0
    while library.HOLDING.TA_MA_Lookback(2, kind) >= 0:
        kind += 1
    return kind


def _text(element: ElementTree.Element, tag: str) -> str:
    text = element.findtext(tag)
    if text is None:
        raise RuntimeError(f"TA-Lib's description of {element.tag} lacks {tag}")
    return text


def _parameter(name: str, element: ElementTree.Element, kinds: int) -> Parameter:
    kind = _text(element, "Type")
    bounds = element.find("Range")
    return Parameter(
        name=name,
        description=_text(element, "ShortDescription"),
        default=float(_text(element, "DefaultValue")),
        minimum=0.0 if bounds is None else float(_text(bounds, "Minimum")),
        maximum=kinds - 1.0 if bounds is None else float(_text(bounds, "Maximum")),
        integer=kind != "Double",
        moving_average=kind == "MA Type",
    )


def _columns(inputs: Mapping[str, str | Sequence[str]]) -> Iterator[str]:
    for column in inputs.values():
        if isinstance(column, str):
            yield column
        else:
            yield from column


def _function(element: ElementTree.Element, kinds: int) -> Function:
    name = _text(element, "Abbreviation")
    known = getattr(abstract, name).info
    parameters = element.findall("OptionalInputArguments/OptionalInputArgument")
    outputs = element.findall("OutputArguments/OutputArgument")
    return Function(
        name=name,
        group=_text(element, "GroupId"),
        description=_text(element, "ShortDescription"),
        columns=tuple(_columns(known["input_names"])),
        parameters=tuple(
            _parameter(parameter, described, kinds)
            for parameter, described in zip(known["parameters"], parameters, strict=True)
        ),
        outputs=tuple(
            Output(output, _text(described, "Type") == "Integer Array")
            for output, described in zip(known["output_names"], outputs, strict=True)
        ),
    )


def _functions() -> Mapping[str, Function]:
    root = ElementTree.fromstring(library.description())  # noqa: S314 - the text is the installed library's own
    kinds = _moving_average_kinds()
    functions = (_function(element, kinds) for element in root)
    return MappingProxyType({function.name: function for function in functions})


FUNCTIONS: Mapping[str, Function] = _functions()

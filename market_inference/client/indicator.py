"""Indicators as users name them.

Owns the forms of a specification, the columns of bars that an indicator reads, and the names in the answer. The service
owns the list of functions and parameters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from market_inference.client.inputs import arguments
from market_inference.client.inputs.bars import ALL
from market_inference.errors import ArgumentError

IndicatorSpec: TypeAlias = str | tuple[str, Mapping[str, float]] | Mapping[str, Any]
IndicatorSpecs: TypeAlias = IndicatorSpec | Iterable[IndicatorSpec]

FIELD = "indicators"
_CLOSE = (
    "HT_DCPERIOD HT_DCPHASE HT_PHASOR HT_SINE HT_TRENDMODE HT_TRENDLINE CUMSUM MAX MAXINDEX MIN MININDEX MINMAX "
    "MINMAXINDEX SUM ACOS ASIN ATAN CEIL COS COSH EXP FLOOR LN LOG10 SIN SINH SQRT TAN TANH APO CMO CMOU COPPOCK DPO "
    "ER FOSC MACD MACDEXT MACDFIX MOM PPO ROC ROCP ROCR ROCR100 RSI STOCHRSI TRIX TSI VHF BBANDS DEMA EMA HMA KAMA MA "
    "MAMA MIDPOINT RMA SMA T3 TEMA TRIMA WMA ZLEMA AVGDEV LINEARREG LINEARREG_ANGLE LINEARREG_INTERCEPT "
    "LINEARREG_SLOPE PERCENTILE PERCENTRANK STDDEV TSF VAR RVI"
)
_HIGH_LOW = (
    "ADD DIV MULT SUB AC AO AROON AROONOSC FRACTAL MINUS_DM PLUS_DM DONCHIAN MIDPRICE SAR SAREXT MEDPRICE BETA CORREL "
    "ADR CVI MASSI"
)
_HIGH_LOW_CLOSE = (
    "ADX ADXR CCI DX ERI KDJ MINUS_DI PLUS_DI SMI STOCH STOCHF ULTOSC VORTEX WAD WILLR ACCBANDS KC SUPERTREND TYPPRICE "
    "WCLPRICE ATR NATR TRANGE"
)
_READS = {
    **dict.fromkeys(_CLOSE.split(), frozenset({"close"})),
    **dict.fromkeys(_HIGH_LOW.split(), frozenset({"high", "low"})),
    **dict.fromkeys(_HIGH_LOW_CLOSE.split(), frozenset({"high", "low", "close"})),
    **dict.fromkeys(("BOP", "AVGPRICE", "HA"), frozenset({"open", "high", "low", "close"})),
    **dict.fromkeys(("IMI", "QSTICK"), frozenset({"open", "close"})),
    **dict.fromkeys(("MFI", "AD", "ADOSC", "CMF", "VWAP"), frozenset({"high", "low", "close", "volume"})),
    **dict.fromkeys(("VWMA", "EFI", "NVI", "OBV", "PVI", "PVT"), frozenset({"close", "volume"})),
    "MARKETFI": frozenset({"high", "low", "volume"}),
    **dict.fromkeys(("PVO", "RVOL"), frozenset({"volume"})),
}
_NUMBERS = frozenset({int, float})
_CANDLES = frozenset({"open", "high", "low", "close"})


@dataclass(frozen=True, slots=True)
class Indicator:
    """A TA-Lib function by TA-Lib's names of function and parameters. `last`: newest values to return, 0 for all."""

    name: str
    params: Mapping[str, float]
    last: int = 0

    @property
    def label(self) -> str:
        """The specification as text, such as "SMA:timeperiod=20"."""
        params = ",".join(f"{key}={value:g}" for key, value in self.params.items())
        return f"{self.name}:{params}" if params else self.name

    @property
    def columns(self) -> frozenset[str]:
        """The columns of bars that the function reads; all of them for a function that this table does not know."""
        return _CANDLES if self.name.startswith("CDL") else _READS.get(self.name, ALL)


@dataclass(frozen=True, slots=True)
class Labels:
    """Names of a request's indicators in the answer: `names` in order, `aliases` from full label to name.

    A name is the function's name where the request has the function once, with the full label as an alias, else the
    full label.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, asked: Sequence[Indicator]) -> "Labels":
        """The names for a request. Raises ArgumentError for the same indicator twice."""
        times = Counter(one.name for one in asked)
        names = tuple(one.name if times[one.name] == 1 else one.label for one in asked)
        if len(set(names)) != len(names):
            raise ArgumentError(FIELD, "an indicator was asked for twice with the same parameters")
        return cls(names, {one.label: name for name, one in zip(names, asked, strict=True) if one.label != name})


@dataclass(frozen=True, slots=True)
class Asked:
    """The indicators of a request, their names in the answer, and the columns of bars that they read."""

    indicators: tuple[Indicator, ...]
    labels: Labels
    columns: frozenset[str]

    @classmethod
    def of(cls, specs: Any) -> "Asked":
        """Raises ArgumentError. Programs ask for the same indicators again and again."""
        key = _key(specs)
        return _made(read_all(specs)) if key is None else _known(key)


def _made(indicators: Sequence[Indicator]) -> Asked:
    return Asked(tuple(indicators), Labels.of(indicators), columns_read(indicators))


def _key(specs: Any) -> tuple[Any, ...] | None:
    """A value for lists of names and of names with parameters; None for other forms.

    1, 1.0 and True are equal: the types of the parameters are part of the value.
    """
    if type(specs) not in (list, tuple):
        return None
    found: list[Any] = []
    for one in specs:
        if type(one) is str:
            found.append(one)
        elif type(one) is tuple and len(one) == 2 and type(one[0]) is str and type(one[1]) is dict:
            kinds = tuple(map(type, one[1].values()))
            if not _NUMBERS.issuperset(kinds):
                return None
            found.append((one[0], tuple(one[1].items()), kinds))
        else:
            return None
    return tuple(found)


@lru_cache(maxsize=256)
def _known(key: tuple[Any, ...]) -> Asked:
    return _made(read_all([one if isinstance(one, str) else (one[0], dict(one[1])) for one in key]))


def columns_read(asked: Iterable[Indicator]) -> frozenset[str]:
    """The columns of bars that any of the indicators reads."""
    return frozenset().union(*(one.columns for one in asked))


def read_all(specs: Any) -> list[Indicator]:
    """One indicator or several, in any of the forms of `read`. Raises ArgumentError."""
    if isinstance(specs, str | Mapping):
        return [read(specs, FIELD)]
    if not isinstance(specs, Iterable) or isinstance(specs, bytes):
        raise arguments.refuse(FIELD, 'a name such as "RSI", or a list of names', specs)
    specs = list(specs)
    # ("SMA", {"timeperiod": 50}) is one indicator, not two.
    if len(specs) == 2 and isinstance(specs[0], str) and isinstance(specs[1], Mapping) and "name" not in specs[1]:
        return [read((specs[0], specs[1]), FIELD)]
    return [read(spec, f"{FIELD}[{at}]") for at, spec in enumerate(specs)]


def read(spec: Any, field: str = FIELD) -> Indicator:
    """One indicator: "RSI", "RSI:timeperiod=14", ("RSI", {"timeperiod": 14}) or
    {"name": "RSI", "params": {"timeperiod": 14}, "last": 1}. Raises ArgumentError.
    """
    if isinstance(spec, str):
        return _parse(arguments.text(spec, field), field)
    if isinstance(spec, Mapping):
        return _from_mapping(spec, field)
    if isinstance(spec, tuple | list) and len(spec) == 2:
        return Indicator(arguments.text(spec[0], field), arguments.params(spec[1], f"{field}.params"))
    raise arguments.refuse(
        field, 'an indicator such as "RSI", "SMA:timeperiod=50" or ("SMA", {"timeperiod": 50})', spec
    )


def _from_mapping(spec: Mapping[str, Any], field: str) -> Indicator:
    unknown = sorted(str(name) for name in set(spec) - {"name", "params", "last"})
    if unknown or "name" not in spec:
        raise ArgumentError(
            field, f"an indicator needs a name and may have params and last, got {sorted(map(str, spec))}"
        )
    params = arguments.params(spec.get("params"), f"{field}.params")
    return Indicator(
        arguments.text(spec["name"], field), params, arguments.whole(spec.get("last") or 0, f"{field}.last")
    )


def _parse(text: str, field: str) -> Indicator:
    name, _, rest = text.partition(":")
    params: dict[str, float] = {}
    for pair in rest.split(",") if rest else ():
        key, _, value = pair.partition("=")
        try:
            params[key.strip()] = arguments.number(value.strip(), field)
        except ArgumentError:
            raise ArgumentError(
                field, f"indicator {text!r}: write NAME or NAME:parameter=number,parameter=number"
            ) from None
    return Indicator(name.strip(), params)

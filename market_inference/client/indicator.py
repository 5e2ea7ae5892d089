"""Indicators as users name them.

Owns the forms in which one may be written and what it is called in the answer; which names and parameters there are is
the service's to say.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

IndicatorSpec = str | tuple[str, Mapping[str, float]] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Indicator:
    """A TA-Lib function by its own name and parameter names. `last`: only this many newest values, 0 for all."""

    name: str
    params: Mapping[str, float]
    last: int = 0

    @property
    def label(self) -> str:
        """The indicator as `read` understands it, such as "SMA:timeperiod=20"."""
        params = ",".join(f"{key}={value:g}" for key, value in self.params.items())
        return f"{self.name}:{params}" if params else self.name


@dataclass(frozen=True, slots=True)
class Labels:
    """What the indicators of a request are called in its answer: `names` in order, and `aliases` for some of them.

    That is the bare name where it was asked for once, with the full label as its alias, else the full label.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str]

    @classmethod
    def of(cls, asked: Sequence[Indicator]) -> "Labels":
        times = Counter(one.name for one in asked)
        names = tuple(one.name if times[one.name] == 1 else one.label for one in asked)
        if len(set(names)) != len(names):
            raise ValueError("an indicator was asked for twice with the same parameters")
        return cls(names, {one.label: name for name, one in zip(names, asked, strict=True) if one.label != name})


def read_all(specs: IndicatorSpec | Iterable[IndicatorSpec]) -> list[Indicator]:
    """One indicator or several, in any of the forms that `read` understands."""
    if isinstance(specs, str | Mapping):
        return [read(specs)]
    return [read(spec) for spec in specs]


def read(spec: IndicatorSpec) -> Indicator:
    """One indicator; raises ValueError when it cannot be understood.

    "RSI", "RSI:timeperiod=14", ("RSI", {"timeperiod": 14}) and {"name": "RSI", "params": {"timeperiod": 14}, "last": 1}
    are the forms.
    """
    if isinstance(spec, str):
        return _parse(spec)
    if isinstance(spec, Mapping):
        return _from_mapping(spec)
    name, params = spec
    return Indicator(name, dict(params))


def _from_mapping(spec: Mapping[str, Any]) -> Indicator:
    unknown = sorted(set(spec) - {"name", "params", "last"})
    if unknown or "name" not in spec:
        raise ValueError(f"an indicator needs a name and may have params and last, got {sorted(spec)}")
    return Indicator(spec["name"], dict(spec.get("params") or {}), int(spec.get("last", 0)))


def _parse(text: str) -> Indicator:
    name, _, rest = text.partition(":")
    params: dict[str, float] = {}
    for pair in rest.split(",") if rest else ():
        key, _, value = pair.partition("=")
        try:
            params[key.strip()] = float(value)
        except ValueError:
            raise ValueError(f"indicator {text!r}: write NAME or NAME:parameter=number,parameter=number") from None
    return Indicator(name.strip(), params)

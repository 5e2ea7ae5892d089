"""Numbers from text: decimal and thousands separators, currencies, percent signs and suffixes such as 5.16M.

Owns the decision between `1,234` as 1.234 and as 1234: by evidence in the columns of the file, never by a guess.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from market_inference.client.files.error import FileError

MISSING = frozenset(
    "|nan|null|none|n/a|na|#n/a|#n/a n/a|nil|-|--|—|–|.|<na>|nat|#value!|#ref!|#div/0!|k.a.|undefined".split("|")  # noqa: SIM905
)
"""Cells, in lower case, that stand for a missing value."""
_SUFFIXES = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12, "mio": 1e6, "mrd": 1e9, "bn": 1e9, "mn": 1e6}
_CODES = (
    "USD|EUR|GBP|GBX|JPY|CHF|CNY|CNH|AUD|CAD|NZD|HKD|SGD|SEK|NOK|DKK|INR|KRW|BRL|MXN|ZAR|PLN|TRY|TWD|USDT|USDC|BTC|ETH"
)
_CURRENCY = rf"(?:[A-Z]{{1,3}}\$|{_CODES}|[$€£¥₹₩])"
# Possessive: of a run of spaces that several parts could take, every division would be tried.
_NUMBER = re.compile(
    rf"(?P<open>\()?\s*+(?P<sign>[-+−])?\s*+(?:{_CURRENCY}\s*+)?(?P<sign2>[-+−])?"
    r"(?P<core>\d[\d.,'’\u00a0\u202f ]*+|[.,]\d++)(?P<exponent>[eE][-+]?\d++)?\s*+"
    r"(?P<suffix>(?i:k|m|b|t|bn|mn|mio\.?|mrd\.?))?\s*+"
    rf"(?P<percent>%)?\s*+(?:{_CURRENCY})?\s*+(?P<close>\))?"
)
_PLAIN = frozenset("0123456789.+-\n")
_PLAIN_GROUPED = re.compile(r"^[-+]?\d{1,3}(?:\.\d{3}){2,}$", re.MULTILINE)
_PLAIN_DECIMAL = re.compile(r"^[-+]?(?:0?\.\d+|\d{4,}\.\d*|\d+\.(?!\d{3}$)\d*)$", re.MULTILINE)
_PLAIN_AMBIGUOUS = re.compile(r"^[-+]?[1-9]\d{0,2}\.\d{3}$", re.MULTILINE)
_PLAIN_UNGROUPED = re.compile(r"^[-+]?\d{4,}$", re.MULTILINE)
_GROUPS = re.compile(r"\d{1,3}(?:([.,'’\u00a0\u202f ])\d{3})(?:\1\d{3})*|\d{1,2}(?:,\d{2})*,\d{3}")
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}[.,]\d{3}")
_BY_APOSTROPHES = re.compile(r"\d{1,3}(?:['’]\d{3})+(?:[.,]\d+)?")
# 110'165 is 110 and 16.5/32, as Treasury futures are quoted. The last digit is of eighths.
_IN_32NDS = re.compile(r"\d{1,3}['’](?:[0-2]\d|3[01])[0-35-8]")


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a file, for messages: the text, and the number of the row."""

    text: str
    row: int


def missing(text: str) -> bool:
    """Whether the cell stands for a missing value."""
    return text.strip().lower() in MISSING


def looks_like_number(text: str) -> bool:
    """Whether the cell is a number in any notation."""
    found = _NUMBER.fullmatch(text.strip())
    return found is not None and (_value(found, ".") is not None or _value(found, ",") is not None)


class Evidence:
    """The separators seen in a file's number columns."""

    def __init__(self) -> None:
        self.decimal: dict[str, Cell] = {}
        self.ambiguous: dict[str, Cell] = {}
        self.ungrouped = False
        self.in_32nds: Cell | None = None
        self.by_apostrophes = False

    def add(self, texts: Sequence[str], rows: Sequence[int]) -> None:
        """Look at one column."""
        joined = "\n".join(texts)
        if _PLAIN.issuperset(joined):
            self._add_plain(joined, rows)
            return
        ungrouped = False
        ambiguous: dict[str, Cell] = {}
        for text, row in zip(texts, rows, strict=True):
            found = _NUMBER.fullmatch(text.strip())
            if found is None:
                continue
            core = found["core"].strip()
            if core.isdigit():
                ungrouped |= len(core) > 3
                continue
            if "'" in core or "’" in core:
                if _BY_APOSTROPHES.fullmatch(core) and not _IN_32NDS.fullmatch(core):
                    self.by_apostrophes = True
                else:
                    self.in_32nds = self.in_32nds or Cell(text.strip(), row)
            sign = _decimal_of(core, suffixed=bool(found["suffix"] or found["exponent"]))
            if sign:
                self.decimal.setdefault(sign, Cell(text.strip(), row))
            elif _AMBIGUOUS.fullmatch(core):
                ambiguous.setdefault("," if "," in core else ".", Cell(text.strip(), row))
        self.ungrouped |= ungrouped
        for separator, cell in ambiguous.items():
            # A column with 12345 does not group thousands, so the separator in 1,234 is a decimal separator.
            (self.decimal if ungrouped else self.ambiguous).setdefault(separator, cell)

    def _add_plain(self, joined: str, rows: Sequence[int]) -> None:
        """The same for a column of digits, points and signs, by searches over the whole text, for long files."""
        grouped, proof, doubt = (
            pattern.search(joined) for pattern in (_PLAIN_GROUPED, _PLAIN_DECIMAL, _PLAIN_AMBIGUOUS)
        )
        if _PLAIN_UNGROUPED.search(joined):
            self.ungrouped = True
            proof, doubt = proof or doubt, None
        for found, separator, into in (
            (grouped, ",", self.decimal),
            (proof, ".", self.decimal),
            (doubt, ".", self.ambiguous),
        ):
            if found:
                into.setdefault(separator, Cell(found[0], rows[joined.count("\n", 0, found.start())]))

    def decide(self, *, dot_is_decimal: bool) -> str:
        """The decimal separator. `dot_is_decimal`: whether a lone `1.234` can be read as a decimal without doubt.

        Raises FileError when the evidence is contradictory or missing.
        """
        if self.in_32nds and not self.by_apostrophes:
            raise FileError(
                f"row {self.in_32nds.row}: {self.in_32nds.text!r} may have thousands or 32nds behind the apostrophe, "
                "and no other number in the file decides; for thousands give --decimal .; 32nds are not read"
            )
        if len(self.decimal) > 1:
            dot, comma = self.decimal["."], self.decimal[","]
            raise FileError(
                f"row {dot.row}: {dot.text!r} has a decimal point and row {comma.row}: {comma.text!r} a decimal comma; "
                "give --decimal . or --decimal ,"
            )
        if self.decimal:
            return next(iter(self.decimal))
        # With 12345 in any column the file does not group thousands by points.
        if "," in self.ambiguous or ("." in self.ambiguous and not dot_is_decimal and not self.ungrouped):
            cell = self.ambiguous.get(",") or self.ambiguous["."]
            separator = "," if "," in cell.text else "."
            small = cell.text.replace(",", ".")
            large = cell.text.replace(separator, "")
            raise FileError(
                f"row {cell.row}: {cell.text!r} may be {small} or {large}, and no other number in the file decides; "
                "give --decimal . or --decimal ,"
            )
        return "."


def _decimal_of(core: str, *, suffixed: bool) -> str | None:
    """The decimal separator that a number proves, or None."""
    dots, commas = core.count("."), core.count(",")
    if dots and commas:
        return "." if core.rindex(".") > core.rindex(",") else ","
    if dots > 1:
        return ","
    if commas > 1:
        return "."
    if not dots and not commas:
        return None
    separator = "." if dots else ","
    if suffixed or not _AMBIGUOUS.fullmatch(core):
        return separator
    return None


def numbers(texts: Sequence[str], rows: Sequence[int], decimal: str, name: str) -> list[float]:
    """The numbers of a column; NaN for a missing value. Raises FileError with the row of a cell that is no number."""
    joined = "\n".join(texts)
    if decimal == "." and _PLAIN.issuperset(joined):
        try:
            return [float(text) if text else float("nan") for text in texts]
        except ValueError:
            pass  # the loop below names the row
    return [_number(text, row, decimal, name) for text, row in zip(texts, rows, strict=True)]


def _number(text: str, row: int, decimal: str, name: str) -> float:
    if missing(text):
        return float("nan")
    found = _NUMBER.fullmatch(text.strip())
    value = _value(found, decimal) if found else None
    if value is None:
        raise FileError(f"row {row}: column {name!r}: {text.strip()[:40]!r} is not a number{_hint(text, decimal)}")
    return value


def _value(found: re.Match[str], decimal: str) -> float | None:
    whole, point, fraction = found["core"].strip().partition(decimal)
    if (point and not fraction.isdigit() and fraction) or (
        not whole.isdigit() and whole and not _GROUPS.fullmatch(whole)
    ):
        return None
    digits = re.sub(r"\D", "", whole) or "0"
    value = float(f"{digits}.{fraction or '0'}{found['exponent'] or ''}")
    if found["suffix"]:
        value *= _SUFFIXES[found["suffix"].lower().rstrip(".")]
    negative = "-" in (sign := (found["sign"] or "") + (found["sign2"] or "")) or "−" in sign
    return -value if negative != bool(found["open"] and found["close"]) else value


def _hint(text: str, decimal: str) -> str:
    other = "," if decimal == "." else "."
    if other in text and looks_like_number(text):
        return f" with the decimal separator {decimal!r} of the other rows; or give --decimal {other}"
    return ""


def number_or_nan(text: str, decimal: str) -> float:
    """The number in a cell, NaN for any other cell."""
    found = _NUMBER.fullmatch(text.strip())
    value = _value(found, decimal) if found else None
    return float("nan") if value is None else value


def percentages(columns: Mapping[str, Iterable[str]]) -> list[str]:
    """The names of columns with percent signs; such numbers are read as written, 0.12% as 0.12."""
    return [name for name, texts in columns.items() if "%" in "".join(texts)]

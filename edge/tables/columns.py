"""Answers as columns, and columns as CSV or Arrow.

Owns the names of the columns and the two formats. Missing values are empty in CSV and null in Arrow.
"""

import csv
import io
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from google.protobuf.message import Message
from google.rpc import code_pb2
from numpy.typing import NDArray

from edge.errors import MediaTypeError
from edge.tables import arrow
from market_inference.contract.errors import ServiceError
from market_inference.contract.generated import inference_pb2
from market_inference.contract.json_form import encode, mistakes

CSV: Final = "text/csv"
ARROW: Final = "application/vnd.apache.arrow.stream"
MEDIA_TYPES: Final = (CSV, ARROW)
# Of a forecast, the same on each row; then of the phase of the row's step, for a request with a period.
_COVERAGE: Final = ("coverage_nominal", "coverage_measured", "coverage_origins", "phase_measured", "phase_origins")
_PART: Final = 1 << 12
_LINES: Final = 256
_FORMULA: Final = frozenset("=+-@")
Times = dict[str, list[str]]
"""The times of an answer's rows by symbol, as ISO 8601: of bars, or of a forecast's steps where the dates of the bars
are regular. A symbol without times is absent."""
Notes = Mapping[str, list[str]]
"""What the reader of a file decided, by symbol; a symbol without notes is absent."""
Reals = NDArray[np.float64]
Columns = Mapping[str, list[Any] | Reals]
"""Of equal length. NaN and infinity in an array, and None in a list, are missing values."""
Names = Mapping[str, str]


class NoArrowError(ServiceError):
    """This edge has no library for Arrow."""

    code = code_pb2.UNIMPLEMENTED
    reason = "NO_ARROW"


def wanted(accept: str, *, default: str) -> str:
    """The table format that an Accept header asks for, "" for JSON; without one, the format of the body."""
    lowered = accept.lower()
    for kind in MEDIA_TYPES:
        if kind in lowered:
            return kind
    return "" if "json" in lowered or default not in MEDIA_TYPES else default


def of(response: Message, times: Times, names: Names) -> Columns:
    """The columns of an answer. Raises MediaTypeError for an answer without a form as a table."""
    form = _FORMS.get(type(response))
    if form is None:
        raise MediaTypeError("a table", "application/json")
    return form(response, times, names)


def _forecasts(answer: Any, times: Times, names: Names) -> Columns:
    levels = [f"q{level!r}" for level in answer.quantile_levels]  # exact: close levels stay apart
    made: dict[str, list[Any]] = {
        name: [] for name in ("symbol", "step", "time", "point", *levels, *_COVERAGE, "warnings", "error")
    }
    for one in answer.forecasts:
        if one.HasField("error"):
            _append(made, symbol=one.symbol, error=mistakes.text(one.error, names))
            continue
        flat = encode.numbers(one.forecast.quantiles)
        doubts = _warnings(one.forecast.warnings)
        coverage = one.forecast.coverage
        ahead = coverage.phase_ahead[:]
        [measured], phases = encode.numbers([coverage.measured]), encode.numbers(coverage.phase_measured)
        whole = (coverage.nominal, measured, coverage.origins)
        dates = times.get(one.symbol, [])
        for step, value in enumerate(encode.numbers(one.forecast.point)):
            row = flat[step * len(levels) : (step + 1) * len(levels)]
            phase = (ahead[step] if ahead else (step + 1) % len(phases)) if phases else 0
            by_phase = (phases[phase], coverage.phase_origins[phase]) if phases else (None, None)
            cells = zip((*levels, *_COVERAGE), (*row, *whole, *by_phase), strict=True)
            date = dates[step] if dates else None
            _append(made, symbol=one.symbol, step=step + 1, time=date, point=value, warnings=doubts, **dict(cells))
    return made


def _warnings(found: Any) -> str | None:
    """The codes and sentences of an item's warnings in one cell; None for none."""
    shown = [encode.to_json(warning, {}) for warning in found]
    return " | ".join(f"{one['code']}: {one['message']}" for one in shown) or None


def _sentiments(answer: Any, times: Times, names: Names) -> Columns:
    values = ("score", "negative", "neutral", "positive")
    made: dict[str, list[Any]] = {name: [] for name in ("row", "label", *values, "warnings", "error")}
    for at, one in enumerate(answer.sentiments, 1):
        if one.HasField("error"):
            _append(made, row=at, error=mistakes.text(one.error, names))
        else:
            found = encode.to_json(one.sentiment, names)
            doubts = _warnings(one.sentiment.warnings)
            _append(made, row=at, label=found["label"], warnings=doubts, **{name: found[name] for name in values})
    return made


def _indicators(answer: Any, times: Times, names: Names) -> Columns:
    parts: list[tuple[str, dict[str, Reals], str]] = []
    for panel in answer.panels:
        if panel.HasField("error"):
            parts.append((panel.symbol, {}, mistakes.text(panel.error, names)))
            continue
        found: dict[str, Reals] = {}
        for one in panel.indicators.indicators:
            for output in one.outputs:
                label = one.name if len(one.outputs) == 1 else f"{one.name}.{output.name}"
                while label in found:  # the same function twice, with other parameters
                    label += "'"
                found[label] = np.asarray(output.values, np.float64)
        parts.append((panel.symbol, found, ""))
    rows = [1 if failure else max(map(len, found.values()), default=0) for _, found, failure in parts]
    made = {label: np.full(sum(rows), np.nan) for _, found, _ in parts for label in found}
    symbols: list[Any] = []
    instants: list[Any] = []
    failures: list[Any] = []
    for (symbol, found, failure), count in zip(parts, rows, strict=True):
        known = [] if failure else times.get(symbol, [])
        instants += known[len(known) - count :] if len(known) >= count else [None] * count
        symbols += [symbol] * count
        failures += [failure or None] * count
        for label in list(found):
            # Columns may differ in length: each ends at the newest bar.
            column = found.pop(label)
            made[label][len(symbols) - len(column) : len(symbols)] = column
    return {"symbol": symbols, "time": instants, **made, "error": failures}


def _append(made: dict[str, list[Any]], **cells: Any) -> None:
    for name, column in made.items():
        column.append(cells.get(name))


_FORMS: Final[dict[type[Message], Callable[[Any, Times, Names], Columns]]] = {
    inference_pb2.PredictResponse: _forecasts,
    inference_pb2.AnalyzeSentimentResponse: _sentiments,
    inference_pb2.ComputeIndicatorsResponse: _indicators,
}


def write(columns: Columns, kind: str) -> bytes:
    """The columns in one of MEDIA_TYPES. Raises NoArrowError."""
    return _arrow(columns) if kind == ARROW else b"".join(csv_lines(columns))


def csv_lines(columns: Columns) -> Iterator[bytes]:
    """The columns as CSV, some hundred lines at a time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    # A column without any value is left out: `error` of an answer without errors, for one. Outputs of indicators stay.
    shown = {name: column for name, column in columns.items() if _is_shown(column)}
    writer.writerow(shown)
    for at in range(0, max(map(len, shown.values()), default=0), _LINES):
        cells = [_cells(column[at : at + _LINES]) for column in shown.values()]
        writer.writerows([_harmless(cell) for cell in row] for row in zip(*cells, strict=True))
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _is_shown(column: list[Any] | Reals) -> bool:
    return isinstance(column, np.ndarray) or any(cell is not None for cell in column)


def _cells(column: list[Any] | Reals) -> list[Any]:
    return encode.numbers(column) if isinstance(column, np.ndarray) else column


def _harmless(cell: Any) -> Any:
    """A spreadsheet takes text that begins so for a formula; symbols and errors hold what callers wrote.

    Spreadsheets drop what is blank or not shown before a formula, and take the full-width forms for the ASCII ones.
    """
    if not isinstance(cell, str) or cell[:1].isalnum():
        return cell
    begins = next((character for character in cell if not _is_blank(character)), "")
    formula = cell[:1] in {"\t", "\r"} or unicodedata.normalize("NFKC", begins)[:1] in _FORMULA
    return f"'{cell}" if formula else cell


def _is_blank(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in {"Cc", "Cf"}


def _arrow(columns: Columns) -> bytes:
    target = io.BytesIO()
    polars = _polars()
    shown = {name: column for name, column in columns.items() if _is_shown(column)}
    polars.DataFrame([_series(name, column) for name, column in shown.items()]).write_ipc_stream(target)
    return target.getvalue()


def _series(name: str, column: list[Any] | Reals) -> Any:
    if isinstance(column, np.ndarray):
        return _polars().Series(name, np.where(np.isfinite(column), column, np.nan), nan_to_null=True)
    return _polars().Series(name, column)


def parquet_of(raw: bytes) -> bytes:
    """An Arrow IPC stream as a parquet file, for the reader of files. Raises NoArrowError, ValueError."""
    target = io.BytesIO()
    with _reading():
        _frame(raw).write_parquet(target)
    return target.getvalue()


def read_arrow(raw: bytes) -> dict[str, list[Any]]:
    """The columns of an Arrow IPC stream. Raises NoArrowError, ValueError."""
    with _reading():
        found: dict[str, list[Any]] = _frame(raw).to_dict(as_series=False)
    return found


@contextmanager
def _reading() -> Iterator[None]:
    """Around polars, which raises its own kinds for a damaged stream; a panic is no Exception. Raises ValueError."""
    try:
        yield
    except (ServiceError, ValueError):
        raise
    except (Exception, _polars().exceptions.PanicException) as error:  # noqa: BLE001 -- see above
        reason = str(error).partition("\n")[0][:200]
        raise ValueError(f"an Arrow IPC stream that cannot be read: {reason}") from None


def _frame(raw: bytes) -> Any:
    polars = _polars()
    arrow.check(raw)
    frame = polars.read_ipc_stream(io.BytesIO(raw))
    arrow.check_most("columns", frame.width, arrow.MOST_COLUMNS)  # a stream without rows shows none in its headers
    for name, kind in frame.schema.items():
        if kind.is_nested():
            raise ValueError(f"the column {name[:64]!r} holds lists or records; a table has one value in a cell")
    # Values become Python's, and columns of nulls have no bytes.
    arrow.check_most("values", frame.height * frame.width, arrow.MOST_CELLS)
    # Many rows may refer to the same bytes, and to the same category.
    categories = [column.cat.len_bytes().sum() for column in frame if column.dtype in (polars.Categorical, polars.Enum)]
    arrow.check_most("bytes once read", frame.estimated_size() + sum(categories), arrow.MOST_BYTES)
    arrow.check_categories(sum(categories), frame.height * len(categories))
    return frame


def _polars() -> Any:
    try:
        import polars
    except ModuleNotFoundError:
        raise NoArrowError("this edge reads and writes no Arrow: install market-inference[edge,parquet]") from None
    return polars


def iso(times: NDArray[np.datetime64]) -> list[str]:
    """Instants as ISO 8601, without the time of day where all are midnights."""
    days = times.astype("datetime64[D]")
    shown = days if (days == times).all() else times.astype("datetime64[s]")
    # In parts: numpy holds the interpreter's lock for a whole conversion, and the event loop would wait.
    return [one for at in range(0, len(shown), _PART) for one in shown[at : at + _PART].astype(str).tolist()]

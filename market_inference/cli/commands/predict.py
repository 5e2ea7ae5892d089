"""`market-inference predict`: forecasts of columns in files of bars."""

from typing import TYPE_CHECKING, Any

import click

from market_inference.cli.commands.call import Service, fail_if_any_failed, service_options
from market_inference.cli.commands.files import Reading, file_arguments, reading_options
from market_inference.cli.commands.options import SHARE, Whole

if TYPE_CHECKING:
    from market_inference.client.answers import Answers
    from market_inference.client.files import Bars
    from market_inference.client.forecast import Forecast

EXAMPLES = """
\b
Examples:
  market-inference predict AAPL.csv --horizon 10
  market-inference predict AAPL.csv MSFT.csv --column "Adj Close" --interval 0.9
  market-inference predict rates.csv --column eurusd --quantile 0.01 --quantile 0.99 --json
  market-inference predict JPM.csv BAC.csv --model chronos_2 --covariate volume --together
  cut -d, -f5 bars.csv | market-inference predict -
"""


@click.command(epilog=EXAMPLES)
@file_arguments
@click.option("--column", default="close", show_default=True, help="The column to forecast, oldest value first.")
@click.option("--horizon", type=Whole(min=1), default=10, show_default=True, help="Steps ahead.")
@click.option(
    "--interval", type=SHARE, default=0.8, show_default=True, help="The share of outcomes inside the interval."
)
@click.option(
    "--quantile",
    "quantiles",
    type=SHARE,
    multiple=True,
    help="A further level, a column beside the interval's. Repeatable; the answer has the levels ascending.",
)
@click.option(
    "--context",
    type=Whole(min=1),
    help="Use this many newest values at most; by default all that a request may hold.",
)
@click.option(
    "--period",
    type=Whole(0),
    default=0,
    help="Values of one cycle of the volatility, such as 24 for hourly prices.",
)
@click.option(
    "--times",
    is_flag=True,
    help="Take the phases of the cycle from the file's times: of a day, or of a week for daily rows, without --period.",
)
@click.option(
    "--covariate",
    "covariates",
    multiple=True,
    metavar="COLUMN",
    help="Another column for a model that takes covariates, such as volume. Repeatable.",
)
@click.option("--together", is_flag=True, help="Forecast the files from each other, by a model that takes groups.")
@click.option("--model", default="", help="A model that `market-inference models` names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reading_options
@service_options
def predict(
    service: Service,
    paths: tuple[str, ...],
    column: str,
    horizon: int,
    interval: float,
    quantiles: tuple[float, ...],
    context: int | None,
    period: int,
    times: bool,
    covariates: tuple[str, ...],
    together: bool,
    model: str,
    as_json: bool,
    reading: Reading,
) -> None:
    """Forecast a column of one or more files of bars.

    FILE is CSV, JSON or parquet, also compressed; - is standard input.

    Prints the median and an interval for every step ahead, with the step's date where the file's dates are regular.
    A file's name is its symbol.
    """
    from market_inference.client.files import FileError
    from market_inference.contract.generated import inference_pb2 as pb
    from market_inference.contract.methods import most_items

    most = most_items(pb.Series, "values")
    newest = slice(-(context or most), None)
    found = reading.by_symbol(paths, limit=most)
    try:
        series = {symbol: _series(bars, column, newest) for symbol, bars in found.items()}
        beside = {name: {symbol: bars.column(name)[newest] for symbol, bars in found.items()} for name in covariates}
    except FileError as error:
        raise click.UsageError(str(error)) from None
    with service.client() as client:
        forecasts = client.predict(
            series,
            horizon,
            quantiles=quantiles,
            interval=interval,
            model=model,
            period=period,
            times=times,
            covariates=beside or None,
            groups=together or None,
        )
        if as_json:
            _print_json(forecasts)
        else:
            _print_table(forecasts, interval, sorted(set(quantiles)))
    fail_if_any_failed(forecasts)


def _series(bars: "Bars", column: str, newest: slice) -> dict[str, Any]:
    """The newest values of a column, with their times where the file has times."""
    times = {} if bars.times is None else {"time": bars.times[newest]}
    return {**times, "value": bars.column(column)[newest]}


def _print_json(forecasts: "Answers[Forecast]") -> None:
    from market_inference.cli.commands.output import print_json

    document: list[dict[str, Any]] = [
        {
            "symbol": one.symbol,
            "times": _steps(one, None),
            "point": one.point,
            "quantiles": {repr(float(level)): one.quantile(level) for level in one.levels},
            "coverage": {
                "nominal": one.coverage.nominal,
                "measured": one.coverage.measured,
                "origins": one.coverage.origins,
                **(
                    {
                        "by_phase": one.coverage.by_phase,
                        "phase_origins": one.coverage.phase_origins,
                        **({"phase_ahead": one.coverage.phase_ahead} if one.coverage.phase_ahead else {}),
                    }
                    if one.coverage.by_phase
                    else {}
                ),
            },
            "warnings": [
                {"code": found.code, "message": found.message, "evidence": dict(found.evidence)}
                for found in one.warnings
            ],
            "model": one.model,
            "model_version": one.model_version,
            "request_id": one.request_id,
        }
        for one in forecasts.answered.values()
    ]
    print_json(document)


def _print_table(forecasts: "Answers[Forecast]", interval: float, levels: list[float]) -> None:
    from market_inference.cli.commands.output import console, decimals, instants, number, table

    out = console()
    for one in forecasts.answered.values():
        after = "" if one.index is None else f", after {instants(one.index[-1:])[0]}"
        title = f"{one.symbol or 'Forecast'} (model {one.model}){after}"
        steps = _steps(one, [str(step + 1) for step in range(one.horizon)])
        shown = table(title, "step", "median", "lower", "upper", *(f"q{level:g}" for level in levels))
        paths = (one.point, *one.interval(interval), *map(one.quantile, levels))
        places = decimals(one.point)
        for step, values in zip(steps or (), zip(*paths, strict=True), strict=True):
            shown.add_row(step, *(number(value, places) for value in values))
        out.print(shown)
        out.print(_legend(one, interval))
        for found in one.warnings:
            out.print(f"warning: {found.message}", style="yellow")


def _steps(one: "Forecast", otherwise: list[str] | None) -> list[str] | None:
    """The dates of the steps, where the series' own dates are regular."""
    from market_inference.cli.commands.output import instants
    from market_inference.client.frames.dates import following

    labels = following(one.index, one.horizon)
    return otherwise if labels is None else instants(labels)


def _legend(one: "Forecast", interval: float) -> str:
    text = f"lower to upper: the central {100 * interval:g}% interval"
    if not one.coverage.origins:
        return text
    text += (
        f"; on this series the {100 * one.coverage.nominal:g}% interval held in {one.coverage.measured:.0%} of "
        f"{one.coverage.origins} backtests"
    )
    return text if abs(interval - one.coverage.nominal) < 1e-9 else f"{text} ({100 * interval:g}% is not measured)"

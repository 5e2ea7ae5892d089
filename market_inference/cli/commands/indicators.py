"""`market-inference indicators`: TA-Lib indicators of bars in files."""

from typing import TYPE_CHECKING

import click

from market_inference.cli.commands.call import Service, fail_if_any_failed, service_options
from market_inference.cli.commands.files import Reading, csv_option, reading_options, require_close
from market_inference.cli.commands.options import Whole

if TYPE_CHECKING:
    from market_inference.client.answers import Answers, Indicators

EXAMPLES = """
\b
Examples:
  market-inference indicators RSI MACD ATR --csv AAPL.csv
  market-inference indicators SMA:timeperiod=50 SMA:timeperiod=200 --csv AAPL.csv --last 5
  market-inference indicators BBANDS:timeperiod=20,nbdevup=2.5 --csv AAPL.csv --csv MSFT.csv --json
"""


@click.command(epilog=EXAMPLES)
@click.argument("names", nargs=-1, required=True, metavar="INDICATOR...")
@csv_option("A file of bars: CSV, JSON or parquet, also compressed.")
@click.option("--last", type=Whole(min=0), default=1, show_default=True, help="Newest bars shown; 0 for all.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reading_options
@service_options
def indicators(
    service: Service, names: tuple[str, ...], paths: tuple[str, ...], last: int, as_json: bool, reading: Reading
) -> None:
    """Compute TA-Lib indicators over bars.

    INDICATOR is a TA-Lib function by TA-Lib's name, with parameters where the defaults do not fit, such as
    SMA:timeperiod=50. A file's name is its symbol.
    """
    from market_inference.contract.generated import inference_pb2 as pb
    from market_inference.contract.methods import most_items

    bars = reading.by_symbol(paths, limit=most_items(pb.Panel, "close"))
    for one in bars.values():
        require_close(one)
    with service.client() as client:
        found = client.indicators(bars, names, last=last)
        if as_json:
            _print_json(found)
        else:
            _print_table(found)
    fail_if_any_failed(found)


def _print_json(found: "Answers[Indicators]") -> None:
    from market_inference.cli.commands.output import instants, print_json

    print_json(
        [
            {
                "symbol": one.symbol,
                "times": None if one.index is None else instants(one.index),
                "indicators": one.columns(),
                "request_id": one.request_id,
            }
            for one in found.answered.values()
        ]
    )


def _print_table(found: "Answers[Indicators]") -> None:
    from market_inference.cli.commands.output import console, decimals, instants, number, table

    out = console()
    for one in found.answered.values():
        size = len(next(iter(one.values())))
        places = [decimals(values) for values in one.values()]
        dated = one.index is not None
        labels = instants(one.index) if dated else [str(at - size + 1) for at in range(size)]
        caption = "" if dated else "bar 0 is the newest"
        shown = table(one.symbol or "Indicators", "bar", *one, left=0, caption=caption)
        for label, row in zip(labels, zip(*one.values(), strict=True), strict=True):
            shown.add_row(label, *(number(value, digits) for value, digits in zip(row, places, strict=True)))
        out.print(shown)

"""`market-inference inspect`: how a file of bars is understood, and findings in the bars."""

import click

from market_inference.cli.commands.files import Reading, reading_options
from market_inference.cli.printable import echo

EXAMPLES = """
\b
Examples:
  market-inference inspect AAPL.csv
  market-inference inspect kurse.csv --decimal , --date-format DMY
"""


@click.command(epilog=EXAMPLES)
@click.argument("path", type=click.Path(exists=True, dir_okay=False, allow_dash=True), metavar="FILE")
@reading_options
def inspect(path: str, reading: Reading) -> None:
    """Show how a file of bars is understood.

    Prints encoding, delimiter, columns, order, time zone, gaps in time, and closes that jump like a split. The exit
    status is 1 for a file that cannot be read; the last line then names the row, the reason and the option to give.
    """
    from market_inference.client.files import FileError, read

    details: dict[str, str] = {}
    try:
        found = read(path, reading.options(), limit=None, details=details)
    except FileError as error:
        _print(details)
        raise click.ClickException(str(error)) from None
    many = len(found) > 1
    for symbol, bars in found.items():
        from market_inference.client.files import report

        if many:
            echo(f"\n{symbol}")
        _print(dict(bars.details))
        _print({"span": report.span(bars)})
        for label, lines in (("note", bars.notes), ("gap", report.gaps(bars)), ("jump", report.jumps(bars))):
            for line in lines:
                _print({label: line})
        if "close" not in bars:
            try:
                bars.column("close")
            except FileError as error:
                raise click.ClickException(str(error)) from None


def _print(facts: dict[str, str]) -> None:
    for name, value in facts.items():
        echo(f"{name + ':':13}{value}")

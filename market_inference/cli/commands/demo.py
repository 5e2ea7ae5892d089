"""`market-inference demo`: everything at once, on real market data."""

from pathlib import Path

import click

from market_inference.cli.commands.options import Whole
from market_inference.cli.commands.signals import end_on_signals

EXAMPLES = """
\b
Examples:
  market-inference demo
  market-inference demo --horizon 20 --output charts/feb-2013.png
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("demo-output/forecast.png"),
    show_default=True,
    help="Where the fan chart goes.",
)
@click.option("--horizon", type=Whole(1, 60), default=10, show_default=True, help="Trading days to forecast.")
@click.option("--device", default="", metavar="DEVICE", help="cpu, cuda or cuda:N; by default CUDA where there is one.")
def demo(output: Path, horizon: int, device: str) -> None:
    """Show everything once, on real market data.

    Needs no service and no key: starts an inference service and a gateway on this machine, forecasts five stocks from
    years of real daily bars, reads a page of headlines, computes indicators, prints tables, writes a fan chart, and
    ends both processes.
    """
    from market_inference.cli import checkout
    from market_inference.cli.commands.output import console

    checkout.require("gateway")
    try:
        from market_inference.cli.demo.run import run
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the Python package {error.name!r} is missing: `make demo` in the checkout installs what the demo needs"
        ) from None
    from market_inference.cli.process import ServiceProcessError
    from market_inference.errors import MarketInferenceError

    end_on_signals()
    try:
        run(output, horizon, device, console())
    except MarketInferenceError as error:
        raise click.ClickException(f"{error} (request id {error.request_id})") from None
    except (ServiceProcessError, TimeoutError, OSError) as error:
        raise click.ClickException(str(error)) from None

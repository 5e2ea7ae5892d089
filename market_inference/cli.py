"""The command line `market-inference`.

Owns the group of commands and what becomes of a failure: one clear line and exit status 1 (2 for wrong usage). Each
command is a file of commands/.
"""

import click

from market_inference import __version__
from market_inference.commands.demo import demo
from market_inference.commands.indicators import indicators
from market_inference.commands.keys import keys
from market_inference.commands.predict import predict
from market_inference.commands.sentiment import sentiment
from market_inference.commands.serve import serve
from market_inference.commands.status import models, status


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, package_name="market-inference", message="%(prog)s %(version)s")
def main() -> None:
    """Forecasts with calibrated uncertainty, financial sentiment and technical indicators.

    Start with `market-inference demo`, which needs nothing else. `market-inference serve` runs the service on this
    machine; the other commands call a service, this machine's unless --target names another.
    """


for command in (demo, serve, predict, sentiment, indicators, status, models, keys):
    main.add_command(command)

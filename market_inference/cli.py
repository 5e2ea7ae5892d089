"""The command line `market-inference`.

Owns the group of commands and what becomes of a failure: one clear line and exit status 1 (2 for wrong usage). Each
command is a file of commands/; a room that stands above this one, such as serverless, adds its own through the entry
points `market_inference.commands`.
"""

from importlib.metadata import EntryPoints, entry_points

import click

from market_inference import __version__
from market_inference.commands.demo import demo
from market_inference.commands.indicators import indicators
from market_inference.commands.keys import keys
from market_inference.commands.predict import predict
from market_inference.commands.profile import profile
from market_inference.commands.sentiment import sentiment
from market_inference.commands.serve import serve
from market_inference.commands.status import models, status
from market_inference.commands.top import top
from market_inference.commands.watch import watch


class Commands(click.Group):
    """The commands of this package, and those that other rooms offer, which are loaded when they are asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return sorted({*super().list_commands(context), *(entry.name for entry in _offered())})

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        for entry in _offered():
            if entry.name == name:
                command: click.Command = entry.load()
                return command
        return super().get_command(context, name)


def _offered() -> EntryPoints:
    return entry_points(group="market_inference.commands")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, package_name="market-inference", message="%(prog)s %(version)s")
def main() -> None:
    """Forecasts with calibrated uncertainty, financial sentiment and technical indicators.

    Start with `market-inference demo`, which needs nothing else. `market-inference serve` runs the service on this
    machine; the other commands call a service, this machine's unless --target names another.
    """


for command in (demo, serve, predict, sentiment, indicators, status, models, top, profile, keys, watch):
    main.add_command(command)

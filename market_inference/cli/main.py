"""The command line `market-inference`.

Owns the group of commands. Each command is a file of commands/. A failure is one clear line and exit status 1, wrong
usage is exit status 2.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from market_inference import __version__
from market_inference.cli.checkout import NoCheckoutError
from market_inference.cli.commands.demo import demo
from market_inference.cli.commands.deploy import deploy
from market_inference.cli.commands.indicators import indicators
from market_inference.cli.commands.inspect import inspect
from market_inference.cli.commands.keys import keys
from market_inference.cli.commands.models import models
from market_inference.cli.commands.predict import predict
from market_inference.cli.commands.profile import profile
from market_inference.cli.commands.sentiment import sentiment
from market_inference.cli.commands.serve import serve
from market_inference.cli.commands.status import status
from market_inference.cli.commands.top import top
from market_inference.cli.commands.train import train
from market_inference.cli.commands.watch import watch
from market_inference.cli.printable import printable


class _Commands(click.Group):
    """The commands; a refusal quotes files, names and servers without their control characters.

    A command that needs the services ends with a refusal where these are not installed.
    """

    def make_context(self, *given: Any, **more: Any) -> click.Context:
        """Read the arguments before the name of a command."""
        with _printable():
            return super().make_context(*given, **more)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        with _printable():
            return super().invoke(ctx)


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    except NoCheckoutError as error:
        raise click.ClickException(str(error)) from None
    except click.ClickException as error:
        # Another exception in its place would print no usage.
        error.message = printable(error.message)  # type: ignore[misc]
        raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, package_name="market-inference", message="%(prog)s %(version)s")
def main() -> None:
    """Forecasts with calibrated uncertainty, financial sentiment and technical indicators.

    Start with `market-inference demo`, which needs nothing else. `market-inference serve` runs the service on this
    machine; the other commands call a service, this machine's unless --target names another.
    """


for command in (
    demo,
    serve,
    predict,
    sentiment,
    indicators,
    inspect,
    status,
    models,
    top,
    profile,
    keys,
    watch,
    train,
    deploy,
):
    main.add_command(command)

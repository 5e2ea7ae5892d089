"""`market-inference top`: live rates, times and queues of the service in a terminal."""

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from market_inference.cli.commands.options import Number
from market_inference.cli.commands.signals import end_on_signals

if TYPE_CHECKING:
    from rich.console import Console

    from market_inference.cli.top.board import Board
    from market_inference.cli.top.services import Services

LONGEST_WAIT = 2.0
EXAMPLES = """
\b
Examples:
  market-inference top
  market-inference top --inference 10.0.0.5:9471 --inference 10.0.0.6:9471 --gateway 10.0.0.4:9470
  market-inference top --edge 127.0.0.1:9472
  market-inference top --once --interval 10 --json
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--gateway",
    "gateways",
    multiple=True,
    default=("127.0.0.1:9470",),
    show_default=True,
    metavar="HOST:PORT",
    help="The address of a gateway's /metrics. Repeatable.",
)
@click.option(
    "--inference",
    "replicas",
    multiple=True,
    default=("127.0.0.1:9471",),
    show_default=True,
    metavar="HOST:PORT",
    help="The address of an inference replica's /metrics. Repeatable.",
)
@click.option(
    "--edge",
    "edges",
    multiple=True,
    metavar="HOST:PORT",
    help="The address of an HTTP edge's /metrics, 127.0.0.1:9472 for the one of serve. Repeatable.",
)
@click.option(
    "--interval",
    type=Number(least=0.1, below=86_400),
    default=2.0,
    show_default=True,
    help="Seconds between two scrapes.",
)
@click.option("--once", is_flag=True, help="Show one interval and end; status 1 when a service is not reachable.")
@click.option("--json", "as_json", is_flag=True, help="With --once: print JSON.")
def top(
    gateways: tuple[str, ...],
    replicas: tuple[str, ...],
    edges: tuple[str, ...],
    interval: float,
    once: bool,
    as_json: bool,
) -> None:
    """Show live rates, times and queues of the service.

    Reads the /metrics of gateways and inference replicas, by default of the pair of `market-inference serve`, and of
    the named HTTP edges. Shows request rates, errors, times by phase, batches, queues, refusals, sessions and models,
    summed over the processes. Ctrl-C ends the command.
    """
    if as_json and not once:
        raise click.UsageError("--json goes with --once")
    from market_inference.cli.commands.output import console, print_json
    from market_inference.cli.top.services import Services
    from market_inference.cli.top.view import View

    out = console()
    # A view is due at each interval; a single look may take longer.
    with Services(gateways, replicas, LONGEST_WAIT if once else min(interval, LONGEST_WAIT), edges) as services:
        if not once:
            _follow(services, interval, out)
            return
        found = _once(services, interval)
    if as_json:
        print_json(asdict(found))
    else:
        out.print(View(found))
    sys.exit(any(service.problem for service in found.services))


def _once(services: "Services", interval: float) -> "Board":
    from market_inference.cli.top.board import board

    services.look()
    time.sleep(interval)
    return board(services.look())


def _follow(services: "Services", interval: float, out: "Console") -> None:
    """Redraw after every scrape until Ctrl-C; the last view stays on the screen."""
    from rich.live import Live

    from market_inference.cli.top.board import board
    from market_inference.cli.top.view import View

    end_on_signals()
    due = time.monotonic()
    try:
        with Live(console=out, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                shown = View(board(services.look()), fitted=out.is_terminal)
                if out.is_terminal:
                    live.update(shown, refresh=True)
                else:
                    out.print(shown)
                due = max(due + interval, time.monotonic())
                time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        return

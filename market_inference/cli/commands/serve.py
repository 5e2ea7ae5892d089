"""`market-inference serve`: the service on this machine, until Ctrl-C."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from market_inference.cli.commands.options import PORT
from market_inference.cli.commands.signals import end_on_signals

if TYPE_CHECKING:
    from rich.console import Console

    from market_inference.cli.pair import Pair

EXAMPLES = """
\b
Examples:
  market-inference serve
  market-inference serve --port 9000 --device cpu
"""


def _port(name: str, default: int, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, type=PORT, default=default, show_default=True, help=text)


@click.command(epilog=EXAMPLES)
@_port("--port", 8470, "The gateway's port on 127.0.0.1; 0 for any free port.")
@_port("--metrics-port", 9470, "The port of the gateway's /metrics; 0 for any.")
@_port("--inference-metrics-port", 9471, "The port of the inference service's /metrics; 0 for any.")
@_port("--http-port", 8472, "The port of the HTTP edge (page, JSON, CSV) on 127.0.0.1; 0 for any free port.")
@_port("--http-metrics-port", 9472, "The port of the HTTP edge's /metrics; 0 for any.")
@click.option("--http/--no-http", default=True, show_default=True, help="Whether to start the HTTP edge.")
@click.option("--device", default="", metavar="DEVICE", help="cpu, cuda or cuda:N; by default CUDA where there is one.")
def serve(
    port: int,
    metrics_port: int,
    inference_metrics_port: int,
    http_port: int,
    http_metrics_port: int,
    http: bool,
    device: str,
) -> None:
    """Run the service on this machine.

    Starts one inference process, one gateway and one HTTP edge, for clients on this machine only. Ctrl-C, SIGTERM or
    SIGHUP ends all processes. If a process ends by itself, the command ends the others, with exit status 1.
    """
    from market_inference.cli.commands.output import console
    from market_inference.cli.pair import Pair
    from market_inference.cli.process import ServiceProcessError

    end_on_signals()
    out = console()
    if http and find_spec("uvicorn") is None:
        out.print("no page: the HTTP edge is not installed (pip install -e '.[edge]' in the checkout)")
        http = False
    pair = Pair(
        listen=f"127.0.0.1:{port}",
        metrics_listen=f"127.0.0.1:{metrics_port}",
        inference_metrics_listen=f"127.0.0.1:{inference_metrics_port}",
        http_listen=f"127.0.0.1:{http_port}" if http else "",
        http_metrics_listen=f"127.0.0.1:{http_metrics_port}",
        device=device,
    )
    try:
        with pair:
            _run(pair, out)
    except KeyboardInterrupt:
        out.print("stopped")
    except (ServiceProcessError, TimeoutError, OSError) as error:
        raise click.ClickException(f"{error}{_remedy(str(error))}") from None


def _remedy(failure: str) -> str:
    """The way out of a port that is taken, by another `serve` most likely."""
    if "cannot listen on" not in failure:
        return ""
    return (
        "\nIs another `market-inference serve` running? For a second service choose other ports: --port, "
        "--metrics-port, --inference-metrics-port, --http-port, --http-metrics-port (0 for any free port)."
    )


def _run(pair: "Pair", out: "Console") -> None:
    from market_inference.cli.commands.loading import wait_loaded

    out.print(f"gateway   {pair.target}")
    if pair.http:
        out.print(f"page      {pair.http}/ (JSON, CSV and live updates: {pair.http}/docs)")
    out.print(f"key       {pair.key_file} (used by itself on this machine)")
    out.print("metrics   " + ", ".join(f"http://{address}/metrics" for address in pair.metrics.values()))
    out.print(f"          market-inference top{_top_options(pair)}")
    out.print("logs      " + ", ".join(str(process.log) for process in pair.processes))
    for model in wait_loaded(pair, out):
        out.print(f"model     {model.engine}: {model.name} {model.state} {model.message}".rstrip())
    target = "" if pair.target == "127.0.0.1:8470" else f" --target {pair.target}"
    out.print(f'try       market-inference sentiment "Profit rose sharply"{target}')
    out.print("Ctrl-C ends it.")
    pair.wait()


def _top_options(pair: "Pair") -> str:
    """The options that `market-inference top` needs for this pair; the default ports need none but the edge's."""
    defaults = {"gateway": "127.0.0.1:9470", "inference": "127.0.0.1:9471"}
    return "".join(f" --{kind} {at}" for kind, at in pair.metrics.items() if at != defaults.get(kind))

"""`market-inference status` and `models`: the health of the service and the models that a call may name."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from market_inference.cli.commands.call import Service, service_options

if TYPE_CHECKING:
    from rich.text import Text

HEALTH_STYLES = {"healthy": "green", "degraded": "yellow", "unhealthy": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@service_options
def status(service: Service, as_json: bool) -> None:
    """Show the health of the service.

    Every engine of every replica answers a small real input. The exit status is 1 unless the service is healthy.
    """
    from market_inference.cli.commands.output import console, print_json, table

    with service.client() as client:
        found = client.status()
    if as_json:
        print_json({**asdict(found), "time": found.time.isoformat()})
        sys.exit(found.health != "healthy")
    out = console()
    version = f", version {found.version}" if found.version else ""
    at_time = f"{version}, at {found.time:%Y-%m-%d %H:%M:%S} UTC"
    out.print(f"{service.target} is ", _styled(found.health), at_time, sep="")
    shown = table(
        "Replicas and engines", "replica", "device", "engine", "health", "model", "probe", "queued", left=5, keys=3
    )
    for replica in found.replicas:
        device = f"{replica.device.kind} {replica.device.name}".strip()
        for at, engine in enumerate(replica.engines):
            names = ("", "") if at else (replica.name, device)
            model = f"{engine.model} {engine.model_version}".strip()
            times = (f"{engine.probe_seconds * 1e3:.1f} ms", f"{engine.queued_seconds:.2f} s")
            shown.add_row(*names, engine.name, _styled(engine.health), model, *times)
    if found.engines:
        out.print(shown)
    for replica in found.replicas:
        if replica.message:
            out.print(f"{replica.name}: {replica.message}")
    sys.exit(found.health != "healthy")


def _styled(health: str) -> "Text":
    from rich.text import Text

    return Text(health, style=HEALTH_STYLES.get(health, "red"))

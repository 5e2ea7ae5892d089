"""`deploy runpod`: the command line of a deployment.

Owns the options and the output. The API key comes from the environment only, so that the key is in no shell's history
and no process list. The key is never printed.
"""

from importlib.metadata import version

import click

from serverless.deploy import cost, preflight, throughput
from serverless.deploy.api import API, JOBS, Api
from serverless.deploy.deployment import Deployment, DeploymentError
from serverless.deploy.http import Http, RemoteError
from serverless.deploy.image import Registry, parse
from serverless.deploy.plan import COMMAND, POOLS, Plan

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.group()
def deploy() -> None:
    """Deploy the inference service to a cloud platform."""


@deploy.command()
@click.option("--registry", required=True, help="Where the image is: docker.io/you, ghcr.io/you.")
@click.option("--image", default=lambda: f"market-inference:{version('market-inference')}", help="Its name and tag.")
@click.option("--gpu", required=True, type=click.Choice(list(POOLS)), help="GPU pool of the workers.")
@click.option("--min-workers", default=0, show_default=True, help="Workers that always run; 0 scales to nothing.")
@click.option("--max-workers", default=3, show_default=True, help="Workers at most.")
@click.option("--idle-seconds", default=5, show_default=True, help="How long a worker without jobs is kept.")
@click.option("--disk-gb", default=20, show_default=True, help="Disk of a worker's container.")
@click.option("--name", default="market-inference", show_default=True, help="The endpoint's name; the same is updated.")
@click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="A worker's setting, such as MARKET_SERVERLESS_STREAMING=only."
)
@click.option(
    "--registry-auth", default="", help="Id of the registry credentials saved on RunPod, for a private image."
)
@click.option("--price-per-hour", type=float, help="USD of a serverless worker, from RunPod's price page.")
@click.option(
    "--calls-per-second",
    type=click.FloatRange(min=0, min_open=True),
    help="Measured on this GPU, for the cost of a million calls.",
)
@click.option("--measure", type=click.IntRange(min=1), help="Measure it instead: send this many calls once it stands.")
@click.option("--test-timeout", default=900.0, show_default=True, help="Seconds for the test job, cold start included.")
@click.option("--dry-run", is_flag=True, help="Check and compute everything, make nothing.")
@click.option("--api-key", envvar="RUNPOD_API_KEY", hidden=True)
@click.option("--api-url", envvar="RUNPOD_API_BASE_URL", default=API, hidden=True)
@click.option("--jobs-url", envvar="RUNPOD_ENDPOINT_BASE_URL", default=JOBS, hidden=True)
@click.option("--registry-url", default="", hidden=True)
def runpod(
    registry: str,
    image: str,
    gpu: str,
    min_workers: int,
    max_workers: int,
    idle_seconds: int,
    disk_gb: int,
    name: str,
    env: tuple[str, ...],
    registry_auth: str,
    price_per_hour: float | None,
    calls_per_second: float | None,
    measure: int | None,
    test_timeout: float,
    dry_run: bool,
    api_key: str | None,
    api_url: str,
    jobs_url: str,
    registry_url: str,
) -> None:
    """Deploy to RunPod Serverless: check, price, create or update, test; roll back when the test fails.

    The API key is read from RUNPOD_API_KEY.
    """
    plan = Plan(
        name=name,
        image=f"{registry.rstrip('/')}/{image}",
        gpu=gpu,
        workers_min=min_workers,
        workers_max=max_workers,
        idle_seconds=idle_seconds,
        disk_gb=disk_gb,
        env=dict(_setting(one) for one in env),
        registry_auth=registry_auth,
    )
    api = Api(api_key, api=api_url, jobs=jobs_url) if api_key else None
    report = preflight.run(plan, api, _registry(plan.image, registry_url))
    for check in report.checks:
        click.echo(f"{_MARKS[check.outcome]} {check.subject}: {check.text}")
    price = cost.of(plan, report.prices, price_per_hour) if gpu in POOLS else None
    _print_cost(price, plan, calls_per_second, from_api=price_per_hour is None)
    if not report.passed or api is None:
        raise click.ClickException("nothing was made; see what failed above")
    if dry_run:
        click.echo(
            f"dry run: would make template {plan.template_name!r} and endpoint {plan.name!r}, running {COMMAND!r}"
        )
        return
    try:
        endpoint = Deployment(plan, api, click.echo, test_timeout=test_timeout).apply()
    except DeploymentError as error:
        raise click.ClickException(str(error)) from error
    if measure:
        try:
            rate = throughput.measure(api, endpoint["id"], measure)
        except RemoteError as error:
            raise click.ClickException(f"the endpoint stands, but the measurement failed: {error}") from error
        _print_cost(price, plan, rate, from_api=price_per_hour is None)
    click.echo(f"ready: {jobs_url}/{endpoint['id']}/runsync")


def _setting(given: str) -> tuple[str, str]:
    name, found, value = given.partition("=")
    if not found:
        raise click.BadParameter(f"{name!r} has no value: NAME=VALUE", param_hint="--env")
    return name, value


def _registry(image: str, base: str) -> Registry | None:
    try:
        return Registry(Http({}), parse(image), base)
    except ValueError:
        return None


def _print_cost(price: cost.Cost | None, plan: Plan, calls_per_second: float | None, *, from_api: bool) -> None:
    if price is None:
        click.echo("cost: unknown; give --price-per-hour")
        return
    source = (
        "the API's on-demand pod prices; serverless workers cost more, see the price page" if from_api else "as given"
    )
    click.echo(f"cost ({source}):")
    for line in price.lines(plan, calls_per_second):
        click.echo(f"  {line}")

"""`deploy runpod`: the command line of a deployment.

Owns the options and the output. The API key comes from the environment only, so that the key is in no shell's history
and no process list. The key is never printed.
"""

from importlib.metadata import version

import click

from runtime.remote.http import Http, RemoteError
from runtime.remote.runpod import API, RunPod
from serverless.deploy import cost, preflight, throughput
from serverless.deploy.deployment import Deployment, DeploymentError
from serverless.deploy.image import ImageRegistry, parse
from serverless.deploy.jobs import JOBS, Jobs
from serverless.deploy.plan import COMMAND, POOLS, Plan

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.group()
def deploy() -> None:
    """Deploy the inference service to a cloud platform."""


@deploy.command()
@click.option("--registry", required=True, help="Where the image is: docker.io/you, ghcr.io/you.")
@click.option("--image", default=lambda: f"market-inference:{version('market-inference')}", help="Its name and tag.")
@click.option("--gpu", required=True, type=click.Choice(POOLS), help="GPU pool of the workers.")
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
@click.option("--price-per-hour", type=float, help="USD of a serverless worker, instead of the price in the API.")
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
    api = RunPod(api_key, api=api_url) if api_key else None
    report = preflight.run(plan, api, _registry(plan.image, registry_url))
    for check in report.checks:
        click.echo(f"{_MARKS[check.outcome]} {check.subject}: {check.text}")
    price = cost.of(plan, report.gpus, price_per_hour)
    _print_cost(price, plan, calls_per_second, from_api=price_per_hour is None)
    if not report.passed or api is None or api_key is None:
        raise click.ClickException("nothing was made; see what failed above")
    if dry_run:
        click.echo(
            f"dry run: would make template {plan.template_name!r} and endpoint {plan.name!r}, running {COMMAND!r}"
        )
        return
    jobs = Jobs(api_key, url=jobs_url)
    try:
        endpoint = Deployment(plan, api, jobs, click.echo, test_timeout=test_timeout).apply()
    except DeploymentError as error:
        raise click.ClickException(str(error)) from error
    if measure:
        try:
            rate = throughput.measure(jobs, endpoint["id"], measure)
        except RemoteError as error:
            raise click.ClickException(f"the endpoint stands, but the measurement failed: {error}") from error
        _print_cost(price, plan, rate, from_api=price_per_hour is None)
    click.echo(f"ready: {jobs_url}/{endpoint['id']}/runsync")


def _setting(given: str) -> tuple[str, str]:
    name, found, value = given.partition("=")
    if not found:
        raise click.BadParameter(f"{name!r} has no value: NAME=VALUE", param_hint="--env")
    return name, value


def _registry(image: str, base: str) -> ImageRegistry | None:
    try:
        return ImageRegistry(Http({}), parse(image), base)
    except ValueError:
        return None


def _print_cost(price: cost.Cost | None, plan: Plan, calls_per_second: float | None, *, from_api: bool) -> None:
    if price is None:
        click.echo("cost: unknown; give --price-per-hour")
        return
    click.echo(f"cost ({'the prices of serverless workers in the API' if from_api else 'as given'}):")
    for line in price.lines(plan, calls_per_second):
        click.echo(f"  {line}")

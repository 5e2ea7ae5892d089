"""`market-inference train`: datasets, fine-tuning jobs and their artifacts, by the training plane."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from market_inference.cli.commands.options import Whole
from market_inference.cli.commands.signals import end_on_signals
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from market_inference.cli.training.plane import Plane

EXAMPLES = """
\b
Examples:
  market-inference train demo
  market-inference train serve
  market-inference train run recipe.yaml --data headlines.csv
  market-inference train watch 01M8HA6MDY93G3J7MXWPK51RN5
  market-inference train artifacts 01M8HA6MDY93G3J7MXWPK51RN5 --out model
"""
KINDS = ("texts", "bars")
_CHECK_SECONDS = 3600.0

plane_url = click.option(
    "--plane", "url", envvar="MARKET_TRAINING_URL", default="http://127.0.0.1:8475", show_default=True,
    help="The training plane's address (or MARKET_TRAINING_URL).",
)  # fmt: skip
as_json = click.option("--json", "raw", is_flag=True, help="Print JSON.")


@click.group(epilog=EXAMPLES)
def train() -> None:
    """Fine-tune models: upload data, run jobs, fetch artifacts.

    The commands call a training plane, this machine's unless --plane names another; `train serve` starts one. The key
    is MARKET_INFERENCE_API_KEY, or this machine's own; the key needs the scope training:run.
    """


@train.command()
def serve() -> None:
    """Run a training plane on this machine: settings are MARKET_TRAINING_*, as docs/training.md lists them."""
    from market_inference.cli.checkout import command

    program, environment = command("training.plane", {})
    sys.stdout.flush()
    os.execve(program[0], program, environment)


@train.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Keep the model in this folder.")
def demo(out: Path | None) -> None:
    """Do everything once on this machine, in under two minutes, and leave nothing behind.

    Starts a training plane, uploads labelled headlines, fine-tunes the embedded sentiment model for some steps on the
    CPU, fetches the artifacts, and ends the plane.
    """
    from market_inference.cli.commands.output import console
    from market_inference.cli.training.demo import run as run_demo

    end_on_signals()
    with refusals():
        run_demo(console(), out)


@train.command()
@click.argument("recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A CSV file to upload.")
@click.option("--dataset", default="", help="The id of a dataset that is uploaded already.")
@click.option("--kind", type=click.Choice(KINDS), help="What the rows of --data are; by default what the recipe needs.")
@click.option("--dry-run", is_flag=True, help="Check recipe and dataset; make no job.")
@click.option("--detach", is_flag=True, help="Print the job's id and end, instead of watching the job.")
@plane_url
def run(recipe: Path, data: Path | None, dataset: str, kind: str | None, dry_run: bool, detach: bool, url: str) -> None:
    """Run the RECIPE (YAML) on a dataset, and watch the job."""
    if (data is None) == (not dataset):
        raise click.UsageError("give either --data FILE or --dataset ID")
    with refusals():
        plane = plane_at(url)
        document = recipe.read_bytes()
        if data is not None:
            needed = plane.dataset_kind(document)  # before the upload, which may take long
            if kind not in (None, needed):
                raise click.UsageError(f"--kind {kind}: this recipe needs a dataset of {needed}")
            dataset = plane.upload(data, needed)
            _wait_checked(plane, dataset)
        made = plane.run(document, dataset, dry_run=dry_run)
        if dry_run:
            _show_checks(made)
        elif detach:
            echo(made["id"])
        else:
            _watch(plane, made["id"])


def _show_checks(report: dict[str, Any]) -> None:
    """Print the checks and the costs of a job. Ends with status 1 when a check failed."""
    from market_inference.cli.commands.output import console, table

    for check in report["checks"]:
        echo(f"{'ok    ' if check['passed'] else 'FAILED'} {check['field']}: {check['text']}")
    shown = table("what a job costs", "machine", "USD/h", "expected", "at most", "by", left=1)
    for offer in report["offers"]:
        costs = (f"{offer[name]:.2f}" for name in ("usd_per_hour", "usd_expected", "usd_most"))
        shown.add_row(offer["offer"], *costs, offer["basis"])
    console().print(shown)
    if not report["valid"]:
        raise click.ClickException("no job would be made; see what failed above")


@train.command()
@as_json
@plane_url
def budget(raw: bool, url: str) -> None:
    """Show what is left of this month's budget."""
    from market_inference.cli.commands.output import print_json

    with refusals():
        found = plane_at(url).json("GET", "/budget")
    if raw:
        print_json(found)
        return
    amounts = ", ".join(f"{found[f'{name}_usd']:.2f} {name}" for name in ("charged", "reserved", "left"))
    echo(f"{found['owner']}, {found['period']}: {amounts} of {found['limit_usd']:.2f} USD")


@train.command("list")
@click.option("--state", default="", help="Only jobs in this state.")
@click.option("--limit", type=Whole(1, 500), default=20, show_default=True)
@as_json
@plane_url
def list_jobs(state: str, limit: int, raw: bool, url: str) -> None:
    """List jobs, the newest first."""
    from market_inference.cli.commands.output import print_rows

    def cells(job: Any) -> tuple[str, ...]:
        return job["id"], job["name"], job["state"], f"{job['progress']:.0%}", str(job["attempt"])

    with refusals():
        jobs = plane_at(url).json("GET", f"/jobs?limit={limit}&state={state}")["jobs"]
    print_rows(jobs, raw, "jobs", "id", "name", "state", "progress", "attempts", left=3, cells=cells)


@train.command()
@click.argument("job")
@plane_url
def watch(job: str, url: str) -> None:
    """Follow the JOB live; the exit status is 0 when it succeeds."""
    with refusals():
        _watch(plane_at(url), job)


@train.command()
@click.argument("job")
@as_json
@plane_url
def show(job: str, raw: bool, url: str) -> None:
    """Show the JOB: recipe, attempts, result."""
    from market_inference.cli.commands.output import console, print_json, table

    with refusals():
        found = plane_at(url).json("GET", f"/jobs/{job}")
    if raw:
        print_json(found)
        return
    echo(f"{found['id']}  {found['name']}  {found['state']}  {found.get('reason', '')}".rstrip())
    shown = table("attempts", "n", "state", "cause", "exit code", "step", left=3)
    for one in found["attempts"]:
        code = str(one.get("exit_code", ""))
        shown.add_row(str(one["n"]), one["state"], one.get("cause", ""), code, str(one["step"]))
    console().print(shown)
    for name, value in (found.get("result") or {}).get("measures", {}).items():
        echo(f"{name}  {value}")


@train.command()
@click.argument("job")
@plane_url
def logs(job: str, url: str) -> None:
    """Print the log of the JOB's newest attempt."""
    with refusals():
        echo(plane_at(url).exchange("GET", f"/jobs/{job}/logs", None, {}).decode(errors="replace"), nl=False)


@train.command()
@click.argument("job")
@plane_url
def cancel(job: str, url: str) -> None:
    """Ask the JOB to end."""
    with refusals():
        found = plane_at(url).json("POST", f"/jobs/{job}/cancel")
    echo(f"{found['id']} is {found['state']}", err=True)


@train.command()
@click.argument("job")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Fetch the files into this folder.")
@as_json
@plane_url
def artifacts(job: str, out: Path | None, raw: bool, url: str) -> None:
    """List the files that the JOB has made, or fetch these."""
    from market_inference.cli.commands.output import print_rows

    def cells(one: Any) -> tuple[str, ...]:
        return one["id"], one["name"], one["sha256"][:16], f"{one['bytes']:,}"

    with refusals():
        plane = plane_at(url)
        found = plane.json("GET", f"/jobs/{job}/artifacts")["artifacts"]
        if out is not None:
            for artifact in found:
                echo(str(plane.download(artifact, out)))
            return
    print_rows(found, raw, "artifacts", "id", "name", "SHA-256", "bytes", left=3, cells=cells)


@train.command()
@click.option("--upload", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A CSV file to upload.")
@click.option("--kind", type=click.Choice(KINDS), default="texts", show_default=True, help="What its rows are.")
@click.option("--show", "shown_id", default="", help="Show the report of this dataset.")
@click.option("--delete", "deleted_id", default="", help="Delete this dataset.")
@as_json
@plane_url
def datasets(upload: Path | None, kind: str, shown_id: str, deleted_id: str, raw: bool, url: str) -> None:
    """List datasets; upload, show or delete one."""
    from market_inference.cli.commands.output import print_json, print_rows

    def cells(one: Any) -> tuple[str, ...]:
        return one["id"], one["name"], one["kind"], one["state"], f"{one.get('rows', 0):,}", f"{one['bytes']:,}"

    with refusals():
        plane = plane_at(url)
        if upload is not None:
            made = plane.upload(upload, kind)
            _wait_checked(plane, made)
            echo(made)
            return
        if deleted_id:
            plane.json("DELETE", f"/datasets/{deleted_id}")
            return
        if shown_id:
            print_json(plane.json("GET", f"/datasets/{shown_id}"))
            return
        found = plane.json("GET", "/datasets")["datasets"]
    print_rows(found, raw, "datasets", "id", "name", "kind", "state", "rows", "bytes", left=4, cells=cells)


def plane_at(url: str) -> "Plane":
    from market_inference.cli.training.plane import Plane

    return Plane(url)


def _watch(plane: "Plane", job: str) -> None:
    from market_inference.cli.commands.output import console
    from market_inference.cli.training.watch import watch as follow

    try:
        done = follow(plane, job, console())
    except KeyboardInterrupt:
        raise click.ClickException(f"the job goes on: market-inference train watch {job}") from None
    if done["state"] != "succeeded":
        raise click.ClickException(f"the job {done['state']}: {done.get('reason', '')}".rstrip(": "))
    for name, value in done["result"]["measures"].items():
        echo(f"{name}  {value:.4f}" if isinstance(value, float) else f"{name}  {value}")


def _wait_checked(plane: "Plane", dataset: str) -> None:
    """Until the checks are over; prints what they warn of."""
    found = plane.settled(f"/datasets/{dataset}", "uploading", "checking", seconds=_CHECK_SECONDS)
    _print_warnings(found)
    if found["state"] != "ready":
        raise click.ClickException(f"the dataset is {found['state']}: {found.get('reason', '')}")


def _print_warnings(dataset: Any) -> None:
    report = dataset.get("report") or {}
    for code, count in report.get("warnings", {}).items():
        first = report["places"][code][0]
        where = f"row {first['row']}: " if first["row"] else ""
        echo(f"warning  {code} ({count}): {where}{first['why']}", err=True)


@contextmanager
def refusals() -> Iterator[None]:
    """Refusals and an end of the plane, and files that cannot be read or written, as one line and exit status 1."""
    from market_inference.cli.process import ServiceProcessError
    from market_inference.cli.training.plane import PlaneError

    try:
        yield
    except BrokenPipeError:  # click's: nobody reads the output
        raise
    except (PlaneError, ServiceProcessError, OSError) as error:
        raise click.ClickException(str(error)) from None

"""`market-inference models`: the models that a call may name, and the versions of models by the training plane."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from market_inference.cli.commands.call import Service, service_options
from market_inference.cli.commands.train import as_json, plane_at, plane_url, refusals
from market_inference.cli.printable import echo

EXAMPLES = """
\b
Examples:
  market-inference models
  market-inference models register 01M8HA6MDY93G3J7MXWPK51RN5 --name desk
  market-inference models promote desk 3 --reason "better on the news of March"
  market-inference models lineage desk 3-9f86d081
"""
_VERDICT_SECONDS = 600.0
reason = click.option("--reason", required=True, help="Why; the history keeps it.")


@click.group(invoke_without_command=True, epilog=EXAMPLES)
@click.option("--json", "raw", is_flag=True, help="Print JSON.")
@service_options
@click.pass_context
def models(context: click.Context, service: Service, raw: bool) -> None:
    """List the models that a call may name; register, promote and roll back versions.

    Without a subcommand the service answers; the subcommands call a training plane (--plane). `promote`, `shadow` and
    `rollback` need the scope training:promote.
    """
    if context.invoked_subcommand is not None:
        return
    from market_inference.cli.commands.output import print_rows

    def cells(one: dict[str, Any]) -> tuple[str, ...]:
        default = "yes" if one["is_default"] else ""
        return one["engine"], one["name"], one["state"], default, one["version"], " ".join(one["takes"]), one["message"]

    with service.client() as client:
        found = [asdict(model) for model in client.models()]
    columns = ("engine", "model", "state", "default", "version", "takes", "note")
    print_rows(found, raw, "Models", *columns, left=7, keys=2, cells=cells)


@models.command()
@click.argument("job")
@click.option("--name", required=True, help="The model's name in requests.")
@as_json
@plane_url
def register(job: str, name: str, raw: bool, url: str) -> None:
    """Make a version of the JOB's model, and wait for the verdict of the gate; the exit status is 0 when it passes."""
    _await_verdict(url, name, f"/models/{name}/versions", {"job": job}, raw)


@models.command()
@click.argument("name")
@click.argument("version")
@as_json
@plane_url
def judge(name: str, version: str, raw: bool, url: str) -> None:
    """Have VERSION of the model NAME compared with the champion of now; the exit status is 0 when the version passes.

    A version that was compared with an earlier champion is not promoted.
    """
    _await_verdict(url, name, f"/models/{name}/versions/{version}/judge", None, raw)


@models.command()
@click.argument("name")
@as_json
@plane_url
def versions(name: str, raw: bool, url: str) -> None:
    """List the versions of the model NAME, the newest first."""
    from market_inference.cli.commands.output import print_rows

    def cells(one: Any) -> tuple[str, ...]:
        return one["label"], one["state"], one["job"], _time(one["created_at"])

    with refusals():
        found = plane_at(url).json("GET", f"/models/{name}/versions")["versions"]
    print_rows(found, raw, name, "version", "verdict", "job", "made", left=4, cells=cells)


@models.command()
@click.argument("name")
@click.argument("version")
@click.option("--shadow", is_flag=True, help="Run the version beside the champion, unseen by callers.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=0.1, help="Of requests, for --shadow.")
@reason
@plane_url
def promote(name: str, version: str, shadow: bool, share: float, reason: str, url: str) -> None:
    """Put VERSION, a number or a label, of the model NAME into service."""
    body: dict[str, Any] = {"version": version, "reason": reason}
    if shadow:
        body |= {"shadow": True, "share": share}
    with refusals():
        _say(plane_at(url).json("POST", f"/models/{name}/promote", body))


@models.command()
@click.argument("name")
@reason
@plane_url
def unshadow(name: str, reason: str, url: str) -> None:
    """End the shadow of the model NAME."""
    with refusals():
        _say(plane_at(url).json("DELETE", f"/models/{name}/shadow", {"reason": reason}))


@models.command()
@click.argument("name")
@reason
@plane_url
def rollback(name: str, reason: str, url: str) -> None:
    """Bring the version of the model NAME that was in service before back."""
    with refusals():
        _say(plane_at(url).json("POST", f"/models/{name}/rollback", {"reason": reason}))


@models.command()
@click.argument("name")
@as_json
@plane_url
def history(name: str, raw: bool, url: str) -> None:
    """Show every promotion and rollback of the model NAME, the newest first."""
    from market_inference.cli.commands.output import print_rows

    def cells(one: Any) -> tuple[str, ...]:
        before, after = one.get("before", "configured"), one.get("after", "configured")
        return _time(one["at"]), one["action"], before, after, one["author"], one["reason"]

    with refusals():
        found = plane_at(url).json("GET", f"/models/{name}/history")["history"]
    print_rows(found, raw, name, "when", "what", "from", "to", "by", "why", left=6, cells=cells)


@models.command()
@click.argument("name")
@click.argument("version")
@as_json
@plane_url
def lineage(name: str, version: str, raw: bool, url: str) -> None:
    """Show what made VERSION, an answer's model_version: job, data, recipe, base, image, verdict, promotions."""
    with refusals():
        found = plane_at(url).json("GET", f"/models/{name}/versions/{version}")
    _show_version(found, raw)


def _await_verdict(url: str, name: str, path: str, body: dict[str, str] | None, raw: bool) -> NoReturn:
    """Ask for a verdict, and show the version once the gate has judged the version, or after _VERDICT_SECONDS."""
    with refusals():
        plane = plane_at(url)
        label = plane.json("POST", path, body)["label"]
        found = plane.settled(f"/models/{name}/versions/{label}", "judging", seconds=_VERDICT_SECONDS)
    _show_version(found, raw)
    sys.exit(0 if found["state"] == "passed" else 1)


def _show_version(found: Any, raw: bool) -> None:
    from market_inference.cli.commands.output import print_json

    if raw:
        print_json(found)
        return
    report = found.get("report") or {}
    echo(f"{found['name']} {found['label']}  {found['state']}")
    for why in report.get("reasons", []):
        echo(f"  {why}")
    for name in ("job", "dataset", "dataset_sha256", "recipe_sha256", "image"):
        echo(f"{name}  {found.get(name, '')}".rstrip())
    echo(f"base  {found['base'].get('package') or found['base'].get('base', '')}".rstrip())
    for move in found["promotions"]:
        echo(f"{_time(move['at'])}  {move['action']} by {move['author']}: {move['reason']}")


def _say(model: Any) -> None:
    shadow = f", {model['shadow']} in the shadow" if model.get("shadow") else ""
    echo(f"{model['name']}: {model.get('champion', 'the configured model')} is in service{shadow}", err=True)


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(sep=" ", timespec="seconds")

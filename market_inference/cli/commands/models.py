"""`market-inference models`: the models that a call may name, and the versions of models by the training plane."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from market_inference.cli.commands.call import Service, service_options
from market_inference.cli.commands.train import as_json, plane_url
from market_inference.cli.printable import echo

if TYPE_CHECKING:
    from market_inference.cli.training.plane import Plane

EXAMPLES = """
\b
Examples:
  market-inference models
  market-inference models register 01M8HA6MDY93G3J7MXWPK51RN5 --name desk
  market-inference models promote desk 3 --reason "better on the news of March"
  market-inference models lineage desk 3-9f86d081
"""
_POLLS, _POLL_SECONDS = 1200, 0.5
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
    from market_inference.cli.commands.output import console, print_json, table

    with service.client() as client:
        found = client.models()
    if raw:
        print_json([asdict(model) for model in found])
        return
    shown = table("Models", "engine", "model", "state", "default", "version", "takes", "note", left=7)
    for model in found:
        default = "yes" if model.is_default else ""
        shown.add_row(
            model.engine, model.name, model.state, default, model.version, " ".join(model.takes), model.message
        )
    console().print(shown)


@models.command()
@click.argument("job")
@click.option("--name", required=True, help="The model's name in requests.")
@as_json
@plane_url
def register(job: str, name: str, raw: bool, url: str) -> None:
    """Make a version of the JOB's model, and wait for the verdict of the gate; the exit status is 0 when it passes."""
    with _refusals():
        plane = _plane(url)
        found = _verdict(plane, name, plane.json("POST", f"/models/{name}/versions", {"job": job})["label"])
    _show_version(found, raw)
    sys.exit(0 if found["state"] == "passed" else 1)


@models.command()
@click.argument("name")
@click.argument("version")
@as_json
@plane_url
def judge(name: str, version: str, raw: bool, url: str) -> None:
    """Have VERSION of the model NAME compared with the champion of now; the exit status is 0 when the version passes.

    A version that was compared with an earlier champion is not promoted.
    """
    with _refusals():
        plane = _plane(url)
        found = _verdict(plane, name, plane.json("POST", f"/models/{name}/versions/{version}/judge")["label"])
    _show_version(found, raw)
    sys.exit(0 if found["state"] == "passed" else 1)


@models.command()
@click.argument("name")
@as_json
@plane_url
def versions(name: str, raw: bool, url: str) -> None:
    """List the versions of the model NAME, the newest first."""
    from market_inference.cli.commands.output import console, print_json, table

    with _refusals():
        found = _plane(url).json("GET", f"/models/{name}/versions")["versions"]
    if raw:
        print_json(found)
        return
    shown = table(name, "version", "verdict", "job", "made", left=4)
    for one in found:
        shown.add_row(one["label"], one["state"], one["job"], _time(one["created_at"]))
    console().print(shown)


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
    with _refusals():
        _say(_plane(url).json("POST", f"/models/{name}/promote", body))


@models.command()
@click.argument("name")
@reason
@plane_url
def unshadow(name: str, reason: str, url: str) -> None:
    """End the shadow of the model NAME."""
    with _refusals():
        _say(_plane(url).json("DELETE", f"/models/{name}/shadow", {"reason": reason}))


@models.command()
@click.argument("name")
@reason
@plane_url
def rollback(name: str, reason: str, url: str) -> None:
    """Bring the version of the model NAME that was in service before back."""
    with _refusals():
        _say(_plane(url).json("POST", f"/models/{name}/rollback", {"reason": reason}))


@models.command()
@click.argument("name")
@as_json
@plane_url
def history(name: str, raw: bool, url: str) -> None:
    """Show every promotion and rollback of the model NAME, the newest first."""
    from market_inference.cli.commands.output import console, print_json, table

    with _refusals():
        found = _plane(url).json("GET", f"/models/{name}/history")["history"]
    if raw:
        print_json(found)
        return
    shown = table(name, "when", "what", "from", "to", "by", "why", left=6)
    for one in found:
        before, after = one.get("before", "configured"), one.get("after", "configured")
        shown.add_row(_time(one["at"]), one["action"], before, after, one["author"], one["reason"])
    console().print(shown)


@models.command()
@click.argument("name")
@click.argument("version")
@as_json
@plane_url
def lineage(name: str, version: str, raw: bool, url: str) -> None:
    """Show what made VERSION, an answer's model_version: job, data, recipe, base, image, verdict, promotions."""
    with _refusals():
        found = _plane(url).json("GET", f"/models/{name}/versions/{version}")
    _show_version(found, raw)


def _verdict(plane: "Plane", name: str, label: str) -> Any:
    """The version, once the gate has judged it; while the gate is at work after _POLLS looks, the version as it is."""
    for _ in range(_POLLS):
        found = plane.json("GET", f"/models/{name}/versions/{label}")
        if found["state"] != "judging":
            break
        time.sleep(_POLL_SECONDS)
    return found


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


def _plane(url: str) -> "Plane":
    from market_inference.cli.training.plane import Plane

    return Plane(url)


@contextmanager
def _refusals() -> Iterator[None]:
    """The plane's refusals as one clear line and exit status 1."""
    from market_inference.cli.training.plane import PlaneError

    try:
        yield
    except PlaneError as error:
        raise click.ClickException(str(error)) from None

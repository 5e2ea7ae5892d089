"""`market-inference deploy`: the serverless worker on RunPod.

Owns the start of `python -m serverless.deploy` as a child process. The command itself stands beside the worker, in
serverless/deploy.
"""

import subprocess
import sys

import click

from market_inference.cli.checkout import command


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    short_help="Put the worker on RunPod serverless.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def deploy(arguments: tuple[str, ...]) -> None:
    """Put the worker on RunPod serverless; `market-inference deploy --help` lists what it takes."""
    program, environment = command("serverless.deploy", {})
    sys.exit(subprocess.run([*program, *arguments], env=environment, check=False).returncode)

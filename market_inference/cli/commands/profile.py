"""`market-inference profile`: a CPU or device profile of one process of the service."""

from pathlib import Path

import click

from market_inference.cli.commands.options import Whole
from market_inference.cli.printable import echo

ENDINGS = {"flamegraph": "svg", "speedscope": "speedscope.json", "folded": "txt", "device": "trace.json"}
# Seconds that taking a profile may need beyond the profile's own.
PATIENCE_SECONDS = 60.0
EXAMPLES = """
\b
Examples:
  market-inference profile --target 127.0.0.1:8480
  market-inference profile --target 127.0.0.1:8481 --seconds 5 --kind device --engine sentiment
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "--target",
    required=True,
    metavar="HOST:PORT",
    help="The address of MARKET_GATEWAY_PROFILE_LISTEN or MARKET_INFERENCE_PROFILE_LISTEN.",
)
@click.option("--seconds", type=Whole(1, 60), default=10, show_default=True, help="Length of the profile.")
@click.option(
    "--kind",
    type=click.Choice(list(ENDINGS)),
    default="flamegraph",
    show_default=True,
    help="An SVG file; a file for speedscope.app; lines of text; or operators on the device, for ui.perfetto.dev.",
)
@click.option(
    "--engine",
    default="",
    help="With --kind device: the engine (forecast when not given); forecast-long for batches that take long.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write; profile.* when not given."
)
def profile(target: str, seconds: int, kind: str, engine: str, output: Path | None) -> None:
    """Take a profile of one process of the service.

    The process must have the setting PROFILE_LISTEN and listens on loopback alone: for a pod, run
    `kubectl port-forward pod/NAME 8480:8480` first.
    """
    import grpc

    from market_inference.client.connection import channel_options, check_target
    from market_inference.contract.generated import profile_pb2, profile_pb2_grpc
    from market_inference.errors import ArgumentError, from_rpc

    try:
        target = check_target(target)
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    request = profile_pb2.TakeProfileRequest(
        seconds=seconds, kind=profile_pb2.ProfileKind.Value(f"PROFILE_KIND_{kind.upper()}"), engine=engine
    )
    with grpc.insecure_channel(target, channel_options(target)) as channel:
        try:
            taken = profile_pb2_grpc.ProfileServiceStub(channel).TakeProfile(
                request, timeout=seconds + PATIENCE_SECONDS
            )
        except grpc.RpcError as failure:
            raise click.ClickException(f"{target}: {from_rpc(failure, '').message}") from None
    file = output or Path(f"profile.{ENDINGS[kind]}")
    file.write_bytes(taken.profile)
    echo(f"{file}: {len(taken.profile)} bytes, process {taken.process_id}")

"""The process: configuration, logs, and the SDK's loop. Everything else is handler.py's.

Owns the order in which logs are set up and the SDK is imported: it logs jobs' inputs unless told otherwise, and takes
over logging when nobody has.
"""

import os
import sys

from pydantic import ValidationError

from inference.config import Config as ServiceConfig
from runtime import logs
from serverless.config import Config
from serverless.handler import Handler


def main() -> None:
    """Run the worker until it is told to stop; or one job, or an HTTP server, as the SDK's options say."""
    try:
        config, service = Config(), ServiceConfig()
    except ValidationError as error:
        sys.exit(f"serverless: bad configuration\n{error}")
    logs.configure(config.log_level)
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    try:
        import runpod
    except ModuleNotFoundError as error:
        sys.exit(f"serverless: the Python package {error.name!r} is missing: install market-inference[serverless]")
    handler = Handler(config, service)
    runpod.serverless.start(
        {
            "handler": handler if config.streaming == "off" else handler.stream,
            "concurrency_modifier": handler.concurrency,
            "return_aggregate_stream": config.streaming == "aggregated",
        }
    )

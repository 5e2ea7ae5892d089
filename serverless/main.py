"""The worker process: configuration, logs, and the SDK's loop. Jobs belong to handler.py.

Owns the order of set-up: logging is configured before the SDK is imported, because the SDK configures the root logger
if no handler exists, and at the SDK's default level DEBUG logs the inputs of jobs.
"""

import os
import sys

from inference.config import Config as ServiceConfig
from runtime import logs, settings
from runtime.extra import install
from serverless.config import Config
from serverless.handler import Handler


def main() -> None:
    """Run the worker until SIGTERM; with the SDK's options, run one job (--test_input) or an HTTP server."""
    try:
        config, service = settings.read(Config), settings.read(ServiceConfig)
    except settings.SettingsError as error:
        sys.exit(error.of("serverless"))
    logs.configure(config.log_level)
    os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")
    try:
        import runpod
    except ModuleNotFoundError as error:
        sys.exit(f"serverless: the Python package {error.name!r} is missing: {install('serverless')}")
    handler = Handler(config, service)
    runpod.serverless.start(
        {
            "handler": handler if config.streaming == "off" else handler.stream,
            "concurrency_modifier": handler.concurrency,
            "return_aggregate_stream": config.streaming == "aggregated",
        }
    )

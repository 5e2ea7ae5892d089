"""`python -m inference` runs the service."""

import gc
import os

from runtime import stdio

stdio.hold()
# Imports make hardly any garbage: looking for it takes a tenth of their time. runtime/process.py enables the collector.
gc.disable()
# gRPC writes to stderr by itself, past the log's form and limits: a line for every failed TLS handshake, for one.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from inference.main import main  # noqa: E402 -- gRPC reads the variable when it is imported

main()

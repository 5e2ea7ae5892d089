"""`python -m inference` runs the service."""

import os

from runtime import stdio

stdio.hold()
# gRPC writes to stderr by itself, past the log's form and limits: a line for every failed TLS handshake, for one.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from inference.main import main  # noqa: E402 -- gRPC reads the variable when it is imported

main()

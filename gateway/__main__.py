"""`python -m gateway` runs the gateway."""

import os

from runtime import stdio

stdio.hold()
# gRPC writes to stderr by itself, past the log's form and limits: a line for every failed TLS handshake, and for every
# header that a stranger sends wrongly.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from gateway.main import main  # noqa: E402 -- gRPC reads the variable when it is imported

main()

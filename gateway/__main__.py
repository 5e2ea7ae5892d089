"""`python -m gateway` runs the gateway."""

import os

# gRPC writes to stderr by itself, past the log's form and limits: a line for every failed TLS handshake, for one.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from gateway.main import main

main()

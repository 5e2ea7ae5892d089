"""`python -m edge` runs the HTTP edge."""

import os

from runtime import stdio

stdio.hold()
# gRPC writes to stderr by itself, past the log's form and limits.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from edge.main import main  # noqa: E402 -- gRPC reads the variable when it is imported

main()

"""The gRPC health service of liveness, beside the services of readiness."""

LIVE = "live"
"""Reports SERVING from the start to the end of the process, drain included. For liveness probes."""

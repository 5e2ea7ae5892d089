"""The name under which gRPC health answers whether the process lives, apart from whether it should get work."""

LIVE = "live"
"""Serving from the first moment to the last, drains included. For probes that restart what does not answer."""

"""Inference replicas: discovery, connections, and the choice of a replica for a request."""

"""Prometheus metrics that cost a request little."""

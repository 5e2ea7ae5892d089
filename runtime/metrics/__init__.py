"""Prometheus metrics: histograms, exemplars, a registry that is updated when it is read, and the scrape server."""

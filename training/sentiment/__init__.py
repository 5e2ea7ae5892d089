"""Trains the embedded sentiment model: low-rank adapters and a head on MiniLM, from labelled CSV files.

Usage: `python -m training.sentiment --help`. Serving the result belongs to models.sentiment.
"""

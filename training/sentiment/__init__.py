"""Trains the embedded sentiment model: low-rank adapters and a head on MiniLM, from labelled CSV files.

`python -m training.sentiment --help` tells how. Serving the result belongs to models.sentiment.
"""

"""Measurements: load on the pair, its parts in process, and the evaluation of its answers."""

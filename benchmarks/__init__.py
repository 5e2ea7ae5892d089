"""Measurements: the pair under load, the engines in process, and the quality of answers."""

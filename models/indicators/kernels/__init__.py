"""Indicators over a whole batch at once: torch functions of [rows, bars] in float64, on any device.

Owns the numbers that TA-Lib would give, for the functions people use most. registry.py lists them.
"""

"""Indicators over a whole batch at once: torch functions of [rows, bars] in float64, on any device.

Owns the numbers that TA-Lib would give, for the functions people use most; registry.py lists them. They agree with
TA-Lib to 1e-9 of the value, and where a value is a difference of larger numbers to 1e-11 of those. TA-Lib's sums run
over the whole series and keep the rounding of every bar before; ours take each window anew. So the two part where a
series falls by many orders of magnitude within itself, and in VWMA where a window has no volume at all.
"""

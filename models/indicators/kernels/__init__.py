"""Indicators over a whole batch at once: torch functions of [rows, bars] in float64, on any device.

The kernels cover the most used functions (dispatch.py lists all) and reproduce TA-Lib's numbers: to 1e-9 of the value,
or to 1e-11 of the operands where a value is a difference of larger numbers. TA-Lib keeps running sums over the whole
series, with the rounding errors of all earlier bars; the kernels sum every window separately. Therefore results differ
where a series falls by many orders of magnitude, and for VWMA over a window without volume.
"""

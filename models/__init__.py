"""Forecasters, sentiment and indicators: torch, numpy and TA-Lib code, independent of transport, queue and process."""

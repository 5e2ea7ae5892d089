"""Forecasters, sentiment and indicators: torch and TA-Lib code that knows no transport, no queue and no process."""

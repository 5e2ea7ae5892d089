"""Launchers: one file for each kind of machine; configured.py makes the launchers of a configuration."""

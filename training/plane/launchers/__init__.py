"""Launchers: one file for each kind of machine."""

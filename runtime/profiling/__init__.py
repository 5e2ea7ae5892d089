"""Profiles of a running service, taken by an operator on the same machine."""

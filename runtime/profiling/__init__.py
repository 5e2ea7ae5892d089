"""Profiles of a running service, for an operator on the same machine."""

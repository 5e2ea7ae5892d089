"""Requests decoded, submitted as jobs, and their answers encoded."""

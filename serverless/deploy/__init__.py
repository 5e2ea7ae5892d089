"""Putting the worker on RunPod: checks, cost, template, endpoint, a test request, and the way back when one fails.

Stands apart from the worker: it needs neither torch nor the SDK, and talks to the platform's API itself, since the SDK
escapes no value, retries nothing and has no prices.
"""

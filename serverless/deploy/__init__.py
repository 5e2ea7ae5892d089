"""Deploying the worker to RunPod: checks, cost, template, endpoint, a test request, and a rollback on failure.

Needs neither torch nor the SDK. The platform's API is called directly, because the SDK escapes no values, has no
retries and no prices.
"""

"""Measured throughput of a deployed endpoint, in calls per second."""

import time
from concurrent.futures import ThreadPoolExecutor

from runtime.remote.runpod import ApiError
from serverless.deploy.jobs import Jobs

CALLERS = 32
# 250 bars of a sawtooth, 20 steps ahead: a typical daily request for one symbol.
JOB = {"action": "predict", "time_series": [100.0 + at % 11 for at in range(250)], "horizon": 20}


def measure(jobs: Jobs, endpoint_id: str, calls: int) -> float:
    """Calls per second of 32 concurrent callers, network time included (a lower bound of the endpoint's capacity).

    Raises RemoteError when a call fails.
    """

    def call(number: int) -> None:
        job = jobs.runsync(endpoint_id, JOB)
        if job.get("status") != "COMPLETED":
            raise ApiError(f"call {number + 1} of the measurement ended as {job.get('status')}")

    with ThreadPoolExecutor(CALLERS) as pool:
        began = time.monotonic()
        for _ in pool.map(call, range(calls)):
            pass
        return calls / (time.monotonic() - began)

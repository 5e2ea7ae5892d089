"""How many calls a second a deployed endpoint answers, measured by calling it."""

import time
from concurrent.futures import ThreadPoolExecutor

from serverless.deploy.api import Api, ApiError

CALLERS = 32
# 250 bars of a sawtooth, 20 steps ahead: a day's request of one symbol.
JOB = {"action": "predict", "time_series": [100.0 + at % 11 for at in range(250)], "horizon": 20}


def measure(api: Api, endpoint_id: str, calls: int) -> float:
    """Calls a second from 32 callers at once, the way over the network included, so that it errs on the low side.

    Raises RemoteError when a call fails.
    """

    def call(number: int) -> None:
        job = api.runsync(endpoint_id, JOB)
        if job.get("status") != "COMPLETED":
            raise ApiError(f"call {number + 1} of the measurement ended as {job.get('status')}")

    with ThreadPoolExecutor(CALLERS) as pool:
        began = time.monotonic()
        for _ in pool.map(call, range(calls)):
            pass
        return calls / (time.monotonic() - began)

"""Jobs of a RunPod endpoint: sent to the endpoint's queue, and awaited.

Owns the addresses of an endpoint's queue. Endpoints themselves belong to runtime/remote/runpod.py.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

from runtime.remote.http import Http, RemoteError, retried

JOBS: Final = "https://api.runpod.ai/v2"
_FINAL = {"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"}
_POLL_SECONDS = 2.0

Record = dict[str, Any]


class Jobs:
    """`key`: the API key, sent in the Authorization header only."""

    def __init__(self, key: str, *, url: str = JOBS) -> None:
        self._http = Http({"Authorization": f"Bearer {key}"})
        self._url = url.rstrip("/")

    def run(self, endpoint_id: str, given: Mapping[str, Any], *, timeout: float) -> Record:
        """Run one job and wait for the result, cold start included. Raises RemoteError after `timeout` seconds."""
        base = f"{self._url}/{endpoint_id}"
        until = time.monotonic() + timeout
        # If the answer to a successful /run is lost, the retry runs the job twice, which is harmless.
        job: Record = retried(lambda: self._http.json(f"{base}/run", {"input": given}))
        status = f"{base}/status/{job['id']}"
        while job.get("status") not in _FINAL:
            if time.monotonic() > until:
                raise RemoteError(f"the test job is still {job.get('status')} after {timeout:g} s")
            time.sleep(_POLL_SECONDS)
            job = retried(lambda: self._http.json(status))
        return job

    def runsync(self, endpoint_id: str, given: Mapping[str, Any]) -> Record:
        """Run one job on a warm endpoint and wait for the result as long as the platform waits."""
        job: Record = retried(lambda: self._http.json(f"{self._url}/{endpoint_id}/runsync", {"input": given}))
        return job

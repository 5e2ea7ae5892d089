"""The cost of a deployment, from the API's prices and a measured throughput."""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.remote.runpod import Gpu
from serverless.deploy.plan import Plan


@dataclass(frozen=True, slots=True)
class Cost:
    """USD per hour of one worker, for the cheapest and the most expensive GPU of the pool."""

    low: float
    high: float

    def lines(self, plan: Plan, calls_per_second: float | None) -> list[str]:
        """The cost as lines of text."""
        lines = [
            f"one worker: {self._dollars(1)} an hour while it runs",
            f"at rest ({plan.workers_min} workers): {self._dollars(plan.workers_min)} an hour",
            f"at most ({plan.workers_max} workers): {self._dollars(plan.workers_max)} an hour",
        ]
        if calls_per_second:
            hours = 1_000_000 / calls_per_second / 3600
            lines.append(f"a million calls at {calls_per_second:.4g} calls/s a worker: {self._dollars(hours)}")
        else:
            lines.append("a million calls: give --calls-per-second, as measured on this GPU, or --measure")
        return lines

    def _dollars(self, hours: float) -> str:
        low, high = f"${self.low * hours:.2f}", f"${self.high * hours:.2f}"
        return low if low == high else f"{low} to {high}"


def of(plan: Plan, gpus: Sequence[Gpu], given: float | None) -> Cost | None:
    """The price given, else the API's serverless prices of the pool's GPUs; None without either."""
    if given is not None:
        return Cost(given, given)
    known = [gpu.serverless_usd for gpu in gpus if gpu.pool == plan.gpu and gpu.serverless_usd]
    return Cost(min(known), max(known)) if known else None

"""The inference service's batch counts, read from /metrics."""

import re
import urllib.request
from dataclasses import dataclass

# The service is on this machine: the HTTP proxy of the environment does not know it.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_LINE = re.compile(r'^market_inference_batch_items_(sum|count)\{engine="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches of one engine, and the items of all batches."""

    batches: float = 0.0
    items: float = 0.0

    def since(self, before: "Batches") -> "Batches":
        return Batches(self.batches - before.batches, self.items - before.items)

    @property
    def mean(self) -> float:
        """Mean items of a batch."""
        return self.items / self.batches if self.batches else 0.0


def read(address: str, engine: str) -> Batches:
    """The totals of one engine; `address` is the "host:port" of the inference service's /metrics."""
    with _DIRECT.open(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = {kind: float(value) for kind, of, value in _LINE.findall(text) if of == engine}
    return Batches(found.get("count", 0.0), found.get("sum", 0.0))

"""How the service's batches formed, from its own /metrics."""

import re
import urllib.request
from dataclasses import dataclass

_LINE = re.compile(r'^market_inference_batch_items_(sum|count)\{engine="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Batches:
    """Batches that one engine has run and the items in them."""

    batches: float = 0.0
    items: float = 0.0

    def since(self, before: "Batches") -> "Batches":
        return Batches(self.batches - before.batches, self.items - before.items)

    @property
    def mean(self) -> float:
        """Items a batch."""
        return self.items / self.batches if self.batches else 0.0


def read(address: str, engine: str) -> Batches:
    """The figures so far of one engine; `address` is the "host:port" of the inference service's /metrics."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:  # http on loopback
        text = answer.read().decode()
    found = {kind: float(value) for kind, of, value in _LINE.findall(text) if of == engine}
    return Batches(found.get("count", 0.0), found.get("sum", 0.0))

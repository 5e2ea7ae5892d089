"""The services that `top` scrapes repeatedly.

Owns the addresses and the newest scrape of each service. The scrapes run in parallel, so that a service without an
answer does not delay the others.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from market_inference.cli.top.interval import Interval
from market_inference.cli.top.look import Look, UnreachableError, fetch


@dataclass(frozen=True, slots=True)
class Seen:
    """One service at the newest scrape. `problem`: why it failed. `interval`: present after two scrapes in a row."""

    kind: str
    address: str
    look: Look | None = None
    interval: Interval | None = None
    problem: str = ""


class Services:
    """Gateways, inference replicas and edges by the addresses of their /metrics; closed by `with`.

    `timeout`: seconds until a scrape fails.
    """

    def __init__(
        self, gateways: Sequence[str], replicas: Sequence[str], timeout: float, edges: Sequence[str] = ()
    ) -> None:
        kinds = (("gateway", gateways), ("inference", replicas), ("edge", edges))
        self._known = [(kind, at) for kind, addresses in kinds for at in addresses]
        self._timeout = timeout
        self._last: dict[tuple[str, str], Look] = {}
        self._pool = ThreadPoolExecutor(max(1, len(self._known)), thread_name_prefix="look")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def look(self) -> list[Seen]:
        """Scrape all services in parallel."""
        return list(self._pool.map(self._look, self._known))

    def _look(self, service: tuple[str, str]) -> Seen:
        kind, address = service
        # After a failed scrape the next success starts a new interval: rates over the gap would mix two states.
        last = self._last.pop(service, None)
        try:
            look = fetch(address, self._timeout)
        except UnreachableError as error:
            return Seen(kind, address, problem=str(error))
        self._last[service] = look
        return Seen(kind, address, look, Interval(last, look) if last is not None else None)

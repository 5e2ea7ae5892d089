"""One look at a service's /metrics.

Owns the fetching and the parsing. What two looks say together is interval.py's.
"""

import http.client
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]


class UnreachableError(Exception):
    """The service gave no page of metrics; the text says why, in a few words."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a service said at an instant (seconds of the monotonic clock): every sample by its name and its labels."""

    at: float
    samples: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]

    def all(self, name: str) -> Iterator[tuple[Labels, float]]:
        """The samples of a name, such as `market_gateway_requests_total`; none when there is no such name."""
        for labels, value in self.samples.get(name, {}).items():
            yield dict(labels), value


def parse(page: str, at: float) -> Look:
    """A page in Prometheus' text format as it was read at an instant. Raises ValueError when it is none."""
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Look(at, samples)


def fetch(address: str, timeout: float) -> Look:
    """A look at `http://ADDRESS/metrics`, within so many seconds. Raises UnreachableError."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=timeout) as answer:
            page = answer.read().decode("utf-8")
        return parse(page, time.monotonic())
    except TimeoutError:
        raise UnreachableError(f"no answer within {timeout:g} s") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UnreachableError(getattr(reason, "strerror", None) or str(reason)) from None
    except (http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"not a page of metrics: {type(error).__name__}") from None

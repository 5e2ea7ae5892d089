"""One scrape of a service's /metrics.

Owns fetching and parsing. interval.py compares two scrapes.
"""

import http.client
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
# Services are on this machine or in its network: the HTTP proxy of the environment does not know them.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class UnreachableError(Exception):
    """The service returned no page of metrics; the text gives the reason in a few words."""


@dataclass(frozen=True, slots=True)
class Look:
    """A service's samples by name and labels at the instant `at`, in seconds of the monotonic clock."""

    at: float
    samples: Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]

    def all(self, name: str) -> Iterator[tuple[Labels, float]]:
        """The samples of a name such as `market_gateway_requests_total`; empty for an unknown name."""
        for labels, value in self.samples.get(name, {}).items():
            yield dict(labels), value


def parse(page: str, at: float) -> Look:
    """The samples of a page in Prometheus' text format, read at the instant `at`. Raises ValueError."""
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return Look(at, samples)


def fetch(address: str, timeout: float) -> Look:
    """Scrape `http://ADDRESS/metrics` within `timeout` seconds, never through a proxy. Raises UnreachableError."""
    try:
        with _DIRECT.open(f"http://{address}/metrics", timeout=timeout) as answer:
            page = answer.read().decode("utf-8")
        return parse(page, time.monotonic())
    except TimeoutError:
        raise UnreachableError(f"no answer within {timeout:g} s") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UnreachableError(getattr(reason, "strerror", None) or str(reason)) from None
    except (http.client.HTTPException, ValueError) as error:
        raise UnreachableError(f"not a page of metrics: {type(error).__name__}") from None

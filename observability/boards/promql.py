"""The common forms of the dashboards' queries, as PromQL, with the labels of a series as its name.

Every query filters by the selected namespaces. Outside a cluster the label is missing; the default `.*` matches then.
"""

from observability.panel import Query

HERE = 'namespace=~"$namespace"'


def gauge(metric: str, by: str) -> Query:
    """A gauge's series, each with another value of the labels `by`."""
    return Query(f"{metric}{{{HERE}}}", legend(by))


def rate(metric: str, by: str, *labels: str) -> Query:
    """The sum of a counter's rates, grouped by `by`."""
    return Query(f"sum by ({by}) (rate({metric}{{{', '.join((HERE, *labels))}}}[$__rate_interval]))", legend(by))


def share(part: str, of: str, by: str, *labels: str) -> Query:
    """The rate of `part` divided by the rate of `of`, 0 if `part` has no series yet."""
    return Query(f"({rate(part, by, *labels)} or 0 * {rate(of, by)}) / {rate(of, by)}", legend(by))


def mean(histogram: str, by: str, *labels: str) -> Query:
    return Query(f"{rate(f'{histogram}_sum', by, *labels)} / {rate(f'{histogram}_count', by, *labels)}", legend(by))


def quantile(level: float, histogram: str, by: str, *labels: str) -> Query:
    buckets = rate(f"{histogram}_bucket", f"le, {by}", *labels)
    return Query(f"histogram_quantile({level}, {buckets})", legend(by))


def legend(by: str) -> str:
    """The values of the labels `by`, as Grafana writes them."""
    return " ".join(f"{{{{{label}}}}}" for label in by.split(", "))

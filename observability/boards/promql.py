"""The common forms of the dashboards' queries, as PromQL.

Every query filters by the selected namespaces. Outside a cluster the label is missing; the default `.*` matches then.
"""

HERE = 'namespace=~"$namespace"'


def rate(metric: str, by: str, *labels: str) -> str:
    """The sum of a counter's rates, grouped by `by`."""
    return f"sum by ({by}) (rate({metric}{{{', '.join((HERE, *labels))}}}[$__rate_interval]))"


def share(part: str, of: str, by: str, *labels: str) -> str:
    """The rate of `part` divided by the rate of `of`, 0 if `part` has no series yet."""
    return f"({rate(part, by, *labels)} or 0 * {rate(of, by)}) / {rate(of, by)}"


def mean(histogram: str, by: str, *labels: str) -> str:
    return f"{rate(f'{histogram}_sum', by, *labels)} / {rate(f'{histogram}_count', by, *labels)}"


def quantile(level: float, histogram: str, by: str, *labels: str) -> str:
    return f"histogram_quantile({level}, {rate(f'{histogram}_bucket', f'le, {by}', *labels)})"

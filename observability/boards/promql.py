"""The few shapes that our queries have, as PromQL.

Every query is bound to the namespaces that are chosen; off a cluster there is no such label, which `.*` matches too.
"""

HERE = 'namespace=~"$namespace"'


def rate(metric: str, by: str, *labels: str) -> str:
    """The sum of a counter's rates, by some labels."""
    return f"sum by ({by}) (rate({metric}{{{', '.join((HERE, *labels))}}}[$__rate_interval]))"


def share(part: str, of: str, by: str, *labels: str) -> str:
    """The part's rate over the whole's, 0 where there is no part yet."""
    return f"({rate(part, by, *labels)} or 0 * {rate(of, by)}) / {rate(of, by)}"


def mean(histogram: str, by: str, *labels: str) -> str:
    return f"{rate(f'{histogram}_sum', by, *labels)} / {rate(f'{histogram}_count', by, *labels)}"


def quantile(level: float, histogram: str, by: str, *labels: str) -> str:
    return f"histogram_quantile({level}, {rate(f'{histogram}_bucket', f'le, {by}', *labels)})"

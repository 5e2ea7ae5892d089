"""The dashboard of the training plane: jobs, machines, datasets, and the plane's own work.

Every worker of the plane answers the same figures from the common store, so that queries take the maximum over workers.
"""

from observability.boards.board import Dashboard, Row
from observability.boards.promql import HERE, legend
from observability.panel import HALF, THIRD, Panel, Query


def _most(metric: str, by: str) -> Query:
    """The figure of any worker, by a label."""
    return Query(f"max by ({by}) ({metric}{{{HERE}}})", legend(by))


def _rate(metric: str, by: str, *labels: str) -> Query:
    """The rate that any worker shows, by a label."""
    return Query(f"max by ({by}) (rate({metric}{{{', '.join((HERE, *labels))}}}[$__rate_interval]))", legend(by))


def _ended(kind: str) -> str:
    """The jobs that ended so in six hours; 0 when none ever did."""
    return f'(max(increase({_EVENTS}{{{HERE}, kind="{kind}"}}[6h])) or 0 * max(market_training_machines{{{HERE}}}))'


_EVENTS = "market_training_events_total"
_ENDS = 'kind=~"succeeded|failed|cancelled|refused"'

TRAINING = Dashboard(
    "training",
    "market-inference: training",
    "Datasets in, jobs that end, artifacts out; what machines cost and what was lost.",
    Row(
        "Jobs",
        Panel("Jobs by state", "Of all owners.", "short", _most("market_training_jobs", "state"), THIRD),
        Panel(
            "Jobs that ended",
            "Succeeded, failed, cancelled, refused.",
            "short",
            _rate(_EVENTS, "kind", _ENDS),
            THIRD,
            "stack",
        ),
        Panel(
            "Success rate",
            "Of the jobs that succeeded or failed in six hours.",
            "percentunit",
            Query(f"{_ended('succeeded')} / ({_ended('succeeded')} + {_ended('failed')})", "succeeded"),
            THIRD,
        ),
    ),
    Row(
        "Machines",
        Panel(
            "Machines not yet seen gone",
            "Each of these costs money on a rented GPU.",
            "short",
            Query(f"max(market_training_machines{{{HERE}}})", "machines"),
            THIRD,
        ),
        Panel(
            "Run time of machines, by cause of their end",
            "`none` is a machine that ended well; the rest is time for which there is no result.",
            "s",
            _rate("market_training_machine_seconds_total", "cause"),
            THIRD,
            "stack",
        ),
        Panel(
            "Cost of machines, by cause of their end",
            "Estimated from the agreed price.",
            "currencyUSD",
            _most("market_training_machine_usd_total", "cause"),
            THIRD,
            "stack",
        ),
    ),
    Row(
        "Money",
        Panel(
            "Reserved for machines that live",
            "The worst case of every live machine, taken from its owner's budget before the launch.",
            "currencyUSD",
            Query(f"max(market_training_reserved_usd{{{HERE}}})", "reserved"),
            HALF,
        ),
        Panel(
            "Agreed and billed",
            "Of machines with a bill. A bill above the agreed price is a price that rose.",
            "currencyUSD",
            _most("market_training_settled_usd_total", "basis"),
            HALF,
        ),
    ),
    Row(
        "The plane",
        Panel(
            "Datasets and versions by state",
            "Of all owners.",
            "short",
            (
                _most("market_training_datasets", "state"),
                Query(f"max(market_training_datasets_given_up_total{{{HERE}}})", "without an answer"),
                _most("market_training_versions", "state").named("version {{state}}"),
            ),
            THIRD,
        ),
        Panel(
            "Download tokens",
            "Used once each; revoked by their owner, or at the end of the attempt.",
            "short",
            _rate("market_training_tokens_total", "outcome"),
            THIRD,
        ),
        Panel(
            "How late the oldest due job is",
            "Above the poll interval, workers are too few or stuck.",
            "s",
            Query(f"max(market_training_lag_seconds{{{HERE}}})", "late"),
            THIRD,
        ),
        Panel(
            "Time since a duty last went well",
            "Sweeps and the reaper.",
            "s",
            _most("market_training_duty_age_seconds", "duty"),
            HALF,
        ),
        Panel(
            "Disk of the plane's folder",
            "Uploads end where the free bytes meet the reserve.",
            "bytes",
            Query(f"min by (kind) (market_training_disk_bytes{{{HERE}}})", "{{kind}}"),
            HALF,
        ),
    ),
)

"""Which tests share one of the processes of `pytest -n`, and which go first.

A file's tests stay together, so that a module's fixtures are made once. Files that share an expensive session fixture
stay together, too. Groups that take long go first, so that no worker waits for another at the end.
"""

from collections.abc import Sequence

import pytest
from xdist.scheduler import LoadScopeScheduling

# The tests of a group share a session fixture: a pair of real services, or one serverless worker with its models.
GROUPS = {
    "tests/pair/test_lost_processes.py": "lost processes",
    "tests/pair/test_profiles.py": "observed pair",
    "tests/pair/test_traces.py": "observed pair",
    "tests/pair/": "pair",
    "tests/serverless/test_actions.py": "serverless worker",
    "tests/serverless/test_forms.py": "serverless worker",
    "tests/serverless/test_handler.py": "serverless worker",
    "tests/serverless/test_limits.py": "serverless worker",
    "tests/serverless/test_streams.py": "serverless worker",
}
# Everything else follows in the order of its collection.
FIRST = (
    "tests/pair/",
    "tests/observability/test_live.py",
    "tests/gateway/replicas/test_replica.py",
    "tests/market_inference/cli/test_pair_real.py",
    "tests/serverless/",
    "tests/inference/",
    "tests/gateway/",
    "tests/models/",
)


def group_of(nodeid: str) -> str:
    """The name of what has to run in one process with this test."""
    for prefix, group in GROUPS.items():
        if nodeid.startswith(prefix):
            return group
    return nodeid.partition("::")[0]


def rank(item: pytest.Item) -> int:
    """The test's place in the order of groups."""
    return next((at for at, prefix in enumerate(FIRST) if item.nodeid.startswith(prefix)), len(FIRST))


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests with the longest groups first."""
    return sorted(items, key=rank)


class GroupScheduling(LoadScopeScheduling):
    """Gives every worker a group at a time."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

"""The distribution of tests over the processes of `pytest -n`.

The tests of a file stay together, so that the fixtures of the module are made once. Files with a shared, expensive
session fixture form a group. Long groups go first, so that all workers end at about the same time.
"""

from collections.abc import Sequence
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# By path prefix, the first match counts. A group shares a pair of real services, a serverless worker with models, or a
# database and an object store.
GROUPS = {
    "tests/edge/": "edge",
    "tests/pair/test_lost_processes.py": "lost processes",
    "tests/pair/test_profiles.py": "observed pair",
    "tests/pair/test_traces.py": "observed pair",
    "tests/pair/": "pair",
    "tests/serverless/test_actions.py": "serverless worker",
    "tests/serverless/test_handler.py": "serverless worker",
    "tests/serverless/test_limits.py": "serverless worker",
    "tests/serverless/test_streams.py": "serverless worker",
    "tests/training/plane/": "training plane",
}
# All other tests follow in the order of collection.
FIRST = (
    "tests/pair/",
    "tests/training/",
    "tests/edge/",
    "tests/test_guard.py",
    "tests/test_conftest.py",
    "tests/market_inference/client/test_types.py",
    "tests/market_inference/cli/training/",
    "tests/market_inference/cli/test_pair_real.py",
    "tests/models/forecast/test_batch_independence.py",
    "tests/observability/test_live.py",
    "tests/gateway/replicas/test_lost_replicas.py",
    "tests/market_inference/test_import_root.py",
    "tests/serverless/",
    "tests/inference/",
    "tests/gateway/",
    "tests/models/",
)


def group_of(nodeid: str) -> str:
    """The name of a test's group: one process runs the whole group."""
    for prefix, group in GROUPS.items():
        if nodeid.startswith(prefix):
            return group
    return nodeid.partition("::")[0]


def rank(item: pytest.Item) -> int:
    """The place of a test in the order of FIRST."""
    return next((at for at, prefix in enumerate(FIRST) if item.nodeid.startswith(prefix)), len(FIRST))


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests, long groups first."""
    return sorted(items, key=rank)


class GroupScheduling(LoadScopeScheduling):
    """Gives a worker one group at a time."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """Take the tests that a process collected. xdist would give a process with other tests no work, forever."""
        super().add_node_collection(node, collection)
        if node not in self.registered_collections:
            raise RuntimeError(f"{node.gateway.id} collected other tests than the processes before")

    def _reschedule(self, node: Any) -> None:
        """Give a process more tests. A process that replaces a crashed one has to collect the tests first.

        A process starts a test when the next test, or the end, is known. A single test in the queue would wait forever,
        so a process gets groups until two tests wait, or no group is left.
        """
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while self._pending_of(self.assigned_work[node]) < 2 and not node.shutting_down:
            super()._reschedule(node)

    def remove_node(self, node: Any) -> str | None:
        """Give the tests of a crashed process to others. Returns the crashed test: a failure, and not tried again."""
        work = self.assigned_work.pop(node)
        left = {group: [test for test, done in tests.items() if not done] for group, tests in work.items()}
        crashed = next((tests[0] for tests in left.values() if tests), None)
        for group, tests in left.items():
            if rest := {test: False for test in tests if test != crashed}:
                self.workqueue[group] = rest
        for other in self.assigned_work:
            self._reschedule(other)
        return crashed

"""Jobs on a platform full of faults, in simulated time. `make simulate-training` runs ten thousand of them."""

from pathlib import Path

import pytest

from benchmarks.training.simulation import BUDGET_USD, REAP_SECONDS, SLACK_SECONDS, simulate
from training.plane.job import FINAL


def test_no_pod_outlives_its_job_and_no_owner_spends_more_than_was_reserved(tmp_path: Path) -> None:
    found = simulate(60, 7, tmp_path)
    assert sum(found.states[state] for state in FINAL) == 60
    assert found.states["succeeded"] > 45
    assert len(found.faults) > 8
    assert found.outlived_seconds <= REAP_SECONDS
    assert found.overspent_seconds <= SLACK_SECONDS
    assert found.overspent_owners == []
    assert 0 < found.billed_usd < BUDGET_USD
    # A machine that no look has shown has no bill, and is charged until it was known to be gone.
    assert found.charged_usd == pytest.approx(found.billed_usd, rel=0.05)

"""The arithmetic of caps: no machine may cost more than its reservation, and a job not more than its max_usd."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.plane.test_step import NOW, attempt, job
from training.plane import terms
from training.plane.launcher import Offer
from training.plane.step import START_SECONDS

amounts = st.floats(0.0, 100.0)


def test_the_worst_case_is_the_start_and_all_seconds_at_the_agreed_price() -> None:
    agreed = terms.of(job(max_seconds=3600.0, seconds_used=600.0), Offer("L4", 0.4), 0.0)
    assert agreed == terms.Terms(START_SECONDS + 3000.0, 3000.0, 0.4 * (START_SECONDS + 3000.0) / 3600.0)


def test_max_usd_shortens_the_life_of_a_machine_and_ends_with_none() -> None:
    asked = job(max_seconds=36_000.0, max_usd=1.0)
    agreed = terms.of(asked, Offer("L4", 0.5), 0.75)
    assert (agreed.seconds, agreed.usd) == (1800.0, 0.25)
    assert terms.of(asked, Offer("L4", 0.5), 0.999) is None
    assert terms.of(asked, Offer("process", 0.0), 0.999).usd == 0.0


@given(
    price=amounts, max_seconds=st.floats(1.0, 1e6), used=st.floats(0.0, 1e6), max_usd=st.none() | amounts, spent=amounts
)
def test_no_terms_exceed_what_a_job_may_cost(
    price: float, max_seconds: float, used: float, max_usd: float | None, spent: float
) -> None:
    asked = job(max_seconds=max_seconds, seconds_used=used, max_usd=max_usd)
    agreed = terms.of(asked, Offer("L4", price), spent)
    if agreed is None:
        return
    assert 1.0 <= agreed.run_seconds <= max(1.0, agreed.seconds)
    assert agreed.seconds <= START_SECONDS + max_seconds
    assert max_usd is None or price == 0.0 or spent + agreed.usd <= max_usd * (1 + 1e-9)


def test_a_machine_that_a_lost_answer_may_have_made_costs_until_the_reaper_has_seen_it() -> None:
    assert terms.doubted(attempt(), NOW) == 0.0
    lost = attempt(asked_at=NOW - 150.0, usd_per_hour=0.4)
    assert terms.doubted(lost, NOW) == pytest.approx(0.4 * 180.0 / 3600.0)
    assert terms.doubted(attempt(asked_at=NOW - 150.0, usd_per_hour=0.4, usd_doubted=0.5), NOW) == pytest.approx(0.52)
    assert terms.doubted(attempt(usd_doubted=0.5), NOW) == 0.5, "a refusal takes no doubt away"

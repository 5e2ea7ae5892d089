"""Any level from a few: known levels unchanged, other levels on the Student scores, in order."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forecast.interpolation import weights
from models.forecast.student import table

KNOWN = (0.1, 0.2, 0.5, 0.8, 0.9)
CPU = torch.device("cpu")


def test_known_levels_are_taken_as_they_are() -> None:
    np.testing.assert_allclose(weights(KNOWN, KNOWN, CPU).numpy(), np.eye(5)[None].repeat(365, 0), atol=1e-12)


def test_student_quantiles_are_continued_exactly_into_both_tails() -> None:
    wanted = (1e-6, 0.01, 0.15, 0.4, 0.7, 0.85, 0.999)
    found = torch.einsum("hak,hk->ha", weights(KNOWN, wanted, CPU), 3 + 2 * table(KNOWN, CPU))
    np.testing.assert_allclose(found.numpy(), (3 + 2 * table(wanted, CPU)).numpy(), rtol=1e-9)


@settings(max_examples=30)
@given(
    st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=5),
    st.sets(st.floats(1e-6, 1 - 1e-6), min_size=2, max_size=6),
)
def test_sorted_quantiles_stay_sorted(values: list[float], wanted: set[float]) -> None:
    known = torch.tensor(sorted(values), dtype=torch.float64)
    found = weights(KNOWN, tuple(sorted(wanted)), CPU)[[0, 47, 364]] @ known
    assert (found.diff(dim=1) >= -1e-9 * known.abs().max()).all()

"""Files in the formats of vendors are read with the right numbers, or refused with the reason and the option."""

import numpy as np
import pytest

from market_inference.client.files import FileError, read_bars
from tests.market_inference.client.files import vendors


@pytest.fixture(params=vendors.CASES, ids=lambda made: made.__name__)
def case(request, tmp_path):
    found = request.param()
    (tmp_path / found.name).write_bytes(found.data)
    return found, tmp_path / found.name


def hold(bars, case):
    assert set(bars) == set(case.columns)
    for name in case.columns:
        tolerance = 10.0**-case.digits if name == "volume" else 1e-12
        np.testing.assert_allclose(bars[name], getattr(case.truth, name), rtol=tolerance, err_msg=name)
    if case.times:
        expected = np.array([t.replace(tzinfo=None) for t in case.truth.times], dtype="datetime64[ns]")
        np.testing.assert_array_equal(bars.times, expected)


def test_at_least_forty_formats_are_covered():
    assert len(vendors.CASES) >= 40


def test_a_file_is_read_with_the_right_numbers_or_refused_with_the_reason(case):
    expected, path = case
    if not expected.refused:
        bars = read_bars(path)
        hold(bars, expected)
        assert expected.note in "; ".join(bars.notes)
        return
    with pytest.raises(FileError) as refusal:
        read_bars(path)
    assert expected.refused in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)
    if expected.options:
        hold(read_bars(path, **expected.options), expected)

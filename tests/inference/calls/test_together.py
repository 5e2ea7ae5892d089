"""Covariates and groups in a Predict request: the items of the model, refusals by name, and answers in order."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from google.rpc import error_details_pb2

from inference.build import build
from inference.calls.call import ReplicaCall
from inference.calls.together import require_taken
from inference.config import Config
from market_inference.contract import answer_size
from market_inference.contract.encoding import twins
from market_inference.contract.errors import InvalidRequestError, NotTakenError
from market_inference.contract.generated import inference_pb2 as pb
from models.forecast import TAKES
from tests.models.forecast.checkpoints import save_chronos_2

HORIZON = 4
NAMES = ["volume", "holiday"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chronos_2")
    torch.manual_seed(0)
    save_chronos_2(folder)
    return folder


@pytest.fixture
async def parts(folder):
    parts = build(Config(device="cpu", forecast_models=f"auto,chronos_2={folder}", _env_file=None))
    yield parts
    parts.close()


def values(length: int, seed: int) -> np.ndarray:
    return 100 + np.random.default_rng(seed).normal(size=length).cumsum()


def one(symbol: str, seed: int, length: int = 60, *, covariates: int = 0, ahead: bool = False) -> pb.Series:
    columns = np.random.default_rng(seed + 50).normal(size=(covariates, length + HORIZON))
    return pb.Series(
        symbol=symbol,
        values=values(length, seed),
        past_covariates=columns[:, :length].ravel(),
        future_covariates=columns[:, length:].ravel() if ahead else (),
    )


async def predict(parts, *series: pb.Series, call: ReplicaCall | None = None, **fields) -> pb.PredictResponse:
    request = pb.PredictRequest(series=series, horizon=HORIZON, **{"model": "chronos_2", **fields})
    raw = await parts.servicer.predict(request.SerializeToString(), call or ReplicaCall())
    return pb.PredictResponse.FromString(raw)


def bands(answer: pb.PredictResponse, place: int) -> np.ndarray:
    assert answer.forecasts[place].HasField("forecast"), answer.forecasts[place].error
    return np.array(answer.forecasts[place].forecast.quantiles)


def field_of(error) -> tuple[str, str]:
    bad = error_details_pb2.BadRequest()
    assert next(detail for detail in error.details if detail.Unpack(bad))
    return bad.field_violations[0].field, bad.field_violations[0].description


async def test_covariates_reach_the_model_and_a_series_without_them_stays_as_it_is(parts):
    plain = await predict(parts, one("A", 1), one("B", 2))
    found = await predict(parts, one("A", 1, covariates=2, ahead=True), one("B", 2), covariates=NAMES)
    assert np.abs(bands(found, 0) - bands(plain, 0)).max() > 1e-2
    np.testing.assert_allclose(bands(found, 1), bands(plain, 1), atol=1e-3)
    unknown_ahead = await predict(parts, one("A", 1, covariates=2), covariates=NAMES)
    assert np.abs(bands(found, 0) - bands(unknown_ahead, 0)).max() > 1e-2


async def test_the_answers_of_groups_are_in_the_order_of_the_series(parts):
    series = [one("A", 1), one("B", 2, 45), one("C", 3), one("D", 4), one("E", 5)]
    found = await predict(parts, *series, groups=["x", "y", "x", "", "y"])
    assert [each.symbol for each in found.forecasts] == list("ABCDE")
    for places, label in (((0, 2), "x"), ((1, 4), "y")):
        alone = await predict(parts, *(series[place] for place in places), groups=[label] * 2)
        for at, place in enumerate(places):
            np.testing.assert_allclose(bands(found, place), bands(alone, at), atol=2e-3)
    single = await predict(parts, series[3])
    np.testing.assert_allclose(bands(found, 3), bands(single, 0), atol=2e-3)
    apart = await predict(parts, series[0])
    assert np.abs(bands(found, 0) - bands(apart, 0)).max() > 1e-2


@pytest.mark.parametrize(
    ("fields", "what"), [({"covariates": NAMES}, "covariates"), ({"groups": ["x", "x"]}, "groups")]
)
async def test_a_model_that_takes_none_refuses_by_name(parts, fields, what):
    series = [one("A", 1, covariates=2 if what == "covariates" else 0), one("B", 2)]
    with pytest.raises(NotTakenError, match=f"{what}: model auto takes no {what}; chronos_2 does") as caught:
        await predict(parts, *series, model="auto", **fields)
    info = error_details_pb2.ErrorInfo()
    assert caught.value.status("r").details[0].Unpack(info)
    assert info.reason == "NOT_TAKEN_BY_MODEL"


async def test_a_series_with_columns_of_a_wrong_length_fails_alone(parts):
    short, ahead = one("A", 1, covariates=2), one("B", 2, covariates=2, ahead=True)
    del short.past_covariates[-1:]
    ahead.future_covariates.append(0.0)
    only_ahead = one("C", 3, covariates=2, ahead=True)
    del only_ahead.past_covariates[:]
    found = await predict(parts, short, ahead, only_ahead, one("D", 4, covariates=2), covariates=NAMES)
    expected = [
        ("series[0].past_covariates", "must have 2 covariates x 60 values = 120 values, or none (got 119)"),
        ("series[1].future_covariates", "must have 2 covariates x 4 steps ahead = 8 values, or none (got 9)"),
        ("series[2].future_covariates", "need past_covariates: a model learns from the past what the values ahead say"),
    ]
    assert [field_of(each.error) for each in found.forecasts[:3]] == expected
    assert np.isfinite(bands(found, 3)).all()


@pytest.mark.parametrize("model", ["auto", "chronos_2"])
async def test_columns_without_names_are_never_dropped_in_silence(parts, model):
    with pytest.raises(InvalidRequestError, match=r"series\[0\].past_covariates: needs the names of its rows"):
        await predict(parts, one("A", 1, covariates=1), model=model)


async def test_groups_are_as_many_as_series(parts):
    with pytest.raises(InvalidRequestError, match=r"groups: must have as many values as series, or none \(2, got 1\)"):
        await predict(parts, one("A", 1), one("B", 2), groups=["x"])


async def test_a_group_fails_with_its_refused_member(parts):
    """Without the member the others' forecasts would be other ones."""
    call = ReplicaCall(refused={("series", 1): InvalidRequestError([]).status("r")})
    series = [one("A", 1), pb.Series(), one("C", 3)]
    found = await predict(parts, *series, groups=["x", "x", ""], call=call)
    assert field_of(found.forecasts[0].error) == ("groups[0]", "the group has a refused series (series[1])")
    assert found.forecasts[1].HasField("error")
    assert np.isfinite(bands(found, 2)).all()


async def test_a_group_is_at_most_64_series_and_covariates(parts):
    names = [str(at) for at in range(15)]
    series = [one(str(at), at, 30, covariates=15) for at in range(5)]
    with pytest.raises(InvalidRequestError, match=r"groups\[0\]: the group is too large \(max 64 .*, got 80\)"):
        await predict(parts, *series, covariates=names, groups=["x"] * 5)
    found = await predict(parts, *series, covariates=names, groups=["x"] * 4 + [""])
    assert np.isfinite(bands(found, 4)).all()


async def test_the_list_of_models_says_what_a_model_takes(parts):
    async def takes() -> dict[str, list[str]]:
        listed = pb.ListModelsResponse.FromString(await parts.servicer.models(b"", ReplicaCall()))
        return {model.name: list(model.takes) for model in listed.models}

    before = await takes()
    assert before["chronos_2"] == ["covariates", "groups"]
    assert before["auto"] == ["period", "times"]
    assert before["ta-lib"] == []
    for model in ("chronos_2", "auto"):
        await predict(parts, one("A", 1), model=model)
    assert await takes() == before


def test_a_refusal_names_every_model_that_takes_the_field(monkeypatch):
    monkeypatch.setitem(TAKES, "vol_rw", ("period",))
    with pytest.raises(NotTakenError, match="period: model m takes no period; auto and vol_rw do"):
        require_taken(SimpleNamespace(name="m"), "period", 24, "period")


HOUR = 3600 * 10**9
FIRST = 1_767_225_600 * 10**9


def timed(length: int = 60, step: int = HOUR, **changes) -> pb.Series:
    fields = {"values": values(length, 1), "times": range(FIRST, FIRST + length * step, step)}
    return pb.Series(**(fields | changes))


async def test_times_give_the_phases_of_the_day(parts):
    by_time = await predict(parts, timed(), one("B", 2), model="auto")
    by_period = await predict(parts, timed(times=()), model="auto", period=24)
    found, expected = by_time.forecasts[0].forecast, by_period.forecasts[0].forecast
    assert found.quantiles == expected.quantiles
    np.testing.assert_array_equal(found.coverage.phase_measured, expected.coverage.phase_measured)
    assert list(found.coverage.phase_ahead) == [1, 2, 3, 4]
    assert not expected.coverage.phase_ahead
    assert not by_time.forecasts[1].forecast.coverage.phase_measured


async def test_times_are_refused_by_name_where_a_model_takes_none(parts):
    with pytest.raises(NotTakenError, match=r"series\[1\].times: model chronos_2 takes no times; auto does"):
        await predict(parts, one("A", 1), timed())


@pytest.mark.parametrize(
    ("times", "text"),
    [
        (range(FIRST, FIRST + 59), "must have one time for each value of the series, or none (60, got 59)"),
        (range(1_767_225_600, 1_767_225_660),
         "must be nanoseconds since the epoch (got 1767225659, which is 1970-01-01T00:00:01.767225659)"),
    ],
)  # fmt: skip
async def test_times_that_do_not_fit_fail_with_their_series(parts, times, text):
    found = await predict(parts, timed(times=times), one("B", 2), model="auto")
    assert field_of(found.forecasts[0].error) == ("series[0].times", text)
    assert found.forecasts[1].HasField("forecast")


def test_the_size_of_an_answer_counts_the_phases_that_times_may_have():
    plain, by_time = (
        answer_size.predict(
            twins.read(pb.PredictRequest, pb.PredictRequest(series=[series], horizon=4).SerializeToString())
        )
        for series in (one("A", 1), timed())
    )
    assert by_time - plain >= 1440 * 9

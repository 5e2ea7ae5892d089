"""KServe's time series forecast API, held against KServe's own Python types."""

import importlib.metadata
import importlib.util
import sys
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge import kserve
from market_inference.contract.errors import InvalidRequestError, Violation
from market_inference.contract.generated import inference_pb2 as pb

CLOSES = [100.0 + (at * 7) % 11 for at in range(60)]


@pytest.fixture(scope="module")
def types():
    """kserve.protocol.rest.timeseries.types, without the rest of KServe."""
    path = importlib.metadata.distribution("kserve").locate_file("kserve/protocol/rest/timeseries/types.py")
    spec = importlib.util.spec_from_file_location("kserve_types", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["kserve_types"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kserve_types"]


def request_of(types, *names, start="2024-01-31T00:00:00", frequency="D", **options):
    inputs = [
        types.TimeSeriesInput(
            type="univariate_time_series", name=name, series=CLOSES, frequency=frequency, start_timestamp=start
        )
        for name in names
    ]
    made = types.ForecastRequest(model="auto", inputs=inputs, options=types.ForecastOptions(**options))
    return made.model_dump(mode="json", exclude_none=True)


def test_kserves_own_types_make_the_request_and_read_the_answer(edge, types):
    answer = edge.post("/v1/timeseries/forecast", request_of(types, "A", "B", horizon=4, quantiles=[0.1, 0.5, 0.9]))
    assert answer.status == 200, answer.raw
    found = types.ForecastResponse.model_validate(answer.json)
    assert found.status is types.Status.COMPLETED
    assert found.id == answer.headers["x-request-id"]
    [output] = found.outputs
    assert [one.name for one in output.content] == ["A", "B"]
    for one in output.content:
        assert one.type is types.TimeSeriesType.UNIVARIATE
        assert len(one.mean_forecast) == 4
        assert one.mean_forecast == pytest.approx(one.quantiles["0.5"])
        assert list(one.quantiles) == ["0.1", "0.5", "0.9"]
        assert all(low < high for low, high in zip(one.quantiles["0.1"], one.quantiles["0.9"], strict=True))
        assert one.start_timestamp == "2024-03-31T00:00:00"  # 60 days after the first value


def test_a_series_that_fails_leaves_the_others(edge, types):
    body = request_of(types, "A", "B", horizon=4)
    body["inputs"][1]["series"] = [1.0, 2.0]
    found = types.ForecastResponse.model_validate(edge.post("/v1/timeseries/forecast", body).json)
    assert found.status is types.Status.PARTIAL
    good, bad = found.outputs
    assert [one.name for one in good.content] == ["A"]
    assert bad.status is types.Status.ERROR
    assert bad.error.type == "INVALID_REQUEST"
    assert "inputs[1].series" in bad.error.message
    assert "min 30" in bad.error.message


def test_a_refusal_is_a_problem_document_and_kserves_error(edge, types):
    body = request_of(types, "A", horizon=400)
    answer = edge.post("/v1/timeseries/forecast", body)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json["errors"][0]["field"] == "options.horizon"
    assert answer.json["errors"][0]["limit"] == 365
    assert types.ErrorResponse.model_validate(answer.json).error.code == "400"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda body: body.update(model=1), "model"),
        (lambda body: body.pop("inputs"), "inputs"),
        (lambda body: body.update(options={}), "options.horizon"),
        (lambda body: body["inputs"][0].update(type="matrix"), "inputs[0].type"),
        (lambda body: body["inputs"][0].update(type="multivariate_time_series"), "inputs[0].series"),
        (lambda body: body["inputs"][0].update(type="multivariate_time_series", series=[[1.0, 2.0]] * 40 + [[1.0]]),
         "inputs[0].series"),
        (lambda body: body["inputs"][0].update(type="multivariate_time_series", series=[[1.0, 2.0]] * 40),
         "inputs[0].type"),  # `auto` takes no groups
        (lambda body: body["inputs"][0].update(past_covariates={"v": [1.0]}), "inputs[0].past_covariates.v"),
        (lambda body: body["inputs"][0].update(past_covariates={"v": CLOSES}), "inputs[0].past_covariates"),
        (lambda body: body["inputs"][0].update(frequency="fortnight"), "inputs[0].frequency"),
        (lambda body: body["inputs"][0].update(start_timestamp="yesterday"), "inputs[0].start_timestamp"),
        (lambda body: body["inputs"][0].update(start_timestamp="9998-12-31"), "inputs[0].start_timestamp"),
        (lambda body: body["inputs"][0].update(name=None), "inputs[0].name"),
        (lambda body: body["inputs"][0].update(name="x" * 65), "inputs[0].name"),
        (lambda body: body["inputs"][0].update(series="1,2,3"), "inputs[0].series"),
        (lambda body: body["inputs"][0].update(series=["a"] * 40), "inputs[0].series[0]"),
    ],
)  # fmt: skip
def test_a_mistake_names_the_field_as_the_caller_wrote_it(edge, types, change, field):
    body = request_of(types, "A", horizon=4)
    change(body)
    answer = edge.post("/v1/timeseries/forecast", body)
    assert answer.status == 400, answer.raw
    assert answer.json["errors"][0]["field"] == field


def test_an_input_without_a_start_has_none_in_the_answer(edge, types):
    body = request_of(types, "A", horizon=2)
    del body["inputs"][0]["start_timestamp"]
    found = types.ForecastResponse.model_validate(edge.post("/v1/timeseries/forecast", body).json)
    assert found.outputs[0].content[0].start_timestamp == ""


def test_the_forecasters_are_listed(edge):
    assert "auto" in edge.get("/v1/timeseries/models").json


@given(
    st.datetimes(datetime.fromisoformat("1900-01-01"), datetime.fromisoformat("2100-01-01")),
    st.sampled_from(kserve.FREQUENCIES),
    st.integers(0, 10_000),
)
def test_instants_advance_as_kserves_frequency_map_says(types, first, frequency, steps):
    expected = first + types.FREQUENCY_MAP[frequency](steps) if _fits(first, frequency, steps) else None
    if expected is not None and expected.year < 9999:
        assert kserve.ahead(first, frequency, steps) == expected


def _fits(first: datetime, frequency: str, steps: int) -> bool:
    years = {"Y": 1, "year": 1, "Q": 0.25, "quarter": 0.25, "M": 1 / 12, "month": 1 / 12}.get(frequency, 0.02)
    return first.year + steps * years < 9990


def test_more_inputs_than_a_request_holds_are_one_violation():
    """Each input could add a violation of its own, hundreds of bytes for the two bytes of `1,`."""
    body = {"inputs": [1] * 100_000, "options": {"horizon": 4}}
    with pytest.raises(InvalidRequestError) as caught:
        kserve.read(body)
    [broken] = caught.value.violations
    assert (broken.field, broken.description) == ("inputs", "too long (max 256, got 100000)")


def test_close_levels_stay_apart():
    levels = [0.1, 0.1000001]
    forecast = pb.Forecast(point=[1.0], quantiles=[1.0, 2.0])
    answer = pb.PredictResponse(quantile_levels=levels, forecasts=[pb.SeriesForecast(forecast=forecast)])
    found = kserve.write(answer, kserve.Asked({}, {}, [kserve.Input("A", "D", "")]))
    assert found["outputs"][0]["content"][0]["quantiles"] == {"0.1": [1.0], "0.1000001": [2.0]}


def test_a_multivariate_input_is_a_group_with_a_row_for_each_time(types):
    rows = [[float(at), float(-at)] for at in range(40)]
    one = types.TimeSeriesInput(type="multivariate_time_series", name="pair", series=rows, frequency="D")
    alone = types.TimeSeriesInput(
        type="univariate_time_series", name="B", series=CLOSES, frequency="D",
        past_covariates={"volume": [1.0] * 60}, future_covariates={"volume": [2.0, 3.0]},
    )  # fmt: skip
    asked = types.ForecastRequest(model="chronos_2", inputs=[one, alone], options=types.ForecastOptions(horizon=2))
    found = kserve.read(asked.model_dump(mode="json", exclude_none=True))
    series = found.body["series"]
    assert found.body["groups"] == ["0", "0", ""]
    assert [each["values"] for each in series[:2]] == [[row[0] for row in rows], [row[1] for row in rows]]
    assert found.body["covariates"] == ["volume"]
    assert (series[2]["past_covariates"], series[2]["future_covariates"]) == ([1.0] * 60, [2.0, 3.0])

    made = [pb.Forecast(point=[at, at + 1], quantiles=[at, at + 1, at + 1, at + 2]) for at in (0, 10, 20)]
    answer = pb.PredictResponse(quantile_levels=[0.1, 0.9], forecasts=[pb.SeriesForecast(forecast=f) for f in made])
    written = kserve.write(answer, found)
    first, second = types.ForecastResponse.model_validate(written).outputs[0].content
    assert (first.type, first.name) == (types.TimeSeriesType.MULTIVARIATE, "pair")
    assert first.mean_forecast == [[0, 10], [1, 11]]
    assert first.quantiles == {"0.1": [[0, 10], [1, 11]], "0.9": [[1, 11], [2, 12]]}
    assert (second.type, second.mean_forecast) == (types.TimeSeriesType.UNIVARIATE, [20, 21])

    beside = Violation("groups[0]", "the group has a refused series (series[1])", "group")
    answer.forecasts[0].error.CopyFrom(InvalidRequestError([beside]).status("r"))
    answer.forecasts[1].error.CopyFrom(InvalidRequestError([Violation("series[1].values[3]", "is bad")]).status("r"))
    bad = types.ForecastResponse.model_validate(kserve.write(answer, found))
    assert bad.status is types.Status.PARTIAL
    assert bad.outputs[1].error.message == "inputs[0].series[3] is bad"


def test_variables_count_as_series():
    """A row of many variables would become many series before any limit."""
    one = {"type": "multivariate_time_series", "name": "", "frequency": "D", "series": [[1.0] * 257]}
    with pytest.raises(InvalidRequestError, match=r"inputs: too long \(max 256, got 257\)"):
        kserve.read({"inputs": [one], "options": {"horizon": 4}})

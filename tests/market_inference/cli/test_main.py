"""The command line: output and exit status."""

import json
import math
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from market_inference import errors
from market_inference.cli.commands import waiting
from market_inference.cli.commands.call import explain
from market_inference.cli.commands.watch import _pace
from market_inference.cli.main import main
from market_inference.cli.printable import echo
from market_inference.contract.errors import InvalidRequestError, OverloadedError, UnauthenticatedError, Violation
from market_inference.contract.generated import inference_pb2 as pb
from tests.market_inference.conftest import failed_item

Run = Callable[..., Result]


@pytest.fixture
def run(service: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line against the test's service."""
    monkeypatch.setenv("MARKET_INFERENCE_TARGET", service.target)
    monkeypatch.setattr(waiting, "NOTE_AFTER", 3600.0)

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(main, arguments, input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result

    return invoke


@pytest.fixture
def bars(tmp_path: Path) -> str:
    path = tmp_path / "AAPL.csv"
    days = [date(2026, 1, 1) + timedelta(days=at) for at in range(40)]
    rows = "".join(f"{day},{at},{at + 2},{at - 1},{at + 1},{at * 10}\n" for at, day in enumerate(days, start=100))
    path.write_text("\ufeffDate,Open,High,Low,Close,Volume\n" + rows, encoding="utf-8")
    return str(path)


def test_predict_prints_the_median_and_the_interval_of_every_step(run: Run, bars: str) -> None:
    result = run("predict", "--csv", bars, "--horizon", "3", "--interval", "0.5")
    assert result.exit_code == 0
    assert "AAPL (model walk)" in result.stdout
    assert "AAPL (model walk), after 2026-02-09" in result.stdout
    assert re.search(r"2026-02-12 │ 140\.00 │ 139\.25 │ 140\.75", result.stdout)
    said = "the central 50% interval; on this series the 80% interval held in 75% of 12 backtests (50% is not measured)"
    assert said in result.stdout


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (None, ""),
        ("", ": no inference replica is ready (none is known)"),
        ("not connected", ": no inference replica is ready (one: not connected)"),
    ],
)
def test_a_long_call_says_what_it_waits_for(
    run: Run, bars: str, service: Any, monkeypatch: pytest.MonkeyPatch, message: str | None, why: str
) -> None:
    predict, status = service.on["Predict"], service.on["GetStatus"]
    told = threading.Event()

    def shown(text: str, **options: Any) -> None:
        echo(text, **options)
        told.set()

    def unhealthy(request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        answer = status(request)
        if message is not None:
            answer.health = pb.HEALTH_UNHEALTHY
            del answer.replicas[0 if not message else 1 :]
        for replica in answer.replicas:
            replica.message = message or ""
        return answer

    service.on["Predict"] = lambda request: (told.wait(60), predict(request))[1]
    service.on["GetStatus"] = unhealthy
    monkeypatch.setattr(waiting, "echo", shown)
    monkeypatch.setattr(waiting, "NOTE_AFTER", 0.01)
    result = run("predict", "--csv", bars, "--timeout", "90")
    assert f"Note: still waiting for {service.target}, 90 s at most (--timeout){why}\n" in result.stderr
    assert result.stderr.count("still waiting") == 1
    assert result.exit_code == 0


def test_predict_as_json_is_for_scripts(run: Run, bars: str) -> None:
    result = run("predict", "--csv", bars, "--horizon", "2", "--quantile", "0.25", "--json")
    (found,) = json.loads(result.stdout)
    assert found["symbol"] == "AAPL"
    assert found["point"] == [140, 140]
    assert list(found["quantiles"]) == ["0.1", "0.25", "0.5", "0.9"]
    assert found["coverage"] == {"nominal": 0.8, "measured": 0.75, "origins": 12}


def test_predict_shows_warnings_about_the_data_below_the_table_and_in_json(run: Run, bars: str, service: Any) -> None:
    before = service.on["Predict"]

    def doubtful(request: pb.PredictRequest) -> pb.PredictResponse:
        answer = before(request)
        warning = answer.forecasts[0].forecast.warnings.add(
            code="WARNING_CODE_SUSPECTED_SPLIT", message="a 4:1 [split]"
        )
        warning.evidence.add(name="ratio", values=[4])
        return answer

    service.on["Predict"] = doubtful
    shown = run("predict", "--csv", bars)
    assert "warning: a 4:1 [split]" in shown.stdout
    (found,) = json.loads(run("predict", "--csv", bars, "--json").stdout)
    assert found["warnings"] == [{"code": "SUSPECTED_SPLIT", "message": "a 4:1 [split]", "evidence": {"ratio": [4]}}]


def test_predict_reads_covariates_and_forecasts_files_together(
    run: Run, bars: str, tmp_path: Path, service: Any
) -> None:
    other = tmp_path / "MSFT.csv"
    other.write_bytes(Path(bars).read_bytes())
    asked = ("--covariate", "volume", "--covariate", "Open", "--together", "--context", "35")
    result = run("predict", "--csv", bars, "--csv", str(other), "--horizon", "2", *asked)
    assert result.exit_code == 0, result.output
    request = service.calls[-1][1]
    assert list(request.covariates) == ["volume", "Open"]
    assert len(set(request.groups)) == 1
    assert len(request.groups) == 2
    assert list(request.series[1].past_covariates) == [at * 10 for at in range(105, 140)] + [*range(105, 140)]
    result = run("predict", "--csv", bars, "--covariate", "mood")
    assert result.exit_code == 2
    assert "mood" in result.stderr


def test_predict_takes_any_column_the_newest_values_and_standard_input(run: Run, bars: str, service: Any) -> None:
    run("predict", "--csv", bars, "--column", "OPEN", "--context", "5")
    run("predict", "--csv", "-", stdin="close\n1\n2\n")
    first, second = (request.series[0] for _, request, _ in service.calls)
    assert list(first.values) == [135, 136, 137, 138, 139]
    assert (second.symbol, list(second.values)) == ("", [1, 2])


def test_a_file_that_fails_alone_is_named_and_the_others_are_printed(run: Run, bars: str, tmp_path: Path) -> None:
    (tmp_path / "BAD.csv").write_text("close\n1\n2\n")
    result = run("predict", "--csv", bars, "--csv", str(tmp_path / "BAD.csv"))
    assert result.exit_code == 1
    assert "AAPL (model walk)" in result.stdout
    assert "Error: BAD: series[1].values: must be finite (request id" in result.stderr


def test_sentiment_reads_arguments_files_and_standard_input(run: Run, tmp_path: Path, service: Any) -> None:
    (tmp_path / "news.txt").write_text("shares up\n\n  shares slip \n")
    table = run("sentiment", "going up", "--file", str(tmp_path / "news.txt"))
    assert re.search(r"shares slip +│ negative +│ -0\.62", table.stdout)
    document = json.loads(run("sentiment", "--json", stdin="going up\n").stdout)
    assert [(one["text"], one["label"], one["positive"]) for one in document] == [("going up", "positive", 0.75)]
    assert list(service.calls[0][1].texts) == ["going up", "shares up", "shares slip"]
    assert run("sentiment", stdin="").exit_code == 2


def test_more_texts_than_a_request_may_hold_become_several_requests(run: Run, service: Any) -> None:
    lines = "".join(f"up {at}\n" for at in range(250))
    document = json.loads(run("sentiment", "--json", stdin=lines).stdout)
    assert [one["text"] for one in document] == lines.splitlines()
    assert [len(request.texts) for _, request, _ in service.calls] == [100, 100, 50]


def test_indicators_prints_one_column_an_output_newest_bars_last(run: Run, bars: str, service: Any) -> None:
    result = run("indicators", "RSI", "MACD", "SMA:timeperiod=2", "--csv", bars, "--last", "2")
    assert result.exit_code == 0
    for column in ("RSI", "MACD.macdhist", "SMA"):
        assert column in result.stdout
    assert re.search(r"2026-02-08 │ 139\.00 │(.|\n)*2026-02-09 │ 140\.00 │", result.stdout)
    panel = service.calls[0][1].panels[0]
    assert (panel.symbol, panel.close[0], len(panel.high)) == ("AAPL", 101, 0)
    document = json.loads(run("indicators", "RSI", "--csv", bars, "--json").stdout)
    assert document[0]["indicators"] == {"RSI": [140]}


def test_status_shows_replicas_and_engines_and_exits_with_1_unless_all_is_healthy(run: Run) -> None:
    result = run("status")
    assert result.exit_code == 1
    assert re.search(r"is degraded, (version \S+, )?at 20\d\d-", result.stdout)
    for expected in ("degraded", "sentiment", "unhealthy", "cpu test", "3.0 ms"):
        assert expected in result.stdout
    document = run("status", "--json")
    assert document.exit_code == 1
    assert json.loads(document.stdout)["replicas"][0]["engines"][1]["message"] == "no such file"


def test_status_without_a_ready_replica_has_no_empty_table(run: Run, service: Any) -> None:
    before = service.on["GetStatus"]

    def lost(request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        answer = before(request)
        del answer.replicas[0].engines[:]
        answer.replicas[0].message = "not connected"
        return answer

    service.on["GetStatus"] = lost
    shown = run("status").stdout
    assert "Replicas and engines" not in shown
    assert shown.endswith("one: not connected\n")


def test_models_lists_what_a_call_may_name(run: Run) -> None:
    assert re.search(r"forecast │ auto +│ ready +│ yes", run("models").stdout)
    assert [model["name"] for model in json.loads(run("models", "--json").stdout)] == ["auto", "fracast"]


def test_the_key_may_come_from_a_file(run: Run, service: Any, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret\n")
    run("models", "--api-key-file", str(tmp_path / "key"))
    assert service.calls[0][2]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            InvalidRequestError([Violation("horizon", "must be at most 365")]),
            "Error: horizon: must be at most 365 (request",
        ),
        (
            UnauthenticatedError("no API key"),
            "Error: no API key; set MARKET_INFERENCE_API_KEY, or give api_key= (--api-key-file on the command line)",
        ),
        (OverloadedError("full", retry_after=99.0), "Error: full; try again in 99 s (request id "),
    ],
)
def test_a_failure_is_one_line_with_the_request_id_and_exit_status_1(
    run: Run, service: Any, bars: str, error: Any, line: str
) -> None:
    service.fail("Predict", error)
    result = run("predict", "--csv", bars)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


def test_nobody_listening_is_said_with_what_to_do() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{bound.getsockname()[1]}"
        result = CliRunner().invoke(main, ["models", "--target", target])
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: nothing answers at {target} (connection refused): start a service with `market-inference serve`, or "
        "give another target\n"
    )


def test_files_are_arguments_too_and_further_levels_are_columns(run: Run, bars: str, tmp_path: Path) -> None:
    other = tmp_path / "MSFT.csv"
    other.write_text(Path(bars).read_text(encoding="utf-8"), encoding="utf-8")
    asked = ("--horizon", "2", "--quantile", "0.99", "--quantile", "0.25")
    by_argument = run("predict", bars, "--csv", str(other), *asked)
    by_option = run("predict", "--csv", bars, "--csv", str(other), *asked)
    assert by_argument.exit_code == 0
    assert by_argument.stdout == by_option.stdout
    assert [line.split() for line in by_argument.stdout.splitlines()].count(
        ["┃", "step", "┃", "median", "┃", "lower", "┃", "upper", "┃", "q0.25", "┃", "q0.99", "┃"]
    ) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict"], "no file given: give FILE, or --csv FILE; - is standard input"),
        (["predict", "no.csv"], "'no.csv' does not exist"),
        (["predict", "{bars}", "--horizon", "ten"], "expected a whole number from 1, got 'ten'"),
        (["predict", "{bars}", "--csv", "{bars}"], "two files have the same name or instrument: AAPL"),
        (["predict", "--csv", "no.csv"], "does not exist"),
        (["predict", "--csv", "{bars}", "--column", "nope"], "there are date, open, high, low, close, volume"),
        (["predict", "--csv", "{bars}", "--column", "date"], "column 'Date'"),
        (["predict", "--csv", "{bars}", "--csv", "{bars}"], "two files have the same name or instrument: AAPL"),
        (["indicators", "--csv", "{bars}"], "Missing argument"),
        (["indicators", "RSI:14", "--csv", "{bars}"], "parameter=number"),
        (["demo", "--horizon", "0"], "expected a whole number from 1 to 60, got '0'"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_wrong(
    run: Run, bars: str, service: Any, arguments: list[str], said: str
) -> None:
    result = run(*(argument.format(bars=bars) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert service.calls == []


@pytest.mark.parametrize("text", ["", "close\n", "a,b\n1\n"])
def test_what_is_no_table_is_wrong_usage(run: Run, text: str) -> None:
    assert run("predict", "--csv", "-", stdin=text).exit_code == 2


def test_a_text_is_text_and_no_markup(run: Run) -> None:
    result = run("sentiment", "Acme [/b] profit [bold]up")
    assert result.exit_code == 0
    assert "Acme [/b] profit [bold]up" in result.stdout


def test_a_doubtful_text_is_named_with_the_warning(run: Run, service: Any) -> None:
    good = service.on["AnalyzeSentiment"]

    def answer(request: Any) -> Any:
        answered = good(request)
        answered.sentiments[1].sentiment.warnings.add(code="WARNING_CODE_TEXT_NOT_ENGLISH", message="Not English.")
        return answered

    service.on["AnalyzeSentiment"] = answer
    assert "warning: text 2: Not English." in run("sentiment", "shares up", "Kurse fallen").stdout
    first, second = json.loads(run("sentiment", "--json", "shares up", "Kurse fallen").stdout)
    assert (first["warnings"], second["warnings"][0]["code"]) == ([], "TEXT_NOT_ENGLISH")


def test_a_company_is_asked_for_with_every_text(run: Run, service: Any) -> None:
    assert run("sentiment", "--about", "Acme", "Acme shares up", "Acme fined").exit_code == 0
    (_, request, _) = service.calls[-1]
    assert list(request.about) == ["Acme", "Acme"]


def test_one_bad_line_among_headlines_is_named_and_the_others_are_answered(run: Run, service: Any) -> None:
    lines = [f"shares up {at}" for at in range(150)]
    lines[120] = "x" * 10_001
    good = service.on["AnalyzeSentiment"]

    def answer(request: Any) -> Any:
        answered = good(request)
        for at, text in enumerate(request.texts):
            if len(text) > 10_000:
                answered.sentiments[at].error.CopyFrom(failed_item(f"texts[{at}]: at most 10000 characters"))
        return answered

    service.on["AnalyzeSentiment"] = answer
    result = run("sentiment", "--json", stdin="\n".join(lines))
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)) == 149
    assert result.stderr.startswith("Error: standard input line 121: texts[120]: at most 10000 characters (request id")
    table = run("sentiment", stdin="\n".join(lines))
    assert "shares up 149" in table.stdout


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("profit up\nÜbernahme geplant\n".encode("latin-1"), "news.txt: line 2 is not UTF-8: give --encoding"),
        (b"ok\nfine\n\xff\n", "news.txt: line 3 is not UTF-8"),
    ],
)
def test_a_file_in_another_encoding_is_refused_by_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("news.txt").write_bytes(content)
    result = run("sentiment", "--file", "news.txt")
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_files_in_known_encodings_are_read(run: Run, tmp_path: Path, service: Any, encoding: str) -> None:
    (tmp_path / "news.txt").write_bytes("Übernahme up\r\n".encode(encoding))
    options = ["--encoding", encoding] if encoding == "cp1252" else []
    assert run("sentiment", "--file", str(tmp_path / "news.txt"), *options).exit_code == 0
    assert list(service.calls[0][1].texts) == ["Übernahme up"]


@pytest.mark.parametrize(
    ("closes", "shown"),
    [
        ([1.2e-5, 1.21e-5, 1.234567e-5], "0.0000123457"),
        ([1.08, 1.0834, 1.08234], "1.08234"),
        ([100.0, 101.5, 104321.55], "104,321.55"),
        ([5e9, 6e9, 7e9], "7,000,000,000 "),
    ],
)
def test_prices_are_shown_with_their_digits(run: Run, closes: list[float], shown: str) -> None:
    result = run("predict", "--csv", "-", "--horizon", "1", stdin="close\n" + "".join(f"{x!r}\n" for x in closes))
    assert shown in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "--csv", "{bars}", "--context", "-5"], "expected a whole number from 1, got '-5'"),
        (["predict", "--csv", "{bars}", "--horizon", "0"], "expected a whole number from 1, got '0'"),
        (
            ["predict", "--csv", "{bars}", "--interval", "80"],
            "expected a number above 0 and below 1, got '80'; for 80%",
        ),
        (["predict", "--csv", "{bars}", "--interval", "nan"], "expected a number above 0 and below 1, got 'nan'"),
        (["predict", "--csv", "{bars}", "--quantile", "1.5"], "expected a number above 0 and below 1"),
        (["predict", "--csv", "{bars}", "--timeout", "nan"], "expected a number above 0, got 'nan'"),
        (["predict", "--csv", "{bars}", "--timeout", "0"], "expected a number above 0, got '0'"),
        (["predict", "--csv", "{bars}", "--target", "gateway"], "without a port: write 'gateway:8470'"),
        (["predict", "--csv", "{bars}", "--target", "http://gateway:1"], "got a URL, 'http://gateway:1'"),
        (["indicators", "RSI", "--csv", "{bars}", "--last", "-1"], "expected a whole number from 0, got '-1'"),
        (["watch", "--csv", "{bars}", "--every", "0"], "expected a whole number from 1, got '0'"),
        (["watch", "--csv", "{bars}", "--interval", "0"], "expected a number above 0"),
        (["watch", "--csv", "{bars}", "--speed", "inf"], "is no speed such as 100x"),
        (["serve", "--port", "99999"], "expected a whole number from 0 to 65535, got '99999'"),
        (["serve", "--metrics-port", "-1"], "expected a whole number from 0 to 65535, got '-1'"),
        (["keys", "issue", "--file", "k", "--owner", "x", "--days", "0"], "expected a number above 0, got '0'"),
        (
            ["keys", "issue", "--file", "k", "--owner", "x", "--units-per-day", "0"],
            "expected a number above 0, got '0'",
        ),
        (["top", "--interval", "nan"], "nan"),
        (["profile", "--target", "gateway"], "without a port"),
    ],
)
def test_options_out_of_range_are_refused_before_anything_is_sent(
    run: Run, bars: str, service: Any, arguments: list[str], said: str
) -> None:
    result = run(*(argument.format(bars=bars) for argument in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert service.calls == []


def test_a_key_with_a_line_break_is_understood_and_another_is_not_shown(
    run: Run, service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKET_INFERENCE_API_KEY", "key\n")
    assert run("models").exit_code == 0
    assert service.calls[0][2]["authorization"] == "Bearer key"
    monkeypatch.setenv("MARKET_INFERENCE_API_KEY", "geheim-ü")
    result = run("models")
    assert (result.exit_code, "geheim" in result.stderr) == (2, False)


def test_a_state_folder_that_cannot_be_made_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path / "file" / "state"))
    result = run("serve")
    assert result.exit_code == 1
    assert result.stderr == f"Error: the state folder {tmp_path}/file/state cannot be made: Not a directory\n"


def test_a_second_serve_names_the_first_and_the_options(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("serve", "--inference-metrics-port", port, "--no-http", "--device", "cpu")
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr
    assert "Is another `market-inference serve` running?" in result.stderr
    assert "--inference-metrics-port, --http-port" in result.stderr


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.5, "0.5 s"), (9.99, "10 s"), (11.2, "12 s"), (99.5, "100 s"), (200, "3 min 20 s"), (35_700, "9 h 55 min"),
     (35_641, "9 h 55 min"), (3_599.5, "1 h"), (86_400, "24 h")],
)  # fmt: skip
def test_a_time_to_wait_is_told_in_its_own_units(seconds: float, words: str) -> None:
    assert explain(errors.OverloadedError("full", retry_after=seconds)) == f"full; try again in {words}"


def test_a_replay_whose_bars_come_slowly_says_so(bars: str) -> None:
    days = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    assert _pace(days, 100) == (
        "at 100x a bar comes about every 0:09:36, and the 3 bars take 0:28:48; --speed max replays without waiting"
    )
    assert _pace(days, math.inf) == _pace(days, 1e6) == ""


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    assert (main.commands[command].get_short_help_str(200) or "").endswith((".", "!"))
    if command == "deploy":  # becomes another program: in a process of its own
        asked = [sys.executable, "-m", "market_inference", command, "--help"]
        assert (
            "usage: " in subprocess.run(asked, capture_output=True, text=True, check=True, timeout=250).stdout.lower()
        )
        return
    assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0


def test_help_loads_neither_grpc_nor_numpy_nor_matplotlib() -> None:
    probe = (
        "import sys; from market_inference.cli import main; "
        "print(sorted({'grpc', 'numpy', 'matplotlib', 'rich', 'google'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, timeout=250)
    assert ran.stdout.strip() == "[]"

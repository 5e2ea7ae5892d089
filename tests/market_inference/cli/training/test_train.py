"""`market-inference train` against a real plane with the quick pod."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmarks.training.planes import PlaneProcess, texts
from market_inference.cli.main import main
from market_inference.cli.training import demo
from market_inference.cli.training.plane import Plane, PlaneError
from tests.runtime.remote.answers import answering

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneProcess]:
    process = PlaneProcess(tmp_path_factory.mktemp("plane"), MULTIPART_BYTES=4000, PART_BYTES=1000)
    yield process
    process.stop()


@pytest.fixture
def run(plane: PlaneProcess) -> Run:
    """A command with this plane's key; the exit status must be the one given."""

    def call(*arguments: object, status: int = 0) -> Result:
        environment = {"MARKET_TRAINING_URL": plane.url, "MARKET_INFERENCE_API_KEY": plane.keys["desk"]}
        found = CliRunner().invoke(main, ["train", *map(str, arguments)], env=environment)
        assert found.exit_code == status, found.output
        return found

    return call


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    recipe, data = tmp_path / "recipe.yaml", tmp_path / "rows.csv"
    recipe.write_text("kind: sentiment\nname: succeed\n")
    data.write_bytes(texts())
    return recipe, data


def test_run_uploads_watches_and_shows_the_measures(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = files
    shown = run("run", recipe, "--data", data).output
    assert "started (attempt 1)" in shown
    assert "succeeded" in shown
    assert "loss  0.5000" in shown
    [job] = json.loads(run("list", "--state", "succeeded", "--json").output)[:1]
    assert job["id"] in run("list").output
    assert "gone" in run("show", job["id"]).output
    assert "succeeded" in run("watch", job["id"]).output
    run("logs", job["id"])
    assert "model.bin" in run("artifacts", job["id"]).output
    run("artifacts", job["id"], "--out", tmp_path / "model")
    assert (tmp_path / "model" / "model.bin").read_bytes() == data.read_bytes()[::-1]


def test_datasets_are_uploaded_in_parts_listed_shown_and_deleted(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "many.csv"
    data.write_bytes(texts(rows=150))
    assert data.stat().st_size > 4000
    dataset = run("datasets", "--upload", data).output.split()[-1]
    assert "many.csv" in run("datasets").output
    assert json.loads(run("datasets", "--show", dataset).output)["rows"] == 150
    run("datasets", "--delete", dataset)
    assert dataset not in [one["id"] for one in json.loads(run("datasets", "--json").output)]


def test_a_bad_recipe_and_bad_data_are_one_clear_line(run: Run, files: tuple[Path, Path], tmp_path: Path) -> None:
    recipe, data = files
    recipe.write_text("kind: sentiment\nepoch: 3\n")
    assert "epoch" in run("run", recipe, "--data", data, "--dry-run", status=1).output
    recipe.write_text("kind: sentiment\n")
    data.write_text("text,label\nfine,?\n")
    assert "row 2: the label must be a whole number" in run("run", recipe, "--data", data, status=1).output
    run("run", recipe, status=2)
    run("show", "01M8HA6MDY93G3J7MXWPK51RN5", status=1)


def test_the_recipe_is_read_before_the_upload_and_names_the_kind_of_the_dataset(
    run: Run, files: tuple[Path, Path], tmp_path: Path
) -> None:
    recipe, data = files
    before = run("datasets", "--json").output
    recipe.write_text("kind: sentiment\nepoch: 3\n")
    assert "epoch" in run("run", recipe, "--data", data, status=1).output
    recipe.write_text("kind: calibration\n")
    assert "needs a dataset of bars" in run("run", recipe, "--data", data, "--kind", "texts", status=2).output
    assert run("datasets", "--json").output == before
    bars = tmp_path / "bars.csv"
    rows = (f"2024-{1 + at // 28:02}-{1 + at % 28:02},10,11,9,10.5,A\n" for at in range(200))
    bars.write_text("time,open,high,low,close,symbol\n" + "".join(rows))
    run("run", recipe, "--data", bars, "--dry-run")
    assert json.loads(run("datasets", "--json").output)[0]["kind"] == "bars"


def test_a_failed_job_is_exit_status_1_and_a_cancelled_one_too(run: Run, files: tuple[Path, Path]) -> None:
    recipe, data = files
    recipe.write_text("kind: sentiment\nname: fail 65\n")
    assert "refused the dataset" in run("run", recipe, "--data", data, status=1).output
    recipe.write_text("kind: sentiment\nname: sleep 60\n")
    job = run("run", recipe, "--data", data, "--detach").output.split()[-1]
    run("cancel", job)
    assert "cancelled" in run("watch", job, status=1).output


def test_no_plane_and_no_key_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plane: PlaneProcess) -> None:
    with pytest.raises(PlaneError, match="no training plane answers"):
        Plane("http://127.0.0.1:1", "key").json("GET", "/jobs")
    with pytest.raises(PlaneError, match="not an HTTP address"):
        Plane("file:///etc/passwd", "key").json("GET", "/jobs")
    monkeypatch.setenv("MARKET_INFERENCE_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("MARKET_INFERENCE_API_KEY", raising=False)
    with pytest.raises(PlaneError, match="no API key"):
        Plane(plane.url).json("GET", "/jobs")


def test_the_demo_names_the_extras_of_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDS", ("json", "no_such_package"))
    found = CliRunner().invoke(main, ["train", "demo"])
    assert found.exit_code == 1
    assert "needs no_such_package: " in found.output
    assert "[training,training-pod]" in found.output


@pytest.mark.slow
@pytest.mark.needs("peft", "torch")
def test_the_demo_does_the_whole_loop_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    # Fewer headlines and steps; a busy machine may need longer.
    monkeypatch.setattr(demo, "ROWS", 160)
    monkeypatch.setattr(demo, "RECIPE", demo.RECIPE.replace(b"steps: 24", b"steps: 6"))
    for name in ("_START_SECONDS", "_CHECK_SECONDS"):
        monkeypatch.setattr(demo, name, 250.0)
    found = CliRunner().invoke(main, ["train", "demo", "--out", str(tmp_path / "model")])
    assert found.exit_code == 0, found.output
    assert "accuracy" in found.output
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"manifest.json", "adapter.safetensors"}
    assert json.loads((tmp_path / "model" / "manifest.json").read_text())["name"] == demo.MODEL != "minilm"
    said = found.output.replace("\n", " ")
    assert f"MARKET_INFERENCE_REGISTRY={tmp_path} market-inference serve" in said
    assert f"--model {demo.MODEL} " in said
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_key_follows_no_redirect(method: str) -> None:
    with answering(b"{}") as other, answering(b"", 302, {"Location": other.url}) as moved:
        assert Plane(moved.url, "secret-key").json(method, "/jobs") == {}
    assert "secret-key" in str(moved.seen)
    assert other.seen
    assert "secret-key" not in str(other.seen)

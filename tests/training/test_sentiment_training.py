"""The sentiment training program: the parts, and the whole program on a small encoder."""

import itertools
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.manifest import Manifest
from models.sentiment import LABELS, load
from models.sentiment.company import MASK
from models.sentiment.encoder import Classifier
from models.sentiment.minilm import plain, tokenizer
from models.sentiment.weights import Shape
from training.sentiment.__main__ import arguments
from training.sentiment.export import export
from training.sentiment.fit import Distillation, Fitted, Run, anchored, divergence, fit, temperature
from training.sentiment.mean import mean
from training.sentiment.measures import Measures, calibration_error
from training.sentiment.phrases import headlines, headlines_of, phrases, towards
from training.sentiment.rows import (
    UNLABELLED,
    Encoded,
    Row,
    encode,
    read,
    read_contrasts,
    read_swapped,
    read_taught,
)

ROOT = Path(__file__).parents[2]
SMALL = Shape(positions=64, width=24, inner=48, heads=3, layers=2)


def csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def quiet(_: str) -> None: ...


def test_duplicate_rows_are_read_once(tmp_path: Path) -> None:
    path = csv(tmp_path, 'text,label\n"Up, again",2\nDown https://t.co/a,0\nDown  https://t.co/b,0\n')
    assert read([path]) == [Row("Up, again", 2), Row("Down https://t.co/a", 0)]


@pytest.mark.parametrize("row", ["Up,3", "Up,", ",1", "   ,1", "Up,positive"])
def test_a_bad_row_is_named(tmp_path: Path, row: str) -> None:
    with pytest.raises(ValueError, match=r"rows\.csv, row 3"):
        read([csv(tmp_path, f"text,label\nFine,1\n{row}\n")])


def test_phrases_are_distinct_mixed_and_reproducible() -> None:
    rows = phrases(1000, seed=3)
    assert len({row.text for row in rows}) == 1000
    assert np.bincount([row.label for row in rows]).tolist() == [300, 400, 300]
    assert rows == phrases(1000, seed=3) != phrases(1000, seed=4)


def test_phrases_have_every_slot_filled() -> None:
    assert not [row for row in phrases(2000, seed=5) if "{" in row.text or "}" in row.text]


def test_headlines_are_distinct_filled_and_reproducible() -> None:
    rows = headlines(2000, seed=3)
    assert len({row.text for row in rows}) == 2000
    assert not [row for row in rows if "{" in row.text or "}" in row.text]
    assert min(np.bincount([row.label for row in rows])) > 500
    assert rows == headlines(2000, seed=3) != headlines(2000, seed=4)


@pytest.mark.parametrize(("kind", "labels"), [("law", [50, 0, 50]), ("in_line", [0, 100, 0])])
def test_headlines_of_a_kind_are_pairs_or_neutral_distinct_and_reproducible(kind: str, labels: list[int]) -> None:
    rows = headlines_of(kind, 100, seed=3)
    assert len({row.text for row in rows}) == 100
    assert not [row for row in rows if "{" in row.text or "}" in row.text]
    assert np.bincount([row.label for row in rows], minlength=3).tolist() == labels
    assert rows == headlines_of(kind, 100, seed=3) != headlines_of(kind, 100, seed=4)


@pytest.mark.parametrize("drill", ["weather=5", "law", "law=", "law=many", "law=-1"])
def test_a_bad_drill_is_refused(drill: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments().parse_args(["--validate", "rows.csv", "--out", "out", "--drill", drill])
    assert f"argument --drill: {drill!r}" in capsys.readouterr().err


def test_headlines_towards_a_party_mask_the_party_and_are_reproducible() -> None:
    rows = towards(2000, seed=3)
    assert len({row.text for row in rows}) == 2000
    assert not [row for row in rows if MASK not in row.text or "{" in row.text or "}" in row.text]
    assert min(np.bincount([row.label for row in rows])) > 500
    assert rows == towards(2000, seed=3) != towards(2000, seed=4)


def test_every_headline_towards_a_party_has_parties_of_different_roles() -> None:
    parts = tomllib.loads((ROOT / "training/sentiment/headlines.toml").read_text(encoding="utf-8"))
    for headline in itertools.chain(*parts["towards"].values()):
        parties = [party for label in LABELS for party in headline.get(label, ())]
        assert len(set(parties)) == len(parties) > 1, headline
        assert all(f"{{{party}}}" in headline["text"] for party in parties), headline


def test_a_row_with_an_entity_masks_the_company(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,entity,label\nFord beats GM,Ford,2\nFord beats GM,GM,0\nFord beats GM,Fiat,1\n")
    assert read([path]) == [Row("[MASK] beats GM", 2), Row("Ford beats [MASK]", 0)]


def test_contrasts_are_the_texts_whose_companies_have_different_labels(tmp_path: Path) -> None:
    path = csv(tmp_path, "text,entity,label\nFord beats GM,Ford,2\nFord beats GM,GM,0\nFord and GM up,Ford,2\n")
    assert read_contrasts([path]) == [Row("[MASK] beats GM", 2), Row("Ford beats [MASK]", 0)]


def test_swapped_rows_keep_labels_and_masks_and_change_the_names(tmp_path: Path) -> None:
    texts = (
        "Ford beats GM,Ford,2\nFord beats GM,GM,0\nTata and Tata Steel up,Tata,2\nTata and Tata Steel up,Tata Steel,2"
    )
    path, drawn = csv(tmp_path, f"text,entity,label\n{texts}\nFiat flat,Fiat,1\n"), set()
    for seed in range(40):
        rows = ford, gm, both, one = read_swapped([path], seed)
        assert [row.label for row in rows] == [2, 0, 2, 1]
        assert (ford.text.partition(" beats ")[0], gm.text.partition(" beats ")[2]) == (MASK, MASK)
        assert gm.text.partition(" beats ")[0] in {"Tata", "Tata Steel", "Fiat"}
        assert set(both.text.removesuffix(" up").split(" and ")) <= {"Ford", "GM", "Fiat"}
        assert read_swapped([path], seed) == rows
        drawn.add(one.text.removesuffix(" flat"))
    assert drawn == {"Ford", "GM", "Tata", "Tata Steel"}


def test_measures_against_a_case_worked_by_hand() -> None:
    probabilities = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.1, 0.3, 0.6]])
    measures = Measures.of(probabilities, np.array([0, 1, 2, 1]))
    assert measures.accuracy == 0.75
    assert measures.macro_f1 == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert measures.nll == pytest.approx(-np.log([0.8, 0.8, 0.6, 0.3]).mean())
    assert measures.ece == pytest.approx((abs(1.6 - 2) + abs(1.2 - 1)) / 4)
    assert measures.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_certain_and_right_has_no_calibration_error() -> None:
    assert calibration_error(np.eye(3), np.arange(3)) == 0


def test_temperature_undoes_a_known_overconfidence() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 3, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0].numpy()
    assert temperature([(logits * 1.7, labels)]) == pytest.approx(1.7, abs=0.08)


def rows_of(count: int, seed: int) -> list[Encoded]:
    return encode(phrases(count, seed), tokenizer(), 64)


def easy(count: int, seed: int) -> list[Encoded]:
    """Sequences of random length with the label as tokens."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (count,), generator=generator).tolist()
    return [Encoded(torch.full((length,), 10 + index % 3), index % 3) for index, length in enumerate(lengths)]


def test_training_learns() -> None:
    torch.manual_seed(0)
    recipe = Distillation(epochs=1, rank=4, adapter_rate=1e-2, head_rate=1e-2, averaging=0.9)
    fitted = fit(Classifier(SMALL, labels=3), easy(600, 1), {"own": easy(90, 2)}, recipe, quiet)
    assert fitted.measures["own"].accuracy > 0.95


def test_the_epoch_with_the_lowest_validation_nll_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(_: Run, validate: object, epoch: int) -> Fitted:
        measures = Measures(1, 1.0, 1.0, {1: 0.5, 2: 0.3, 3: 0.4}[epoch], 0.0, np.eye(3, dtype=np.int64))
        return Fitted({}, 1.0, epoch, {"own": measures})

    monkeypatch.setattr(Run, "judged", judged)
    recipe = Distillation(epochs=3, rank=2)
    assert fit(Classifier(SMALL, labels=3), easy(32, 1), {}, recipe, quiet).epoch == 2


def test_training_continues_from_a_stored_adapter() -> None:
    torch.manual_seed(0)
    recipe = Distillation(epochs=1, rank=4, adapter_rate=1e-2, head_rate=1e-2, averaging=0.9)
    model = Classifier(SMALL, labels=3)
    again = Classifier(SMALL, labels=3)
    again.load_state_dict(model.state_dict())
    first = fit(model, easy(600, 1), {"own": easy(90, 2)}, recipe, quiet)
    still = replace(recipe, adapter_rate=0.0, head_rate=0.0)
    second = fit(again, easy(32, 1), {"own": easy(90, 2)}, still, quiet, first.adapter)
    assert second.nll == pytest.approx(first.nll, abs=1e-3)


def test_the_divergence_is_the_mean_over_all_rows_of_those_with_a_teacher() -> None:
    logits, taught = torch.zeros(4, 3), torch.full((4, 3), torch.nan)
    taught[1] = 2 * torch.tensor([0.5, 0.25, 0.25]).log()
    expected = 0.5 * np.log(1.5) + 0.5 * np.log(0.75)
    assert divergence(logits, taught, 2.0).item() == pytest.approx(4 * expected / 4, rel=1e-5)
    assert divergence(logits, torch.full((4, 3), torch.nan), 2.0).item() == 0


def test_a_student_follows_its_teacher_against_the_labels() -> None:
    torch.manual_seed(0)
    rows = [replace(row, taught=8 * torch.eye(3)[(row.label + 1) % 3]) for row in easy(600, 1)]
    recipe = Distillation(epochs=1, rank=4, adapter_rate=1e-2, head_rate=1e-2, averaging=0.9, taught=10.0)
    fitted = fit(Classifier(SMALL, labels=3), rows, {"own": easy(90, 2)}, recipe, quiet)
    assert fitted.measures["own"].accuracy < 0.05


def test_an_anchor_teaches_its_answers_in_place_of_the_labels() -> None:
    torch.manual_seed(0)
    recipe = Distillation(epochs=1, rank=4, adapter_rate=1e-2, head_rate=1e-2, averaging=0.9)
    model, wrong = Classifier(SMALL, labels=3), [replace(row, label=(row.label + 1) % 3) for row in easy(600, 1)]
    fit(model, easy(600, 1), {"own": easy(90, 2)}, recipe, quiet)
    rows = anchored(model, wrong, "float32")
    assert {row.label for row in rows} == {UNLABELLED}
    fitted = fit(Classifier(SMALL, labels=3), rows, {"own": easy(90, 2)}, recipe, quiet)
    assert fitted.measures["own"].accuracy > 0.95


def test_training_in_bfloat16_keeps_float32_parameters_and_learns() -> None:
    torch.manual_seed(0)
    recipe = Distillation(epochs=1, rank=4, adapter_rate=1e-2, head_rate=1e-2, averaging=0.9, dtype="bfloat16")
    model = Classifier(SMALL, labels=3)
    fitted = fit(model, easy(600, 1), {"own": easy(90, 2)}, recipe, quiet)
    assert fitted.measures["own"].accuracy > 0.95
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_a_teachers_answers_reach_the_rows_of_the_same_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "taught.npz", texts=np.array(["Up"]), logits=np.array([[0, 1, 2]], np.float16))
    up, down = encode(
        [Row("Up  https://t.co/a", 2), Row("Down", 0)], tokenizer(), 64, read_taught(tmp_path / "taught.npz")
    )
    assert up.taught.tolist() == [0, 1, 2]
    assert down.taught.isnan().all()


def test_training_is_reproducible() -> None:
    rows, adapters = easy(64, seed=1), []
    for _ in range(2):
        torch.manual_seed(0)
        model = Classifier(SMALL, labels=3)
        adapters.append(fit(model, rows, {"own": rows}, Distillation(epochs=1, rank=2), quiet).adapter)
    for name, tensor in adapters[0].items():
        torch.testing.assert_close(tensor, adapters[1][name])


def test_an_exported_model_loads_and_answers_like_the_trained_model(tmp_path: Path) -> None:
    recipe, rows = Distillation(epochs=1, rank=4, batch=16), rows_of(48, seed=1)
    fitted = fit(Classifier.of(plain()), rows, {"own": rows}, recipe, quiet)
    export(fitted, recipe, "7", tmp_path)
    model = load(str(tmp_path), dtype="float32")
    model.check()
    assert (model.version, Manifest.of(tmp_path).settings["temperature"]) == ("7", fitted.temperature)
    texts = [row.text for row in phrases(48, 1)]
    answers = model.run([chunk for chunks in model.prepare(texts) for chunk in chunks])
    served = Measures.of(answers, np.array([row.label for row in rows]))
    assert served.nll == pytest.approx(fitted.measures["own"].nll, abs=2e-3)


def test_the_command_names_missing_options() -> None:
    command = [sys.executable, "-m", "training.sentiment", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=250).stdout
    assert all(option in shown for option in ("--train", "--validate", "--out", "--epochs"))


def test_adapters_are_averaged_tensor_by_tensor() -> None:
    first, second = ({"a": torch.tensor([value]).half(), "b": torch.tensor([2 * value])} for value in (1.0, 3.0))
    averaged = mean([first, second])
    assert (averaged["a"].item(), averaged["b"].item()) == (2, 4)
    with pytest.raises(ValueError, match="different shapes"):
        mean([first, {"a": second["a"]}])

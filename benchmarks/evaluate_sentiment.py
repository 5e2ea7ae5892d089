"""`python -m benchmarks.evaluate_sentiment --csv FILE ...`: the quality of a sentiment model on labelled texts.

Prints accuracy, macro F1, negative log-likelihood, calibration error and confusion for each file, and the accuracy of
each kind where the file has a column `kind`. A column `entity` asks for the sentiment towards that company. The exit
code is 1 if a file violates the given limits. Without --csv the files in benchmarks/sentiment are used, which are in no
training set: corporate sentences, and headlines as a trading desk reads them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from models.sentiment import EMBEDDED, LABELS, load
from models.sentiment.chunk import Probabilities
from models.sentiment.model import SentimentModel
from training.sentiment.measures import Measures
from training.sentiment.rows import Row, read

_FOLDER = Path(__file__).parent / "sentiment"
OWN = [_FOLDER / "corporate.csv", _FOLDER / "desk.csv"]


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate_sentiment", description=__doc__)
    parser.add_argument("--csv", type=Path, nargs="+", default=OWN, help="columns text and label (0 negative to 2)")
    parser.add_argument("--model", default=EMBEDDED, help="minilm, a folder or a hub id (default: %(default)s)")
    parser.add_argument("--dtype", default="auto", help="auto, float32 or bfloat16 (default: %(default)s)")
    parser.add_argument(
        "--accuracy", type=float, nargs="+", default=[0.0], help="least accuracy: of all, or of each file"
    )
    parser.add_argument("--kind-accuracy", type=float, default=0.0, help="least accuracy of each kind of text")
    parser.add_argument("--ece", type=float, default=1.0, help="greatest calibration error of each file")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def probabilities(model: SentimentModel, rows: list[Row]) -> Probabilities:
    """Float32 [n, 3], with texts prepared and pooled as in the service."""
    prepared = model.prepare([row.text for row in rows])
    answers = iter(model.run([chunk for chunks in prepared for chunk in chunks]))
    return np.stack([model.pool(chunks, np.stack([next(answers) for _ in chunks])) for chunks in prepared])


def by_kind(answers: Probabilities, rows: list[Row]) -> dict[str, Measures]:
    """The scores of each kind of text; empty for rows without kinds."""
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if row.kind:
            places.setdefault(row.kind, []).append(place)
    return {kind: _measured(answers[found], [rows[place] for place in found]) for kind, found in places.items()}


def _measured(answers: Probabilities, rows: list[Row]) -> Measures:
    return Measures.of(answers, np.array([row.label for row in rows]))


def show(name: str, measures: Measures) -> None:
    """Print the scores and the confusion matrix, with true labels as rows and answers as columns."""
    print(f"{name}: {measures}")
    print(" " * 12 + "".join(f"{label:>10}" for label in LABELS))
    for label, counts in zip(LABELS, measures.confusion, strict=True):
        print(f"{label:>12}" + "".join(f"{count:>10}" for count in counts))


def main() -> int:
    """Evaluate every file; returns 1 if a file violates a limit."""
    parser = arguments()
    options = parser.parse_args()
    bars = options.accuracy * len(options.csv) if len(options.accuracy) == 1 else options.accuracy
    if len(bars) != len(options.csv):
        parser.error("--accuracy takes one number, or one for each file")
    torch.set_num_threads(options.threads)
    model = load(options.model, dtype=options.dtype)
    print(f"{model.name} {model.version}, {model.dtype}")
    missed = False
    for path, bar in zip(options.csv, bars, strict=True):
        rows = read([path])
        answers = probabilities(model, rows)
        measures = _measured(answers, rows)
        show(path.name, measures)
        for kind, of_kind in by_kind(answers, rows).items():
            print(f"  {kind:<28}{of_kind.count:>4}  accuracy {of_kind.accuracy:.3f}")
            if of_kind.accuracy < options.kind_accuracy:
                print(f"{path.name}: {kind} is below the bar of accuracy {options.kind_accuracy}")
                missed = True
        if measures.accuracy < bar or measures.ece > options.ece:
            print(f"{path.name}: below the bar of accuracy {bar} and calibration error {options.ece}")
            missed = True
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

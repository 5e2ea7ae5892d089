"""Quality measures of probabilities: accuracy, macro F1, negative log-likelihood, calibration error, confusion."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]

_SMALLEST = 1e-12


@dataclass(frozen=True)
class Measures:
    """Scores of n answers. `confusion[i, j]` counts rows with label i and answer j."""

    count: int
    accuracy: float
    macro_f1: float
    nll: float
    ece: float
    confusion: npt.NDArray[np.int64]

    @classmethod
    def of(cls, probabilities: Floats, labels: Labels) -> "Measures":
        """Compute the measures from probabilities [n, k] and true labels [n]."""
        classes = probabilities.shape[1]
        answers = probabilities.argmax(axis=1)
        confusion = np.bincount(labels * classes + answers, minlength=classes**2).reshape(classes, classes)
        return cls(
            count=len(labels),
            accuracy=float((answers == labels).mean()),
            macro_f1=_macro_f1(confusion),
            nll=float(-np.log(probabilities[np.arange(len(labels)), labels] + _SMALLEST).mean()),
            ece=calibration_error(probabilities, labels),
            confusion=confusion,
        )

    @property
    def numbers(self) -> dict[str, float]:
        return {"accuracy": self.accuracy, "macro_f1": self.macro_f1, "nll": self.nll, "ece": self.ece}

    def __str__(self) -> str:
        return (
            f"n {self.count}  accuracy {self.accuracy:.4f}  macro F1 {self.macro_f1:.4f}  "
            f"NLL {self.nll:.4f}  ECE {self.ece:.4f}"
        )


def calibration_error(probabilities: Floats, labels: Labels, bins: int = 15) -> float:
    """Expected calibration error of the top label over equal-width confidence bins (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    places = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(places, weights=confidence - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


def _macro_f1(confusion: npt.NDArray[np.int64]) -> float:
    hits = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1)
    return float(np.mean(2 * hits / np.maximum(either, 1)))

"""Writes a trained model as a model folder for models.sentiment: tensors, manifest, and expected answers."""

import json
from pathlib import Path

import safetensors.torch
import torch

from models.manifest import Manifest, digest
from models.sentiment import LABELS
from models.sentiment.encoder import Classifier, Packed
from models.sentiment.minilm import ADAPTER, ARCHITECTURE, BASE, EXPECTED, MASKS, embedded, tokenizer
from models.sentiment.text import Windows
from training.sentiment.fit import Fitted, Recipe

WINDOW = 128

_PROBES = (
    "Operating profit rose to EUR 21.4 mn from EUR 15.9 mn a year earlier.",
    "The company cuts its forecast and will lay off 300 people.",
    "The annual general meeting will be held on 12 April.",
    "Net loss narrowed to $3m from $11m.",
    "Shares slide 8% after the regulator opens an investigation",
)


def export(
    fitted: Fitted, recipe: Recipe, version: str, folder: Path, *, name: str = "minilm", masks: bool = False
) -> None:
    """Write adapter, expected answers of the self-test, and manifest; creates the folder if needed.

    `name`: in requests. In a registry, a model with the name of a configured one replaces that model.
    `masks`: the rows taught the sentiment towards the company behind the mask token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = safetensors.torch.save(fitted.adapter)
    (folder / ADAPTER).write_bytes(tensors)
    manifest = Manifest(
        kind="sentiment",
        architecture=ARCHITECTURE,
        name=name,
        version=version,
        licence="Apache-2.0",
        dtype="float16",
        files={ADAPTER: digest(tensors)},
        labels=LABELS,
        base=BASE,
        settings={"scale": recipe.scale, "temperature": fitted.temperature, "max_length": WINDOW}
        | ({"about": MASKS} if masks else {}),
    )
    expected = _expected(folder, manifest)
    (folder / EXPECTED).write_bytes(expected)
    complete = Manifest(**{**vars(manifest), "files": {**manifest.files, EXPECTED: digest(expected)}})
    complete.write(folder)


def _expected(folder: Path, manifest: Manifest) -> bytes:
    """The probe texts and the float32 probabilities of the merged model, as JSON."""
    model = Classifier.of(embedded(folder, manifest)).eval()
    windows = Windows(tokenizer(), WINDOW).of(_PROBES)
    with torch.inference_mode():
        answers = [model(Packed.of([torch.from_numpy(window)])).softmax(1)[0] for (window,) in windows]
    rows = [
        {"text": text, "probabilities": [round(float(p), 6) for p in answer]}
        for text, answer in zip(_PROBES, answers, strict=True)
    ]
    return (json.dumps(rows, indent=2) + "\n").encode()

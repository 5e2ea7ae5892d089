"""`python -m training.sentiment.mean`: the mean of adapters, each trained from the previous, as a model folder.

The mean over one training trajectory lies in a flatter minimum and generalises better (Izmailov et al., "Averaging
Weights Leads to Wider Optima and Better Generalization", 2018). Independently trained adapters must not be averaged:
the product of means differs from the mean of products.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from models.manifest import Manifest
from models.sentiment.adapter import adapt
from models.sentiment.encoder import Classifier
from models.sentiment.minilm import ADAPTER, MASKS, plain, tokenizer
from training.sentiment.export import export
from training.sentiment.fit import Recipe, judged
from training.sentiment.rows import encode, read


def mean(adapters: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The float32 mean of stored adapters of equal shapes. Raises ValueError when the names of tensors differ."""
    if any(adapter.keys() != adapters[0].keys() for adapter in adapters):
        raise ValueError("adapters of different shapes have no mean")
    return {name: torch.stack([adapter[name].float() for adapter in adapters]).mean(0) for name in adapters[0]}


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.sentiment.mean", description=__doc__)
    parser.add_argument(
        "--folders", type=Path, nargs="+", required=True, help="model folders, one trained from another"
    )
    parser.add_argument("--validate", type=Path, nargs="+", required=True, metavar="CSV")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--version", default="1")
    parser.add_argument("--threads", type=int, default=1)
    return parser


def main() -> None:
    """Average, fit the temperature again, and write the folder."""
    options = arguments().parse_args()
    torch.set_num_threads(options.threads)
    manifests = [Manifest.of(folder) for folder in options.folders]
    stored = [
        safetensors.torch.load(manifest.read(folder, ADAPTER))
        for manifest, folder in zip(manifests, options.folders, strict=True)
    ]
    recipe, model = Recipe(), Classifier.of(plain())
    adapt(model, recipe.rank, recipe.scale, dropout=0.0)
    model.load_state_dict(mean(stored), strict=False)
    validate = {path.name: encode(read([path]), tokenizer(), recipe.length) for path in options.validate}
    fitted = judged(model, validate, epoch=0)
    for name, measures in fitted.measures.items():
        print(f"{name}: {measures}")
    masks = any(manifest.settings.get("about") == MASKS for manifest in manifests)
    export(fitted, recipe, options.version, options.out, masks=masks)
    print(f"temperature {fitted.temperature}; written to {options.out}")


if __name__ == "__main__":
    main()

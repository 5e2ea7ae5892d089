"""`python -m training.sentiment`: train on labelled CSV files and write a model folder."""

import argparse
import time
from dataclasses import fields, replace
from pathlib import Path

import safetensors.torch
import torch

from models.manifest import Manifest
from models.sentiment.minilm import ADAPTER, plain, tokenizer
from training.sentiment.export import export
from training.sentiment.fit import Recipe, fit
from training.sentiment.phrases import phrases
from training.sentiment.rows import encode, read


def arguments() -> argparse.ArgumentParser:
    """The command line; every constant of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m training.sentiment", description=__doc__)
    parser.add_argument(
        "--train", type=Path, nargs="+", required=True, metavar="CSV", help="columns text and label 0-2"
    )
    parser.add_argument("--validate", type=Path, nargs="+", required=True, metavar="CSV", help="not trained on")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the model folder is written")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="a model folder to go on from")
    parser.add_argument("--version", default="1", help="the version named in the manifest")
    parser.add_argument("--phrases", type=int, default=4000, help="template sentences to add (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default: %(default)s)")
    for option in fields(Recipe):
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=type(option.default), default=option.default)
    return parser


def say(line: str) -> None:
    """Print a line of progress, flushed so that the line passes a pipe at once."""
    print(line, flush=True)


def main() -> None:
    """Train, report each epoch, and write the best epoch."""
    options = arguments().parse_args()
    torch.set_num_threads(options.threads)
    recipe = replace(Recipe(), **{option.name: getattr(options, option.name) for option in fields(Recipe)})
    words = tokenizer()
    train = read(options.train) + phrases(options.phrases, recipe.seed)
    validate = {path.name: encode(read([path]), words, recipe.length) for path in options.validate}
    print(f"{len(train)} rows to train on, {sum(map(len, validate.values()))} to validate on", flush=True)
    began = time.monotonic()
    model = plain(dropout=recipe.dropout).train()
    start = safetensors.torch.load(Manifest.of(options.start).read(options.start, ADAPTER)) if options.start else None
    fitted = fit(model, encode(train, words, recipe.length), validate, recipe, say, start)
    export(fitted, recipe, options.version, options.out)
    print(f"epoch {fitted.epoch} written to {options.out} after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

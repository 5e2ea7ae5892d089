"""`python -m training.sentiment`: train on labelled CSV files and write a model folder."""

import argparse
import time
from dataclasses import fields, replace
from pathlib import Path

import safetensors.torch
import torch

from models.manifest import Manifest
from models.sentiment.company import MASK
from models.sentiment.encoder import Classifier
from models.sentiment.minilm import ADAPTER, plain, tokenizer
from training.sentiment.export import export
from training.sentiment.fit import Distillation, fit
from training.sentiment.phrases import headlines, phrases, towards
from training.sentiment.rows import encode, read, read_contrasts, read_swapped, read_taught


def arguments() -> argparse.ArgumentParser:
    """The command line; every constant of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m training.sentiment", description=__doc__)
    parser.add_argument(
        "--train", type=Path, nargs="+", default=[], metavar="CSV", help="columns text, label, entity or not"
    )
    parser.add_argument(
        "--contrast", type=Path, nargs="+", default=[], metavar="CSV", help="with entities; texts of one label left out"
    )
    parser.add_argument(
        "--swap", type=Path, nargs="+", default=[], metavar="CSV", help="with entities; with other names for them"
    )
    parser.add_argument("--validate", type=Path, nargs="+", required=True, metavar="CSV", help="not trained on")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the model folder is written")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="a model folder to go on from")
    parser.add_argument("--teacher", type=Path, metavar="FILE", help="the answers that teacher.py wrote for these rows")
    parser.add_argument("--version", default="1", help="the version named in the manifest")
    parser.add_argument("--phrases", type=int, default=4000, help="template sentences to add (default: %(default)s)")
    parser.add_argument("--headlines", type=int, default=6000, help="template headlines to add (default: %(default)s)")
    parser.add_argument("--towards", type=int, default=2000, help="template headlines with a masked party to add")
    parser.add_argument(
        "--repeat", type=int, default=1, help="how often an epoch has a row of --contrast or a taught row"
    )
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default: %(default)s)")
    for option in fields(Distillation):
        parser.add_argument(f"--{option.name.replace('_', '-')}", type=type(option.default), default=option.default)
    return parser


def say(line: str) -> None:
    """Print a line of progress, flushed so that the line passes a pipe at once."""
    print(line, flush=True)


def main() -> None:
    """Train, report each epoch, and write the best epoch."""
    options = arguments().parse_args()
    torch.set_num_threads(options.threads)
    recipe = replace(Distillation(), **{option.name: getattr(options, option.name) for option in fields(Distillation)})
    words = tokenizer()
    train = (
        read(options.train)
        + read_contrasts(options.contrast) * options.repeat
        + read_swapped(options.swap, recipe.seed)
        + phrases(options.phrases, recipe.seed)
        + headlines(options.headlines, recipe.seed)
        + towards(options.towards, recipe.seed)
    )
    validate = {path.name: encode(read([path]), words, recipe.length) for path in options.validate}
    print(f"{len(train)} rows to train on, {sum(map(len, validate.values()))} to validate on", flush=True)
    began = time.monotonic()
    model = Classifier.of(plain(), dropout=recipe.dropout).train()
    start = safetensors.torch.load(Manifest.of(options.start).read(options.start, ADAPTER)) if options.start else None
    encoded = encode(train, words, recipe.length, read_taught(options.teacher) if options.teacher else None)
    encoded += [row for row in encoded if not row.taught.isnan().any()] * (options.repeat - 1)
    fitted = fit(model, encoded, validate, recipe, say, start)
    export(fitted, recipe, options.version, options.out, masks=any(MASK in row.text for row in train))
    print(f"epoch {fitted.epoch} written to {options.out} after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

"""`python -m training.sentiment`: train on labelled CSV files and write a model folder."""

import argparse
import time
from dataclasses import fields, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from models.manifest import Manifest
from models.sentiment.adapter import adapt
from models.sentiment.company import MASK
from models.sentiment.encoder import Classifier
from models.sentiment.minilm import ADAPTER, plain, tokenizer
from training.sentiment.export import export
from training.sentiment.fit import Distillation, anchored, fit
from training.sentiment.phrases import KINDS, headlines, headlines_of, phrases, towards
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
    teachers = parser.add_mutually_exclusive_group()
    teachers.add_argument(
        "--teacher", type=Path, metavar="FILE", help="the answers that teacher.py wrote for these rows"
    )
    teachers.add_argument(
        "--anchor", type=Path, metavar="FOLDER", help="a model folder whose answers replace all labels but --drill's"
    )
    parser.add_argument("--version", default="1", help="the version named in the manifest")
    parser.add_argument("--phrases", type=int, default=4000, help="template sentences to add (default: %(default)s)")
    parser.add_argument("--headlines", type=int, default=6000, help="template headlines to add (default: %(default)s)")
    parser.add_argument("--towards", type=int, default=2000, help="template headlines with a masked party to add")
    parser.add_argument(
        "--drill", type=_drill, nargs="+", default=[], metavar="KIND=COUNT", help="headlines of one kind to add"
    )
    parser.add_argument(
        "--repeat", type=int, default=1, help="how often an epoch has a row of --contrast or a taught row"
    )
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default: %(default)s)")
    for option in fields(Distillation):
        flag, choices = f"--{option.name.replace('_', '-')}", option.metadata.get("choices")
        parser.add_argument(flag, type=type(option.default), default=option.default, choices=choices)
    return parser


def _drill(text: str) -> tuple[str, int]:
    kind, _, count = text.partition("=")
    if kind not in KINDS or not count.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND=COUNT; the kinds are {', '.join(KINDS)}")
    return kind, int(count)


def start_of(folder: Path) -> dict[str, Tensor]:
    """The stored adapter of a model folder."""
    return safetensors.torch.load(Manifest.of(folder).read(folder, ADAPTER))


def anchor_of(folder: Path, recipe: Distillation) -> Classifier:
    """The adapted model of a model folder, of the recipe's rank and scale."""
    model = Classifier.of(plain())
    adapt(model, recipe.rank, recipe.scale, dropout=0.0)
    model.load_state_dict(start_of(folder), strict=False)
    return model


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
    start = start_of(options.start) if options.start else None
    encoded = encode(train, words, recipe.length, read_taught(options.teacher) if options.teacher else None)
    encoded += [row for row in encoded if not row.taught.isnan().any()] * (options.repeat - 1)
    if options.anchor:
        encoded = anchored(anchor_of(options.anchor, recipe), encoded, recipe.dtype)
    drill = [row for kind, count in options.drill for row in headlines_of(kind, count, recipe.seed)]
    encoded += encode(drill, words, recipe.length)
    fitted = fit(model, encoded, validate, recipe, say, start)
    export(fitted, recipe, options.version, options.out, masks=any(MASK in row.text for row in train))
    print(f"epoch {fitted.epoch} written to {options.out} after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()

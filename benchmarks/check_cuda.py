"""Every engine's batch path on a simulated CUDA device: fails on any mix of CPU and CUDA tensors.

Needs a CUDA build of PyTorch but no GPU; `make check-cuda` installs such an environment. No values are computed: the
check covers the placement of tensors, and counts operators and waits per batch. Answers on a GPU are checked by the
tests with the marker gpu, speed is not checked.
"""

import functools
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import fracast
import numpy as np
import torch
from fracast._core.model import build_from_cfg
from torch.nn import functional as F

from benchmarks.fake_cuda import CUDA, Seen, built, simulated
from models.forecast import Series
from models.forecast.blended import Blended
from models.forecast.embedded import Embedded
from models.forecast.fracast import Fracast
from models.forecast.pretrained import Pretrained
from models.indicators import Panel, Spec, Task, batch, compile  # noqa: A004 - as re.compile
from models.indicators.kernels import dispatch
from models.indicators.torch_model import TorchModel
from models.sentiment.encoder import Classifier
from models.sentiment.pretrained import PretrainedNetwork
from models.sentiment.text import Ids
from models.sentiment.torch_network import PackedNetwork
from models.sentiment.weights import Shape

Run = Callable[[], object]
DECILES = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))


def series() -> list[Series]:
    """Different contexts, horizons and levels in one batch; one horizon needs two blocks of Fracast."""
    rng = np.random.default_rng(0)
    shapes = [(64, 5, (0.1, 0.9)), (300, 60, (0.5,)), (200, 3, DECILES), (31, 24, (0.05, 0.5))]
    return [Series(50 + rng.normal(size=points), horizon, levels) for points, horizon, levels in shapes]


def embedded(name: str) -> object:
    """Gate, random walk, autoregression and coverage; the simulated gate is half open for every row."""
    return Embedded(name, "cuda").run(series())


def fracast_network() -> Fracast:
    """Fracast as built by the package fracast, on the simulated device."""
    settings = json.loads((Path(fracast.__file__).parent / "weights" / "config.json").read_text(encoding="utf-8"))
    with torch.device(CUDA):
        core, head = build_from_cfg({part: settings[part] for part in ("model", "pyramid")})
    model = settings["model"]
    network = SimpleNamespace(core=core.eval(), head=head.eval(), device=CUDA, quantiles=model["quantiles"])
    network.context_length, network.horizon = model["W"], model["horizon"]
    return Fracast(network)


def sequences() -> list[Ids]:
    """Token ids, ordered by length."""
    return [np.full(length, 101) for length in (3, 8, 8, 40, 128)]


def minilm() -> object:
    network = built(lambda: Classifier(Shape(), 3), torch.bfloat16)
    return PackedNetwork(network, CUDA, torch.bfloat16).probabilities(sequences())


def bert() -> object:
    """A sequence classifier of transformers, like FinBERT."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=3)
    network = built(lambda: BertForSequenceClassification(config), torch.bfloat16)
    return PretrainedNetwork(network, 0, (2, 1, 0), CUDA, torch.bfloat16).probabilities(sequences())


def panels() -> list[Panel]:
    """Panels of two lengths, so that one panel is padded."""
    rng = np.random.default_rng(0)
    return [Panel(*(100 + rng.normal(size=(5, bars)))) for bars in (150, 110)]


def program() -> object:
    """Kernels, and TA-Lib for functions without one, in one answer."""
    asked = compile([Spec("RSI", last=1), Spec("MACD", last=5), Spec("CDLDOJI"), Spec("SAR", last=1)])
    return TorchModel(CUDA).run([Task(panel, asked) for panel in panels()])


def kernel(name: str) -> object:
    """One kernel over a batch, even if TA-Lib would be faster for this number of rows."""
    asked, among = compile([Spec(name)]), panels()
    return list(batch.compute(asked, [True], among, batch.rows_at_once(among, CUDA), CUDA))


def paths() -> Iterator[tuple[str, Run]]:
    """All batch paths, by engine and name."""
    for name in ("auto", "vol_rw", "ridge_ar"):
        yield f"forecast {name}", functools.partial(embedded, name)
    yield "forecast fracast", lambda: Pretrained("fracast", fracast_network()).run(series())
    yield "forecast auto_fracast", lambda: Blended("auto_fracast", fracast_network()).run(series())
    yield "sentiment minilm", minilm
    yield "sentiment transformers", bert
    yield "indicators program", program
    for name in sorted(dispatch.KERNELS):
        yield f"indicators {name}", functools.partial(kernel, name)


def steps(other: torch.device) -> Iterator[tuple[str, Run]]:
    """Steps that are valid if `other` is the device, and mix devices if `other` is the host."""
    ours, theirs = torch.ones(3, 3, device=CUDA), torch.ones(3, 3, device=other)
    place = torch.zeros(2, dtype=torch.long, device=CUDA)
    yield "addition", lambda: ours + theirs
    yield "choice", lambda: torch.where(ours > 0, ours, theirs)
    yield "weight", lambda: F.linear(ours, theirs)
    yield "mask", lambda: F.scaled_dot_product_attention(ours, ours, ours, attn_mask=theirs)
    yield "indexed table", lambda: theirs[place]
    yield "index", lambda: ours[place.to(other)]


def refused(other: torch.device) -> list[str]:
    """The names of the steps that raise."""
    found = []
    for name, step in steps(other):
        try:
            step()
        except RuntimeError:
            found.append(name)
    return found


def passes(name: str, run: Run, seen: Seen) -> bool:
    """Run one path, print a line, and return whether the path passed."""
    seen.operators = seen.waits = 0
    try:
        run()
    except Exception as error:  # noqa: BLE001 -- any exception is a finding of the check
        traceback.print_exc()
        print(f"{name:26} FAILED: {type(error).__name__}: {str(error).splitlines()[0]}")
        return False
    print(f"{name:26} {seen.operators:9,} {seen.waits:9,}", flush=True)
    return seen.operators > 0


def main() -> None:
    """Exit with 1 if a path fails or never uses the device, or if a deliberate mix of devices is not detected."""
    if torch.version.cuda is None:
        sys.exit("check_cuda: this PyTorch is a CPU build; `make check-cuda` brings a CUDA build of its own")
    torch.set_num_threads(1)
    with simulated() as seen:
        caught, planted = refused(torch.device("cpu")), [name for name, _ in steps(CUDA)]
        if caught != planted or refused(CUDA):
            sys.exit(f"check_cuda: of the mixes planted to test it, {planted}, it caught {caught}")
        print(f"PyTorch {torch.__version__}, CUDA tensors without values; not run on a GPU")
        print(f"{'one batch of':26} {'operators':>9} {'waits':>9}")
        failed = [name for name, run in paths() if not passes(name, run, seen)]
    if failed:
        sys.exit(f"check_cuda: {', '.join(failed)}")
    print("no tensor on another device than its neighbours")


if __name__ == "__main__":
    main()

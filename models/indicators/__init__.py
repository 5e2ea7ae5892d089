"""Technical indicators: every TA-Lib function by its own name, over panels of OHLCV bars.

panel = Panel(open, high, low, close, volume)
program = compile([Spec("RSI", {"timeperiod": 14}, last=1), Spec("MACD")])
model = load()
(answer,) = model.run([Task(panel, program)])
rsi = answer[0]
macd, signal, histogram = answer[program.rows[1]]
"""

from typing import Literal

from models.indicators.answer import Answer
from models.indicators.functions import FUNCTIONS, Function, Output, Parameter
from models.indicators.panel import COLUMNS, Panel
from models.indicators.program import (
    CALL_BYTES,
    Call,
    Program,
    Spec,
    SpecError,
    Task,
    assemble,
    check,
    compile,  # noqa: A004 - as re.compile
)
from models.indicators.running_sums import SpoiltSumsError
from models.indicators.talib_model import TALibModel
from models.model import Model, ModelUnavailableError

__all__ = [
    "CALL_BYTES",
    "COLUMNS",
    "FUNCTIONS",
    "Answer",
    "Call",
    "Function",
    "Output",
    "Panel",
    "Parameter",
    "Program",
    "Spec",
    "SpecError",
    "SpoiltSumsError",
    "Task",
    "assemble",
    "check",
    "compile",
    "load",
]


def load(
    device: str = "cpu", *, backend: Literal["auto", "talib", "torch"] = "auto"
) -> Model[Task, Answer | SpoiltSumsError]:
    """Load an indicator model: "talib" on the CPU, "torch" on the device, "auto" for the faster of the two.

    On a CPU, TA-Lib is faster at every size: TA-Lib takes one pass of a few nanoseconds per bar, a kernel ten to thirty
    passes of half a nanosecond each (benchmarks/engines_indicators.py). Not measured on a GPU.

    One thread calls run(); load one model per thread. Raises ModelUnavailableError when the device is missing or cannot
    compute in float64.
    """
    if backend == "talib" or (backend == "auto" and device == "cpu"):
        return TALibModel()
    # Imported late: torch takes seconds to import, and TA-Lib works without torch.
    import torch

    from models.indicators.torch_model import TorchModel

    place = torch.device(device)
    if place.type not in ("cpu", "cuda"):
        raise ModelUnavailableError(f"torch has no float64, which indicators need, on {device!r}; use cpu or cuda")
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ModelUnavailableError(f"no CUDA device for indicators on {device!r}; use cpu")
    return TorchModel(place)

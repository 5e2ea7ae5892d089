"""Technical indicators: every TA-Lib function by its own name, over panels of OHLCV bars.

panel = Panel(open, high, low, close, volume)
program = compile([Spec("RSI", {"timeperiod": 14}, last=1), Spec("MACD")])
model = load()
(answer,) = model.run([Task(panel, program)])
rsi = answer[0]
macd, signal, histogram = answer[program.rows[1]]
"""

from typing import Literal

from models.indicators.catalogue import FUNCTIONS, Function, Output, Parameter
from models.indicators.model import TALibModel
from models.indicators.panel import COLUMNS, Panel
from models.indicators.plan import Answer
from models.indicators.program import Program, Spec, SpecError, compile  # noqa: A004 - as re.compile
from models.indicators.task import Task
from models.model import Model, ModelUnavailableError

__all__ = [
    "COLUMNS",
    "FUNCTIONS",
    "Answer",
    "Function",
    "Output",
    "Panel",
    "Parameter",
    "Program",
    "Spec",
    "SpecError",
    "Task",
    "compile",
    "load",
]


def load(device: str = "cpu", *, backend: Literal["auto", "talib", "torch"] = "auto") -> Model[Task, Answer]:
    """A model that computes indicators. One thread calls its run(); for more threads load one each.

    Raises ModelUnavailableError when the backend cannot run on the device.
    """
    if backend == "torch" or device != "cpu":
        raise ModelUnavailableError(f"the indicator backend {backend!r} is not available on {device!r}")
    return TALibModel()

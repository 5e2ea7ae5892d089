"""The self-test of a loaded model: a small real panel with stored answers, run before the model serves.

Owns selftest.json: 48 daily bars of FB from 2012-05-18, public domain, and for each indicator the last bars as computed
by TA-Lib 0.8.1.
"""

import json
from pathlib import Path

import numpy as np

from models.indicators.answer import Answer
from models.indicators.panel import COLUMNS, Panel
from models.indicators.program import Spec, Task, compile  # noqa: A004 - as re.compile
from models.indicators.running_sums import SpoiltSumsError
from models.model import Model

_TOLERANCE = 1e-9


def verify(model: Model[Task, Answer | SpoiltSumsError]) -> None:
    """Run the self-test. Raises RuntimeError, naming the first indicator that differs from the stored answer."""
    stored = json.loads(Path(__file__).with_name("selftest.json").read_text("utf-8"))
    panel = Panel(**{name: np.array(stored["panel"][name], dtype=np.float64) for name in COLUMNS})
    indicators = stored["indicators"]
    program = compile([Spec(each["name"], each["params"], each["last"]) for each in indicators])
    (answer,) = model.run([Task(panel, program)])
    if isinstance(answer, SpoiltSumsError):
        raise answer
    for each, rows in zip(indicators, program.rows, strict=True):
        computed, expected = list(answer[rows]), each["expected"]
        if not np.allclose(computed, expected, rtol=_TOLERANCE, atol=0.0, equal_nan=True):
            raise RuntimeError(f"self-test of {model.name}: {each['name']} differs from the stored answer")

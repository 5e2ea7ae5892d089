"""The example of docs/models.md: the script makes a model folder, and the service serves the model."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from market_inference import Pair
from market_inference.errors import NotFoundError
from tests.eventually import eventually

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
(SCRIPT,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CLOSES = 100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.01, 200)))


def publish(folder: Path, script: str = SCRIPT) -> None:
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, timeout=60)


def test_the_script_makes_a_model_that_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path)
    monkeypatch.setenv("MARKET_INFERENCE_REGISTRY", str(tmp_path / "registry"))
    monkeypatch.setenv("MARKET_INFERENCE_REGISTRY_INTERVAL", "0.1")
    with Pair(state=tmp_path / "state", device="cpu") as pair, pair.client() as client:
        pair.wait_loaded()
        eventually(lambda: "desk" in {model.name for model in client.models()})
        series = {"AAPL": CLOSES, "TSLA": CLOSES}
        own, plain = client.predict(series, 5, model="desk"), client.predict(series, 5)
        assert (own["AAPL"].model, own["AAPL"].model_version) == ("desk", "1")
        for symbol, scale in (("AAPL", 1.5), ("TSLA", 2.0)):
            widths = [np.subtract(*one[symbol].interval(0.8)[::-1]) for one in (own, plain)]
            np.testing.assert_allclose(widths[0] / widths[1], scale, rtol=1e-3)

        publish(tmp_path, SCRIPT.replace('"licence": "Apache-2.0",', "").replace('"desk"', '"office"'))

        def refused() -> bool:
            with pytest.raises(NotFoundError) as error:
                client.predict(CLOSES, 5, model="office")
            return "office: manifest.json of 'office' is malformed: licence: Field required" in str(error.value)

        eventually(refused)

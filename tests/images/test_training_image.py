"""The image of machines that train: hadolint, the build context, and the imports of what is copied."""

import re
import subprocess
import sys
from pathlib import Path

from tests.images.test_dependencies import COMES_WITH, PROJECT, distributions, imported, normal
from training.plane.launchers import dstack, kubernetes, runpod

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile.training").read_text(encoding="utf-8")
PACKAGES = ("models", "training/pod", "training/recipes", "training/sentiment")
# Imported inside functions, by parts of models/ that no recipe uses.
ON_DEMAND = {"matplotlib", "bokeh_sampledata", "pandas", "polars"}


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    command = [hadolint, "--config", ROOT / ".hadolint.yaml", ROOT / "Dockerfile.training"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_is_in_the_build_context() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (\w+)/ ", TEXT, re.MULTILINE)
    assert set(copied) == {"constraints", "models", "training"}
    assert set(copied) <= sent


def test_the_script_is_where_every_launcher_starts_it() -> None:
    assert "COPY training/ /app/training/" in TEXT
    for launcher in (dstack, kubernetes, runpod):
        assert launcher.SCRIPT == "/app/training/pod/run.sh"
    assert f'CMD ["bash", "{runpod.SCRIPT}"]' in TEXT


def test_every_import_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    named = [*PROJECT["dependencies"], *extras["training-pod"]]
    for extra in re.findall(r"market-inference\[([\w,-]+)\]", " ".join(extras["training-pod"])):
        named += [line for one in extra.split(",") for line in extras[one]]
    declared = {normal(re.match(r"[\w.-]+", line)[0]) for line in named}
    known = distributions()
    for package in PACKAGES:
        for module, file in imported(package).items():
            candidates = {normal(name) for name in known.get(module, [module])} | {COMES_WITH.get(module, "")}
            assert module in ON_DEMAND or candidates & declared, f"{file} imports {module}"

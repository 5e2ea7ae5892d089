"""A run of pytest inside a test, for the tests of this project's own plugins."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# The plugin of schemathesis would take a second and a half of each process for its imports.
_COMMAND = (sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-p", "no:schemathesis")


def run_suite(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the test files in `folder`. The time-out of this call is the proof that the inner run ends by itself."""
    command = [*_COMMAND, "--rootdir", folder, *options, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=200)

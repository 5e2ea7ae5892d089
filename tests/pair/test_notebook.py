"""docs/notebook.md runs as it stands, with warnings as errors."""

import re
import subprocess
import sys
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "notebook.md").read_text(encoding="utf-8")


def test_the_notebook_page_runs_as_one_script(running, tmp_path):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    code = code.replace('"127.0.0.1:8470"', f'"{running.target}", api_key="{running.key}"')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the 80% interval held" in done.stdout
    assert re.search(r"AAPL +-?0\.\d", done.stdout)
    assert len(re.findall(r"^\d{4}-\d\d-\d\d \d+\.\d \[", done.stdout, re.MULTILINE)) == 5

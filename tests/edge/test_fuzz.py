"""schemathesis, against the edge's own OpenAPI description: no request of any form ends in a 500."""

import os
import subprocess
import sys

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "8")


def test_no_request_ends_in_a_bug(edge, pair, tmp_path):
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text("", encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration),
            "run", f"{edge.url}/openapi.json", "--header", f"Authorization: Bearer {edge.key}",
            "--checks", "not_a_server_error", "--phases", "examples,fuzzing", "--max-examples", EXAMPLES,
            "--seed", "7", "--generation-database", "none", "--no-color", "--continue-on-failure",
        ],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=tmp_path,
        check=False,
    )  # fmt: skip
    assert "Schemathesis" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    log = (pair.state / "edge.log").read_text(encoding="utf-8")
    assert '"event":"bug"' not in log
    assert log.count('"route":"/v1/predict"') >= int(EXAMPLES)

"""`python -m observability.generate` writes the generated files.

Owns dashboards/*.json (from boards/), prometheus-rule.yaml (from rules/*.yml), the `runbook_url` in rules/*.yml and in
the rules' unit tests (from runbook.py), and the tables of settings in docs/operations.md. With --check the command
writes nothing and fails if a generated file is stale.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability import runbook, settings
from observability.boards import DASHBOARDS

HERE = Path(__file__).parent
OPERATIONS = HERE.parent / "docs" / "operations.md"
_RULES = HERE / "rules"
_UNIT_TESTS = HERE.parent / "tests" / "observability" / "rules"
_RULE_HEAD = """\
# Made from rules/*.yml by `python -m observability.generate`: edit those.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: market-inference
spec:
  groups:
"""


def files() -> dict[Path, str]:
    """The generated files with contents."""
    made = {
        HERE / "dashboards" / f"{dashboard.name}.json": json.dumps(
            dashboard.build(), cls=JSONEncoder, indent=2, sort_keys=True
        )
        + "\n"
        for dashboard in DASHBOARDS
    }
    rules = {path: path.read_text(encoding="utf-8") for path in sorted(_RULES.glob("*.yml"))}
    unit_tests = {path: path.read_text(encoding="utf-8") for path in sorted(_UNIT_TESTS.glob("*.yml"))}
    made[HERE / "prometheus-rule.yaml"] = runbook.filled(_prometheus_rule(rules.values()), runbook.PLACEHOLDER)
    address = runbook.address()
    made |= {path: runbook.filled(text, address) for path, text in (rules | unit_tests).items()}
    made[OPERATIONS] = settings.filled(OPERATIONS.read_text(encoding="utf-8"))
    return made


def _prometheus_rule(rules: Iterable[str]) -> str:
    groups = [text.split("groups:\n", 1)[1] for text in rules]
    lines = "\n".join(group.rstrip("\n") for group in groups).split("\n")
    return _RULE_HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


def stale() -> list[Path]:
    """The generated files with missing or outdated contents."""
    return [path for path, text in files().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        for path in stale():
            sys.stderr.write(f"{path.relative_to(HERE.parent)} is stale: run python -m observability.generate\n")
        return 1 if stale() else 0
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

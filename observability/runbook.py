"""The annotation `runbook_url` of the alerts: where the runbook is published.

The address of the documentation is one line of k8s/components/scraping/kustomization.yaml. kustomize puts the address
into the PrometheusRule of a cluster in place of PLACEHOLDER; `python -m observability.generate` writes the address into
the rules that a Prometheus without an operator reads, and into the rules' unit tests.
"""

import re
from pathlib import Path

# Alert managers and chat messages link to the full address, so that a relative path would lead nowhere. The project has
# no published documentation: this name is reserved for examples (RFC 2606).
PLACEHOLDER = "docs.example.com"
COMPONENT = Path(__file__).parents[1] / "k8s" / "components" / "scraping" / "kustomization.yaml"
_ADDRESS = re.compile(r"^ +- address=(\S+)$", re.MULTILINE)
_URL = re.compile(r"\brunbook_url: \S*?/runbook\.md#(\w+)")


def address() -> str:
    """Where people read docs/, without "https://"."""
    [found] = _ADDRESS.findall(COMPONENT.read_text(encoding="utf-8"))
    return str(found)


def url(anchor: str, at: str) -> str:
    """The address of a section of the runbook, such as "marketgatewaydown", in the documentation `at`."""
    return f"https://{at}/runbook.md#{anchor}"


def filled(text: str, at: str) -> str:
    """The text of a YAML file with the documentation's address `at` in each `runbook_url`."""
    return _URL.sub(lambda found: f"runbook_url: {url(found[1], at)}", text)

"""The rules pass Prometheus's tools, match the code's limits and link to the runbook."""

import functools
import re
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
import yaml

import gateway.metrics
from edge.config import Config as EdgeConfig
from gateway.config import Config as GatewayConfig
from inference.calls.answers import NOMINAL_COVERAGE
from inference.config import Config as InferenceConfig
from market_inference.contract import errors
from observability import generate, runbook

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "observability" / "rules").glob("*.yml"))
UNIT_TESTS = sorted((Path(__file__).parent / "rules").glob("*.test.yml"))
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)"
)


GROUPS = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}


@functools.cache
def fired() -> set[str]:
    """The alerts that fire in a unit test."""
    tests = [test for file in UNIT_TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    return {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=250
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_accepts_the_rules():
    promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    promtool("check", "config", "--lint=all", "--lint-fatal", ROOT / "observability" / "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_the_unit_tests_of_the_alerts_pass(file):
    promtool("test", "rules", file)


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_fires_in_a_unit_test(name):
    assert name in fired()


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_severity_and_links_to_a_section_of_the_runbook(name):
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == runbook.url(name.lower(), runbook.address())
    headings = re.findall(r"^## (\S+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert name in headings


def test_another_address_of_the_documentation_reaches_every_alert(monkeypatch, tmp_path):
    """The PrometheusRule keeps the placeholder: kustomize replaces it, tests/k8s/."""
    moved = tmp_path / "kustomization.yaml"
    text = runbook.COMPONENT.read_text(encoding="utf-8")
    moved.write_text(text.replace(f"address={runbook.address()}", "address=wiki.desk.example/inference"))
    monkeypatch.setattr(runbook, "COMPONENT", moved)
    found = {path.name: text for path, text in generate.files().items() if "runbook_url: " in text}
    assert found.keys() == {"prometheus-rule.yaml", *(file.name for file in (*RULES, *UNIT_TESTS))}
    for name, text in found.items():
        at = runbook.PLACEHOLDER if name == "prometheus-rule.yaml" else "wiki.desk.example/inference"
        urls = re.findall(r"runbook_url: (\S+)", text)
        assert all(url.startswith(f"https://{at}/runbook.md#market") for url in urls)


def test_the_runbook_has_no_section_for_a_removed_alert():
    headings = re.findall(r"^## (Market\S+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


def test_the_coverage_alert_uses_the_checked_interval():
    assert f"- {NOMINAL_COVERAGE:g}\n" in ALERTS["MarketCoverageOff"]["expr"]
    assert f"the {NOMINAL_COVERAGE:.0%} intervals" in ALERTS["MarketCoverageOff"]["annotations"]["description"]


def test_the_latency_objective_is_a_bound_of_the_histogram():
    text = (ROOT / "observability/rules/slo.yml").read_text()
    bounds = {f"{float(bound)}" for bound in gateway.metrics.Metrics().seconds.bounds}
    assert set(re.findall(r'le="([^"]+)"', text)) <= bounds


def test_codes_and_reasons_in_the_rules_exist_in_the_services():
    text = "".join(file.read_text() for file in RULES)
    codes = {code for found in re.findall(r'code=~?"([^"]+)"', text) for code in found.split("|")}
    reasons = {reason for found in re.findall(r'reason=~?"([^"]+)"', text) for reason in found.split("|")}
    assert codes <= {code.name for code in grpc.StatusCode}
    assert reasons <= {
        error.reason for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "reason")
    }
    assert codes
    assert reasons


def test_the_local_configuration_scrapes_the_services_default_addresses():
    jobs = yaml.safe_load((ROOT / "observability/prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs}
    assert targets == {
        "gateway": [GatewayConfig.model_fields["metrics_listen"].default],
        "inference": [InferenceConfig.model_fields["metrics_listen"].default],
        "edge": [EdgeConfig.model_fields["metrics_listen"].default],
    }

"""Each refusal before a launch, with its reason."""

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.http_thread import running
from tests.training.plane.conftest import NOW
from training.plane import budget, preflight
from training.plane.config import Config
from training.plane.database import Database
from training.plane.errors import UnavailableError
from training.plane.launcher import LauncherAwayError, Offer, Wanted, fitting
from training.plane.preflight import PreflightError, Question, Report
from training.recipes import recipe

IMAGE = f"r/i@sha256:{'0' * 64}"
OFFERS = [Offer("L4", 0.4), Offer("H100", 3.0)]


class Offering:
    """A launcher's offers, and nothing else."""

    def __init__(self, offers: list[Offer] = OFFERS) -> None:
        self._offers = offers

    def offers(self, wanted: Wanted) -> list[Offer]:
        return fitting(self._offers, wanted)


class Away:
    def offers(self, wanted: Wanted) -> list[Offer]:
        raise LauncherAwayError("no answer", 7.0)


@pytest.fixture
def health() -> Iterator[str]:
    """The address of a plane that answers on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health" else 404)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def run(
    store: Database, text: str = "{kind: sentiment}", launcher: Any = None, name: str = "process", **config: Any
) -> Report:
    asked = recipe.parse(text.encode())
    machine = asked.machine
    wanted = Wanted(machine.gpus, machine.count, machine.memory_gb, machine.max_usd_per_hour)
    question = Question("desk", asked, wanted, 1000, name)
    return preflight.run(Config(**{"image": IMAGE, **config}), store, launcher or Offering(), question, NOW)


def refusal(report: Report) -> str:
    [failed] = [check for check in report.checks if not check.passed]
    return f"{failed.field}: {failed.text}"


def test_a_job_that_can_run_passes_with_its_costs(store: Database, health: str) -> None:
    report = run(store, name="runpod", public_url=health, runpod_api="http://127.0.0.1:1")
    assert report.passed, report.checks
    cheap, dear = report.estimates
    assert (cheap.kind, cheap.basis) == ("L4", "guess")
    assert cheap.usd_most == pytest.approx(0.4 * (900 + 3600) / 3600)
    assert 0 < cheap.usd_expected <= cheap.usd_most < dear.usd_most
    report.require()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "{kind: sentiment, machine: {gpus: [B200]}}",
            "recipe.machine: no machine is offered now with 1 GPU(s), one of B200",
        ),
        ("{kind: sentiment, machine: {max_usd_per_hour: 0.1}}", "at most 0.1 USD an hour"),
        ("{kind: classifier, base: /nowhere}", "recipe.base: '/nowhere' is no hub id, and no folder with a model in"),
        ("{kind: classifier, base: ../beside}", "recipe.base: '../beside' is no hub id, and no folder with a model in"),
        (
            "{kind: sentiment, max_seconds: 900000}",
            "budget: at most 100.10 USD, and 50.00 of 50.00 USD are left in 2027-01",
        ),
    ],
)
def test_refusals_of_what_was_asked(store: Database, text: str, said: str) -> None:
    report = run(store, text)
    assert said in refusal(report)
    with pytest.raises(PreflightError) as error:
        report.require()
    assert error.value.violations[0].field in said or said in str(error.value)


def test_a_reserved_dollar_is_not_left(store: Database) -> None:
    with store.begin() as connection:
        assert budget.reserve(connection, "desk", "J", 1, 49.9, NOW, 50.0)
    assert "0.10 of 50.00 USD are left" in refusal(run(store))
    assert run(store, "{kind: sentiment, max_usd: 0.09}").passed


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"public_url": "http://127.0.0.1:8475"}, "is a loopback address (127.0.0.1)"),
        ({"public_url": "https://10.1.2.3"}, "is a private address (10.1.2.3)"),
        ({"public_url": "https://[fd00::1]"}, "is a private address (fd00::1)"),
        ({"public_url": "https://no-such-host.invalid"}, "the host has no address"),
        ({"public_url": f"https://{'a' * 64}.invalid"}, "the host has no address"),
        ({"public_url": "http://8.8.8.8"}, "rented machines send tokens, which need https"),
    ],
)
def test_an_address_that_rented_machines_cannot_use_is_refused(
    store: Database, config: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def without_name_server(host: str, *more: Any, **options: Any) -> Any:
        if host == "no-such-host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", without_name_server)
    assert said in refusal(run(store, name="runpod", **config))


def test_an_address_that_does_not_answer_is_refused(store: Database) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert "does not answer" in refusal(run(store, name="kubernetes", public_url=url))


@pytest.mark.parametrize("image", ["", "r/i:latest", "r/i@sha256:12"])
def test_an_image_without_a_digest_is_refused(store: Database, health: str, image: str) -> None:
    report = run(store, name="kubernetes", public_url=health, image=image)
    assert "name the image by digest" in refusal(report)


@pytest.mark.parametrize(
    ("base", "said"),
    [("base: /models/finbert", "no folders of this computer"), ("base: ProsusAI/finbert", "name the hub's commit")],
)
def test_a_base_model_that_a_rented_machine_cannot_have_is_refused(
    store: Database, health: str, base: str, said: str
) -> None:
    report = run(store, f"{{kind: classifier, {base}}}", name="kubernetes", public_url=health)
    assert said in refusal(report)


def test_a_folder_of_this_computer_is_known_here(store: Database, tmp_path: Path) -> None:
    (tmp_path / "bases" / "finbert").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "bases" / "link").symlink_to(tmp_path / "other")
    (tmp_path / "bases" / "self").symlink_to("self")
    bases = f"/nowhere, {tmp_path}/bases"

    def said(base: str, bases: str = bases) -> str:
        checks = run(store, f"{{kind: classifier, base: {base}}}", bases=bases).checks
        return next(check.text for check in checks if check.field == "recipe.base").replace(base, "BASE")

    assert said(f"{tmp_path}/bases/finbert") == "BASE"
    refusals = {
        said(f"{tmp_path}/bases/{name}") for name in ("none", "link", "self", "../other", "../none", "link/../../other")
    } | {said(base) for base in ("/etc", "/nowhere/x", "/home/other/.ssh")}
    assert len(refusals) == 1, "an answer tells no caller which folders there are"
    assert said(f"{tmp_path}/bases/finbert", bases="") in refusals


def test_a_platform_that_is_away_is_no_refusal(store: Database) -> None:
    with pytest.raises(UnavailableError, match="no answer") as error:
        run(store, launcher=Away(), name="runpod")
    assert error.value.retry_after == 7.0

"""Pods of RunPod on loopback: the verbs, the platform's refusals, and the faults of the account's list."""

import json
import time
from collections.abc import Iterator

import pytest

from runtime.remote.runpod import Pod, RunPod
from tests.runpod.platform import KEY, Platform, RefusalError, platform
from tests.runtime.remote.answers import UNKNOWN_FORMS, answering
from training.plane.launcher import (
    AnswerLostError,
    Handle,
    LauncherAwayError,
    LaunchError,
    LaunchImpossibleError,
    Offer,
    OfferRefusedError,
    PodSpec,
    Presence,
    Wanted,
)
from training.plane.launchers.runpod import Container, RunPodLauncher

NAME = "mi-x-job-1"
L4 = Offer("NVIDIA L4", 0.39)
POD = PodSpec({"JOB_TOKEN": "t"}, 3600.0, 3000.0)
CREATE = "POST /v2/pods"


@pytest.fixture
def runpod() -> Iterator[Platform]:
    with platform() as made:
        yield made


@pytest.fixture
def launcher(runpod: Platform) -> RunPodLauncher:
    container = Container("r/i@sha256:0", 40, "cred", ("US-KS-2",))
    return RunPodLauncher(RunPod(KEY, api=runpod.url), "mi-x", container, list_seconds=0.0)


def test_offers_fit_what_is_wanted(launcher: RunPodLauncher, runpod: Platform) -> None:
    assert launcher.offers(Wanted()) == [Offer("NVIDIA RTX A5000", 0.27), L4]
    assert launcher.offers(Wanted(gpus=("NVIDIA L4", "NVIDIA RTX A5000")))[0] == L4
    assert launcher.offers(Wanted(count=2, max_usd_per_hour=0.6)) == [Offer("NVIDIA RTX A5000", 0.54)]
    assert launcher.offers(Wanted(memory_gb=80)) == []
    runpod.gpus["NVIDIA L4"]["availability"] = "NONE"
    assert launcher.offers(Wanted(gpus=("NVIDIA L4",))) == []


def test_a_pod_is_launched_seen_and_stopped_for_good(launcher: RunPodLauncher, runpod: Platform) -> None:
    made = launcher.launch(NAME, L4, POD)
    machine = Handle(NAME, made.id)
    fields = runpod.pods[made.id].fields
    assert (fields["env"], fields["registry"], fields["dataCenterIds"]) == ({"JOB_TOKEN": "t"}, "cred", ["US-KS-2"])
    seen = launcher.look(machine)
    assert (seen.presence, seen.usd_per_hour, seen.id) == (Presence.RUNNING, 0.39, made.id)
    assert launcher.mine() == [machine]
    for _ in range(2):  # what is gone is no error
        launcher.stop(machine, now=True)
    assert launcher.look(machine).presence is Presence.ABSENT


def test_a_pod_whose_answer_was_lost_is_found_by_its_name(launcher: RunPodLauncher, runpod: Platform) -> None:
    runpod.lose_answers_to = {CREATE}
    with pytest.raises(AnswerLostError):
        launcher.launch(NAME, L4, POD)
    [pod] = runpod.live(NAME)
    seen = launcher.look(Handle(NAME))
    assert (seen.presence, seen.id) == (Presence.RUNNING, pod.id)
    launcher.stop(Handle(NAME), now=True)
    assert runpod.live() == []


def test_a_pod_that_the_list_lacks_is_seen_by_its_id(launcher: RunPodLauncher, runpod: Platform) -> None:
    runpod.unlisted_seconds = 3600.0
    made = launcher.launch(NAME, L4, POD)
    assert launcher.look(Handle(NAME, made.id)).presence is Presence.RUNNING
    unknown = launcher.look(Handle(NAME))
    assert (unknown.presence, unknown.hidden_seconds) == (Presence.ABSENT, 120.0)


@pytest.mark.parametrize("status", ["EXITED", "ERROR"])
def test_a_dead_host_leaves_a_pod_that_has_exited(launcher: RunPodLauncher, runpod: Platform, status: str) -> None:
    made = launcher.launch(NAME, L4, POD)
    runpod.pods[made.id].status = status
    assert launcher.look(Handle(NAME, made.id)).presence is Presence.EXITED


class Listing(RunPod):
    """An account whose pods have statuses that the platform's document may get one day."""

    def __init__(self, *pods: Pod) -> None:
        self._pods = list(pods)

    def pods(self) -> list[Pod]:
        return self._pods


def test_a_pod_of_an_unknown_status_is_there_and_a_terminated_one_is_not() -> None:
    api = Listing(Pod("p1", "mi-x-1", "MIGRATING", 0.39), Pod("p2", "mi-x-2", "TERMINATED", 0.0))
    launcher = RunPodLauncher(api, "mi-x", Container("r/i@sha256:0", 40))
    seen = launcher.look(Handle("mi-x-1", "p1"))
    assert (seen.presence, seen.usd_per_hour) == (Presence.RUNNING, 0.39)
    assert launcher.look(Handle("mi-x-2", "p2")).presence is Presence.ABSENT
    assert launcher.mine() == [Handle("mi-x-1", "p1")]


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (RefusalError(400, "no instances"), OfferRefusedError),
        (RefusalError(403, "pool"), OfferRefusedError),
        (RefusalError(402, "balance"), LaunchImpossibleError),
        (RefusalError(422, "schema"), LaunchImpossibleError),
        (RefusalError(503, "later"), AnswerLostError),
    ],
)
def test_refusals_of_a_launch_say_what_may_help(
    launcher: RunPodLauncher, runpod: Platform, refusal: RefusalError, kind: type[LaunchError]
) -> None:
    runpod.refuse[CREATE] = [refusal]
    with pytest.raises(kind, match=refusal.detail):
        launcher.launch(NAME, L4, POD)


def test_a_rate_limit_says_when_to_come_back(launcher: RunPodLauncher, runpod: Platform) -> None:
    limit = RefusalError(429, "slower", {"Retry-After": "17"})
    runpod.refuse = {CREATE: [limit], "GET /v2/pods": [limit]}
    with pytest.raises(LaunchError) as launch:
        launcher.launch(NAME, L4, POD)
    with pytest.raises(LauncherAwayError) as look:
        launcher.look(Handle(NAME))
    assert (launch.value.retry_after, look.value.retry_after) == (17.0, 17.0)


def test_many_looks_are_one_request(runpod: Platform) -> None:
    container = Container("r/i@sha256:0", 40)
    launcher = RunPodLauncher(RunPod(KEY, api=runpod.url), "mi-x", container, list_seconds=3600.0)
    machines = [Handle(f"mi-x-{n}", launcher.launch(f"mi-x-{n}", L4, POD).id) for n in range(3)]
    for machine in machines * 5:
        assert launcher.look(machine).presence is Presence.RUNNING
    assert runpod.calls.count("GET /v2/pods") == 1


def test_a_bill_is_the_platforms(launcher: RunPodLauncher, runpod: Platform) -> None:
    made = launcher.launch(NAME, L4, POD)
    runpod.pods[made.id].began -= 1800
    launcher.stop(Handle(NAME, made.id), now=True)
    now = time.time()
    assert launcher.bill(Handle(NAME, made.id), now - 3600, now) == pytest.approx(0.195, rel=0.02)
    assert launcher.bill(Handle(NAME), now - 3600, now) is None


def launcher_at(url: str) -> RunPodLauncher:
    return RunPodLauncher(RunPod(KEY, api=url), "mi-x", Container("r/i@sha256:0", 40), list_seconds=0.0)


@pytest.mark.parametrize("body", UNKNOWN_FORMS.values(), ids=UNKNOWN_FORMS)
def test_a_platform_that_answers_in_another_form_is_away(body: bytes) -> None:
    """The reaper goes on with the other platforms, and a launch looks for the pod before it makes another one."""
    machine = Handle(NAME, "id")
    with answering(body) as server:
        launcher = launcher_at(server.url)
        for ask in (
            lambda: launcher.offers(Wanted()),
            launcher.mine,
            lambda: launcher.look(machine),
            lambda: launcher.bill(machine, 0.0, 1.0),
        ):
            with pytest.raises(LauncherAwayError):
                ask()
        with pytest.raises(AnswerLostError):
            launcher.launch(NAME, L4, POD)


@pytest.mark.parametrize("amount", ["1e999", '"nan"', '"inf"', "-1000", "null", "true", "[]"])
def test_an_amount_that_is_no_money_never_reaches_the_accounts(amount: str) -> None:
    bill = f'{{"records": [{{"podId": "id", "totalAmount": {amount}}}]}}'
    with answering(bill.encode()) as server, pytest.raises(LauncherAwayError, match="another form"):
        launcher_at(server.url).bill(Handle(NAME, "id"), 0.0, 1.0)
    pod = f'{{"id": "id", "name": "{NAME}", "status": "RUNNING", "cost": {amount}}}'
    with answering(pod.encode()) as server, pytest.raises(AnswerLostError):
        launcher_at(server.url).launch(NAME, L4, POD)
    with answering(f'{{"pods": [{pod}]}}'.encode()) as server, pytest.raises(LauncherAwayError):
        launcher_at(server.url).look(Handle(NAME, "id"))


@pytest.mark.parametrize(
    ("amounts", "billed"), [([0.5, -0.2, 0.25], 0.55), ([0.3, -0.1, -0.2], 0.0), ([-0.25, 0.25], 0.0)]
)
def test_a_credit_lowers_the_bill(amounts: list[float], billed: float) -> None:
    records = [{"podId": "id", "totalAmount": one} for one in amounts] + [{"podId": "other", "totalAmount": -9}]
    with answering(json.dumps({"records": records}).encode()) as server:
        assert launcher_at(server.url).bill(Handle(NAME, "id"), 0.0, 1.0) == pytest.approx(billed, abs=1e-12)


@pytest.mark.parametrize("amounts", [[0.5, -0.75], [1e308, 1e308], [-1.0, 1e999]])
def test_credits_above_the_charges_are_no_bill(amounts: list[float]) -> None:
    """Such a bill would add to the owner's budget."""
    records = [{"podId": "id", "totalAmount": one} for one in amounts]
    content = json.dumps({"records": records}).replace("Infinity", "1e999").encode()
    with answering(content) as server, pytest.raises(LauncherAwayError, match="another form"):
        launcher_at(server.url).bill(Handle(NAME, "id"), 0.0, 1.0)


def test_a_list_of_pods_without_an_end_is_given_up() -> None:
    with answering(b'{"pods": [], "next": "again"}') as server, pytest.raises(LauncherAwayError, match="pages"):
        launcher_at(server.url).mine()

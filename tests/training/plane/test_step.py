"""The pure decision, row by row, and its promises over random histories."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from training.plane import step as steps
from training.plane.job import FINAL, LOSSES, Attempt, AttemptState, Cause, Job, JobState
from training.plane.launcher import ANY, Presence, Seen
from training.plane.step import Bury, Create, Finish, Mark, Move, Request, Retry, Stop, Wait, step

NOW = 1_000_000.0
ABSENT, RUNNING = Seen(Presence.ABSENT), Seen(Presence.RUNNING)


def job(**changes: object) -> Job:
    values = {
        "id": "J", "owner": "desk", "state": JobState.RUNNING, "dataset_state": "ready", "dataset_reason": "",
        "attempt": 1, "failures": 0, "losses": 0, "max_attempts": 2, "max_seconds": 3600.0, "seconds_used": 0.0,
        "cancel_asked_at": None, "finished": False, "failed_step": -1, "launcher": "process", "wanted": ANY,
        "created_at": NOW - 200, "waits": 0, "max_usd": None,
    }  # fmt: skip
    return Job(**{**values, **changes})


def attempt(**changes: object) -> Attempt:
    values = {
        "job": "J", "n": 1, "name": "mi-j-1", "state": AttemptState.RUNNING, "requested_at": NOW - 100,
        "created_at": NOW - 99, "running_at": NOW - 90, "heartbeat_at": NOW - 5, "deadline": NOW + 3600,
        "stop_at": None, "ended_at": None, "starts": 1, "step": 0, "exit_code": None, "cause": Cause.NONE,
        "launcher": "process", "handle": "", "offer": "", "asked_at": None, "why": "", "usd_per_hour": 0.5,
        "unanswered_at": None, "usd_reserved": 1.0, "usd_doubted": 0.0,
    }  # fmt: skip
    return Attempt(**{**values, **changes})


REQUESTED = attempt(state=AttemptState.REQUESTED, created_at=None, running_at=None, heartbeat_at=None, starts=0)
STARTING = replace(REQUESTED, state=AttemptState.PROVISIONING, created_at=NOW - 99)
ASKED = replace(REQUESTED, asked_at=NOW - 1)
HIDDEN = Seen(Presence.ABSENT, hidden_seconds=120.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (job(state=JobState.VALIDATING, attempt=0), Move(JobState.QUEUED)),
        (job(state=JobState.VALIDATING, dataset_state="checking"), Wait(steps.POLL_SECONDS)),
        (
            job(state=JobState.VALIDATING, dataset_state="refused", dataset_reason="row 3: no label"),
            Finish(JobState.REFUSED, "the dataset is refused: row 3: no label"),
        ),
        (
            job(state=JobState.VALIDATING, dataset_reason="sentiment takes the labels 0 to 2, and the dataset has 5"),
            Finish(JobState.REFUSED, "sentiment takes the labels 0 to 2, and the dataset has 5"),
        ),
        (job(state=JobState.QUEUED, attempt=0), Request()),
        (
            job(state=JobState.QUEUED, attempt=0, cancel_asked_at=NOW),
            Finish(JobState.CANCELLED, "cancelled before the start"),
        ),
        *((job(state=state, cancel_asked_at=NOW), Wait(None)) for state in FINAL),
    ],
)
def test_a_job_without_a_machine(given: Job, expected: object) -> None:
    assert step(given, None, ABSENT, NOW) == expected


@pytest.mark.parametrize(
    ("tried", "seen", "expected"),
    [
        (REQUESTED, ABSENT, Create()),
        (replace(REQUESTED, requested_at=NOW - 121), ABSENT, Stop(Cause.CAPACITY)),
        (replace(REQUESTED, stop_at=NOW, cause=Cause.CAPACITY), ABSENT, Bury(Cause.CAPACITY, None)),
        (REQUESTED, RUNNING, Mark(AttemptState.PROVISIONING, JobState.STARTING)),
        (STARTING, RUNNING, Mark(AttemptState.PROVISIONING, JobState.STARTING)),
        (replace(STARTING, created_at=NOW - 901), RUNNING, Stop(Cause.NO_START)),
        (attempt(), RUNNING, Wait(steps.POLL_SECONDS)),
        (attempt(), Seen(Presence.RUNNING, usd_per_hour=0.5), Wait(steps.POLL_SECONDS)),
        (attempt(), Seen(Presence.RUNNING, usd_per_hour=0.51), Stop(Cause.PRICE)),
        (STARTING, Seen(Presence.PROVISIONING, usd_per_hour=0.9), Stop(Cause.PRICE)),
        (ASKED, HIDDEN, Wait(steps.POLL_SECONDS)),
        (replace(ASKED, stop_at=NOW, cause=Cause.CANCELLED), HIDDEN, Wait(steps.POLL_SECONDS)),
        (replace(ASKED, asked_at=NOW - 121), HIDDEN, Create()),
        (replace(ASKED, asked_at=NOW - 121, requested_at=NOW - 361), HIDDEN, Stop(Cause.CAPACITY)),
        (replace(STARTING, asked_at=NOW - 1, handle="p1"), HIDDEN, Wait(steps.POLL_SECONDS)),
        (
            replace(STARTING, asked_at=NOW - 1, handle="p1", stop_at=NOW, cause=Cause.PRICE),
            HIDDEN,
            Bury(Cause.PRICE, None),
        ),
        (attempt(asked_at=NOW - 1, handle="p1"), HIDDEN, Bury(Cause.LOST, None)),
        (replace(ASKED, running_at=NOW, starts=1), HIDDEN, Wait(steps.POLL_SECONDS)),
        (attempt(asked_at=NOW - 300, heartbeat_at=NOW - 119), HIDDEN, Wait(steps.POLL_SECONDS)),
        (attempt(asked_at=NOW - 300, heartbeat_at=NOW - 121), HIDDEN, Bury(Cause.LOST, None)),
        (attempt(asked_at=NOW - 300, heartbeat_at=NOW - 1, handle="p1"), HIDDEN, Bury(Cause.LOST, None)),
        (replace(ASKED, running_at=NOW, ended_at=NOW, starts=1, exit_code=0), HIDDEN, Bury(Cause.NONE, 0)),
        (attempt(heartbeat_at=NOW - 601), RUNNING, Stop(Cause.SILENT)),
        (attempt(heartbeat_at=NOW - 200), ABSENT, Bury(Cause.LOST, None)),
        (attempt(), Seen(Presence.EXITED), Bury(Cause.LOST, None)),
        (attempt(), Seen(Presence.EXITED, 0), Bury(Cause.LOST, 0)),
        (attempt(starts=2), RUNNING, Stop(Cause.CRASH_LOOP)),
        (attempt(deadline=NOW - 1), RUNNING, Stop(Cause.DEADLINE)),
        (attempt(ended_at=NOW - 1, exit_code=0), RUNNING, Mark(AttemptState.ENDED, JobState.FINISHING)),
        (attempt(ended_at=NOW - 61, exit_code=1), RUNNING, Stop(Cause.RECIPE)),
        (attempt(ended_at=NOW - 61, exit_code=0), RUNNING, Stop(Cause.LINGERED)),
        (attempt(ended_at=NOW - 2, exit_code=0, deadline=NOW - 1), RUNNING, Stop(Cause.LINGERED)),
        (attempt(ended_at=NOW - 2, exit_code=1, deadline=NOW - 1), RUNNING, Stop(Cause.RECIPE)),
        (attempt(ended_at=NOW, exit_code=1), Seen(Presence.EXITED, 1), Bury(Cause.RECIPE, 1)),
        (attempt(ended_at=NOW, exit_code=128), Seen(Presence.EXITED, 128), Bury(Cause.RECIPE, 128)),
        (attempt(ended_at=NOW, exit_code=107), ABSENT, Bury(Cause.DOWNLOAD, 107)),
        (attempt(ended_at=NOW, exit_code=122), ABSENT, Bury(Cause.RECIPE, 122)),
        (attempt(ended_at=NOW, exit_code=65), ABSENT, Bury(Cause.DATA_REFUSED, 65)),
        (attempt(ended_at=NOW, exit_code=77), ABSENT, Bury(Cause.DEADLINE, 77)),
        (attempt(stop_at=NOW - 1, cause=Cause.SILENT), RUNNING, Wait(steps.STOP_POLL_SECONDS)),
        (attempt(stop_at=NOW - 31, cause=Cause.SILENT), RUNNING, Stop(Cause.SILENT, kill=True)),
        (attempt(stop_at=NOW + 9, cause=Cause.SILENT), RUNNING, Stop(Cause.SILENT, kill=True)),
    ],
)
def test_a_job_with_an_attempt(tried: Attempt, seen: Seen, expected: object) -> None:
    assert step(job(), tried, seen, NOW) == expected


@pytest.mark.parametrize(
    ("given", "tried", "expected"),
    [
        (job(finished=True), attempt(exit_code=0), Finish(JobState.SUCCEEDED, "")),
        (job(finished=True, cancel_asked_at=NOW), attempt(exit_code=0), Finish(JobState.SUCCEEDED, "")),
        (job(finished=True), attempt(cause=Cause.LOST), Finish(JobState.SUCCEEDED, "")),
        (job(finished=True), attempt(cause=Cause.LINGERED, exit_code=0), Finish(JobState.SUCCEEDED, "")),
        (
            job(cancel_asked_at=NOW),
            attempt(cause=Cause.CANCELLED, exit_code=76),
            Finish(JobState.CANCELLED, "cancelled"),
        ),
        (
            job(),
            attempt(cause=Cause.DEADLINE),
            Finish(JobState.FAILED, "stopped at the deadline (max_seconds 3600)"),
        ),
        (job(), attempt(cause=Cause.LOST), Retry(0.0, "losses")),
        (job(losses=1), attempt(cause=Cause.LOST), Retry(60.0, "losses")),
        (job(losses=9), attempt(cause=Cause.SILENT), Retry(600.0, "losses")),
        (job(losses=10), attempt(cause=Cause.LOST), Finish(JobState.FAILED, "lost 11 machines, the last one: lost")),
        (job(), attempt(cause=Cause.CAPACITY), Retry(60.0, "waits")),
        (job(waits=9), attempt(cause=Cause.PRICE), Retry(600.0, "waits")),
        (
            job(created_at=NOW - 86_401),
            attempt(cause=Cause.CAPACITY, why="sold out"),
            Finish(JobState.FAILED, "no machine within a day: sold out"),
        ),
        (job(), attempt(cause=Cause.BUDGET), Retry(60.0, "waits")),
        (
            job(),
            attempt(cause=Cause.SPENT, why="2 of 2 USD"),
            Finish(JobState.FAILED, "what is left of max_usd pays for no machine: 2 of 2 USD"),
        ),
        (
            job(),
            attempt(cause=Cause.IMPOSSIBLE, why="no balance"),
            Finish(JobState.FAILED, "the platform refuses to make a machine: no balance"),
        ),
        (job(), attempt(cause=Cause.RECIPE, exit_code=1), Retry(0.0, "failures")),
        (
            job(failures=1),
            attempt(cause=Cause.RECIPE, exit_code=1),
            Finish(JobState.FAILED, "the recipe failed: exit code 1"),
        ),
        (
            job(failures=1, max_attempts=5, failed_step=40),
            attempt(cause=Cause.RECIPE, exit_code=1, step=40),
            Finish(JobState.FAILED, "the recipe failed twice at step 40: exit code 1"),
        ),
        (job(), attempt(exit_code=0), Retry(0.0, "failures")),
    ],
)
def test_a_job_whose_machine_is_gone(given: Job, tried: Attempt, expected: object) -> None:
    assert step(given, replace(tried, state=AttemptState.GONE), ABSENT, NOW) == expected


def test_cancel_waits_for_a_pod_that_runs_and_not_for_one_that_does_not() -> None:
    asked = job(cancel_asked_at=NOW)
    assert step(asked, attempt(), RUNNING, NOW) == Mark(AttemptState.RUNNING, JobState.CANCELLING)
    assert step(asked, attempt(), RUNNING, NOW + 31) == Stop(Cause.CANCELLED)
    assert step(asked, STARTING, RUNNING, NOW) == Stop(Cause.CANCELLED)
    assert step(asked, attempt(deadline=NOW - 1), RUNNING, NOW) == Stop(Cause.CANCELLED)


def test_no_machine_is_made_for_a_job_that_was_cancelled() -> None:
    asked = job(state=JobState.LAUNCHING, cancel_asked_at=NOW)
    assert step(asked, REQUESTED, ABSENT, NOW) == Stop(Cause.CANCELLED)
    assert step(asked, replace(ASKED, asked_at=NOW - 121), HIDDEN, NOW) == Stop(Cause.CANCELLED)
    assert step(asked, ASKED, HIDDEN, NOW) == Wait(steps.POLL_SECONDS)
    assert step(asked, replace(REQUESTED, stop_at=NOW, cause=Cause.CANCELLED), ABSENT, NOW) == Bury(
        Cause.CANCELLED, None
    )


@pytest.mark.parametrize(
    ("changes", "seen", "expected"),
    [
        ({}, RUNNING, Wait(steps.POLL_SECONDS)),
        ({"usd_reserved": 0.5}, RUNNING, Wait(steps.POLL_SECONDS)),
        ({"usd_reserved": 0.499}, RUNNING, Stop(Cause.DEADLINE, kill=True)),
        ({"usd_reserved": 0.6, "usd_doubted": 0.101}, RUNNING, Stop(Cause.DEADLINE, kill=True)),
        ({"usd_reserved": 0.5}, Seen(Presence.RUNNING, usd_per_hour=0.5004), Stop(Cause.DEADLINE, kill=True)),
        ({"unanswered_at": NOW - 7300}, RUNNING, Stop(Cause.DEADLINE, kill=True)),
        ({"usd_reserved": 0.499, "ended_at": NOW - 2, "exit_code": 0}, RUNNING, Stop(Cause.LINGERED, kill=True)),
        ({"usd_reserved": 0.499, "stop_at": NOW - 1, "cause": Cause.SILENT}, RUNNING, Stop(Cause.SILENT, kill=True)),
        ({"usd_reserved": 0.0, "usd_per_hour": 0.0}, RUNNING, Wait(steps.POLL_SECONDS)),
    ],
)
def test_a_machine_that_may_have_cost_what_is_reserved_is_ended_by_force(
    changes: dict[str, object], seen: Seen, expected: object
) -> None:
    """The machine was asked for an hour ago, at 0.5 USD an hour."""
    assert step(job(), attempt(**{"asked_at": NOW - 3600, **changes}), seen, NOW) == expected


def test_a_clock_that_jumps_ahead_for_a_moment_passes_no_deadline() -> None:
    ahead = attempt().deadline + 1
    assert step(job(), attempt(), RUNNING, ahead, steady_since=ahead) == Wait(steps.POLL_SECONDS)
    later = ahead + steps.CLOCK_GRACE_SECONDS + 1
    assert step(job(), attempt(heartbeat_at=later), RUNNING, later, steady_since=ahead) == Stop(Cause.DEADLINE)


def test_a_clock_that_jumps_ahead_makes_no_pod_silent() -> None:
    later = NOW + 3000
    assert step(job(), attempt(), RUNNING, later) == Stop(Cause.SILENT)
    assert step(job(), attempt(), RUNNING, later, steady_since=later) == Wait(steps.POLL_SECONDS)


@dataclass
class World:
    """One job, its machine, and what a store would hold."""

    job: Job
    attempt: Attempt | None = None
    machine: bool = False
    exit_code: int | None = None
    made: int = 0


class Histories(RuleBasedStateMachine):
    """Random pods, losses, cancels and time against step(), with a machine that does what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.world = World(job(state=JobState.VALIDATING, attempt=0))
        self.was_final = False

    @rule(seconds=st.sampled_from([1.0, 31.0, 130.0, 700.0]))
    def look(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(20):
            world = self.world
            action = step(world.job, world.attempt, self.seen(), self.now)
            if not self.do(action):
                return
        raise AssertionError(f"no end: {action}")

    def seen(self) -> Seen:
        world = self.world
        if world.machine:
            return RUNNING
        known = world.attempt is not None and world.attempt.created_at is not None
        return Seen(Presence.EXITED, world.exit_code) if known else ABSENT

    def do(self, action: object) -> bool:
        world, now = self.world, self.now
        match action:
            case Wait():
                return False
            case Move(state):
                world.job = replace(world.job, state=state)
            case Request():
                assert not world.machine, "a second machine for one job"
                n = world.job.attempt + 1
                world.job = replace(world.job, attempt=n, state=JobState.LAUNCHING)
                world.attempt = replace(REQUESTED, n=n, requested_at=now, deadline=now + 4500)
                world.exit_code = None
            case Create():
                assert not world.machine
                world.machine, world.made = True, world.made + 1
            case Mark(of_attempt, of_job):
                kept = world.attempt.created_at or now
                world.attempt = replace(world.attempt, state=of_attempt, created_at=kept)
                world.job = replace(world.job, state=of_job)
            case Stop(cause, kill):
                if world.attempt.stop_at is None:
                    world.attempt = replace(world.attempt, stop_at=now, cause=world.attempt.cause or cause)
                if kill:
                    world.machine = False
                return False
            case Bury(cause, exit_code):
                assert not world.machine, "buried alive"
                used = world.job.seconds_used + now - (world.attempt.created_at or now)
                world.attempt = replace(world.attempt, state=AttemptState.GONE, cause=cause, exit_code=exit_code)
                world.job = replace(world.job, seconds_used=used)
            case Retry(seconds, counted):
                number = {counted: getattr(world.job, counted) + 1}
                world.job = replace(world.job, state=JobState.QUEUED, **number)
                self.now += seconds
            case Finish(state, _):
                assert not world.machine, "final while a machine lives"
                world.job = replace(world.job, state=state)
        return True

    @precondition(lambda self: self.world.machine and self.world.attempt.running_at is None)
    @rule()
    def pod_starts(self) -> None:
        self.world.attempt = replace(
            self.world.attempt, running_at=self.now, heartbeat_at=self.now, starts=self.world.attempt.starts + 1
        )

    @precondition(lambda self: self.world.machine and self.world.attempt.running_at is not None)
    @rule()
    def pod_reports(self) -> None:
        self.world.attempt = replace(self.world.attempt, heartbeat_at=self.now, step=self.world.attempt.step + 1)

    @precondition(lambda self: self.world.machine and self.world.attempt.running_at is not None)
    @rule(code=st.sampled_from([0, 1, 65, 76, 77, 107, 137]))
    def pod_ends(self, code: int) -> None:
        self.world.machine, self.world.exit_code = False, code
        self.world.attempt = replace(self.world.attempt, ended_at=self.now, exit_code=code)
        if code == 0:
            self.world.job = replace(self.world.job, finished=True)

    @precondition(lambda self: self.world.machine and self.world.attempt.running_at is not None)
    @rule()
    def container_restarts(self) -> None:
        self.world.attempt = replace(self.world.attempt, starts=self.world.attempt.starts + 1)

    @precondition(lambda self: self.world.machine)
    @rule()
    def host_dies(self) -> None:
        self.world.machine, self.world.exit_code = False, None

    @precondition(lambda self: self.world.job.cancel_asked_at is None)
    @rule()
    def user_cancels(self) -> None:
        self.world.job = replace(self.world.job, cancel_asked_at=self.now)

    @invariant()
    def no_way_out_of_a_final_state(self) -> None:
        assert not self.was_final or self.world.job.state in FINAL
        self.was_final = self.world.job.state in FINAL

    @invariant()
    def machines_are_bounded(self) -> None:
        assert self.world.made <= steps.MOST_LOSSES + self.world.job.max_attempts + 1

    def teardown(self) -> None:
        """Left alone, every job ends."""
        for _ in range(400):
            self.look(700.0)
            if self.world.job.state in FINAL:
                return
        raise AssertionError(f"the job never ends: {self.world}")


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30)


def test_losses_are_causes_that_are_not_the_recipes() -> None:
    assert Cause.RECIPE not in LOSSES
    assert Cause.DEADLINE not in LOSSES

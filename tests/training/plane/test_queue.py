"""Which queued job gets the next machine, and which one gets none, on both databases."""

from collections.abc import Callable

from sqlalchemy import insert, select, update

from tests.training.plane.conftest import NOW
from training.plane import jobs
from training.plane.database import Database
from training.plane.job import AttemptState, JobState
from training.plane.launcher import Presence, Seen
from training.plane.schema import attempts, datasets
from training.plane.schema import jobs as table
from training.plane.step import Finish, Move, Wait, step


def woken(store: Database) -> tuple[str, str]:
    """The job that the end of a machine makes due, and the job's owner."""
    with store.begin() as connection:
        connection.execute(update(table).values(due_at=NOW + 30))
        jobs.poke_queued(connection)
        [found] = connection.execute(select(table.c.id, table.c.owner).where(table.c.due_at == 0.0)).all()
    return found.id, found.owner


def give_machine(store: Database, job: str, at: float, state: AttemptState = AttemptState.RUNNING) -> None:
    row = {"job": job, "n": 1, "name": job, "state": state, "requested_at": at, "deadline": at, "starts": 0, "step": 0}
    with store.begin() as connection:
        connection.execute(insert(attempts).values(**row))
        connection.execute(update(table).where(table.c.id == job).values(state=JobState.RUNNING))


def queue(store: Database, add_job: Callable[..., str], *owners: str) -> list[str]:
    """Ids in the order of `owners`: those of one millisecond would sort by chance."""
    made = [f"{place:026d}" for place in range(len(owners))]
    for named, owner in zip(made, owners, strict=True):
        job = add_job(owner=owner)
        with store.begin() as connection:
            connection.execute(update(table).where(table.c.id == job).values(id=named, state=JobState.QUEUED))
    return made


def test_of_one_machine_owners_take_turns(store: Database, add_job: Callable[..., str]) -> None:
    made = queue(store, add_job, "tina", "tina", "tina", "tina", "tom", "tom", "ann")
    order = []
    for turn in range(len(made)):
        job, owner = woken(store)
        order.append((owner, made.index(job)))
        give_machine(store, job, NOW + turn, AttemptState.GONE)
    assert order == [("tina", 0), ("tom", 4), ("ann", 6), ("tina", 1), ("tom", 5), ("tina", 2), ("tina", 3)]


def test_of_several_machines_the_owner_with_the_fewest_gets_the_next(
    store: Database, add_job: Callable[..., str]
) -> None:
    """The owner with fewer machines got the last one later."""
    made = queue(store, add_job, "tina", "tina", "tina", "tom", "tom", "tom")
    for job, at in ((made[0], NOW), (made[1], NOW + 1), (made[3], NOW + 2)):
        give_machine(store, job, at)
    assert woken(store) == (made[4], "tom")
    give_machine(store, made[4], NOW + 3)
    assert woken(store) == (made[2], "tina")


def test_without_a_queued_job_none_is_woken(store: Database, add_job: Callable[..., str]) -> None:
    give_machine(store, add_job(), NOW)
    with store.begin() as connection:
        before = connection.execute(select(table)).all()
        jobs.poke_queued(connection)
        assert connection.execute(select(table)).all() == before


def test_a_job_made_before_its_dataset_was_checked_is_refused_for_labels(
    store: Database, add_job: Callable[..., str]
) -> None:
    job = add_job("checking")

    def next_action(**checked: object) -> object:
        with store.begin() as connection:
            connection.execute(update(datasets).values(**checked))
            return step(*jobs.read(connection, job), Seen(Presence.ABSENT), NOW)

    assert isinstance(next_action(state="checking"), Wait)
    for report in ({"labels": {"0": 20, "2": 20}}, {"symbols": 3}, None):
        assert next_action(state="ready", report=report) == Move(JobState.QUEUED)
    why = "sentiment takes the labels 0 to 2, and the dataset has 10"
    assert next_action(report={"labels": {"10": 20, "2": 20}}) == Finish(JobState.REFUSED, why)

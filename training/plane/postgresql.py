"""Connections to PostgreSQL with a limit of time for every wait.

Owns the limits of time. A server on a lost host, or with a process that hangs, sends nothing, not even the end of
a connection: the client's limit ends the wait and the connection. A working server ends a long statement, a wait for
a lock and a transaction without a statement itself, a little before: a lost plane leaves no lock behind.
"""

from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.pool import ConnectionPoolEntry

from training.plane.schema import document

_CONNECT_SECONDS: Final = 4
# By so much later than the server's limit does the client's limit end a statement.
_GRACE_SECONDS: Final = 1.0
# Both ends notice a lost host, also when neither waits for an answer: a server's slots for connections are few.
_KEEPALIVES: Final = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
_DEFAULTS: Final = {
    **_KEEPALIVES,
    "tcp_user_timeout": 25_000,
    "connect_timeout": _CONNECT_SECONDS,
    # After a failover the former primary may answer as a standby.
    "target_session_attrs": "read-write",
}
_READ_ONLY: Final = "25006"


class _Connection(psycopg.Connection[Any]):
    """A connection that ends when a statement has no answer within `seconds`; None for no limit."""

    seconds: float | None = None

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.seconds if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def engine(url: str, seconds: float | None, **settings: Any) -> Engine:
    """An engine with statements that end within `seconds`, at the server and here; None for no limit.

    Parameters of libpq in the URL take precedence, but for a `statement_timeout` and the like among its `options`.
    """
    made = create_engine(url, json_serializer=document, **settings)
    milliseconds = str(int((seconds or 0.0) * 1000))
    session = {
        "statement_timeout": milliseconds,
        "idle_in_transaction_session_timeout": milliseconds,
        **{f"tcp_{name}": str(value) for name, value in _KEEPALIVES.items()},
    }
    configure = "SELECT " + ", ".join(f"set_config('{name}', '{value}', false)" for name, value in session.items())

    @event.listens_for(made, "do_connect")
    def connect(_: Dialect, __: ConnectionPoolEntry, given: tuple[Any, ...], named: dict[str, Any]) -> _Connection:
        connection = _Connection.connect(*given, **{**_DEFAULTS, "autocommit": True, **named})
        connection.seconds = None if seconds is None else seconds + _GRACE_SECONDS
        try:
            connection.execute(configure)
        except psycopg.Error:
            connection.close()
            raise
        connection.autocommit = False
        return connection

    @event.listens_for(made, "handle_error")
    def drop(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            context.is_disconnect = True

    return made

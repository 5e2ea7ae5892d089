"""Runs the migrations on the connection, and inside the transaction, of database.Database.migrate."""

from alembic import context

import training.plane.model_tables  # noqa: F401 -- adds the tables of models
from training.plane.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

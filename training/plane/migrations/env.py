"""Runs the migrations on the connection, and inside the transaction, of database.Database.migrate."""

from alembic import context

from training.plane.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()

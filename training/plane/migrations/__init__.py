"""Alembic's versions of the schema, applied by database.Database.migrate when a worker starts."""

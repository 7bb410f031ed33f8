"""Alembic's environment: it runs on the connection that contract.migrations hands over, and on nothing else."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()

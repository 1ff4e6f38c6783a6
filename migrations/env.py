"""Alembic's entry: runs the revisions over the connection that ``dreamforge_api.migrate`` names."""

from alembic import context

from dreamforge.db.engine import open_engine
from dreamforge.db.tables import metadata


def run() -> None:
    """Online only: this project never writes migrations out as SQL files."""
    url = context.config.attributes["url"]
    engine = open_engine(url, pool_size=1, statement_timeout_ms=0)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=metadata,
            compare_type=True,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()

"""The registry's side of what happens on disk: straight into PostgreSQL, at once. Loaded only when there is one."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from dreamforge.db import registry
from dreamforge.db.engine import open_engine
from dreamforge.errors import Unavailable
from dreamforge.models import ModelDescriptor
from dreamforge_cli.models.errors import NotAllowed


class Registry:
    """One installation's registry; use as a context manager. Raises ``Unavailable`` when it does not answer."""

    def __init__(self, database_url: str) -> None:
        self._engine: Engine = open_engine(database_url, pool_size=1)

    def put(self, model: ModelDescriptor) -> None:
        """Register a model, or bring its row up to date."""
        with self._connection() as connection:
            connection.execute(registry.UPSERT, registry.upsert_parameters(model))

    def switch(self, model_id: str, enabled: bool) -> bool:
        """Offer a model to jobs, or no more; false when there is no such model."""
        with self._connection() as connection:
            return connection.execute(registry.SET_ENABLED, {"id": model_id, "enabled": enabled}).first() is not None

    @contextmanager
    def without(self, model_id: str, detail: str) -> Iterator[bool]:
        """Take a model out of the registry once the block has taken its files away; whether it was registered.

        Raises :class:`NotAllowed` before the block when jobs use it.
        """
        with self._connection() as connection:
            gone = connection.execute(registry.REMOVE, {"id": model_id, "detail": detail}).first() is not None
            jobs = 0 if gone else int(connection.execute(registry.LIVE_JOBS, {"id": model_id}).scalar_one())
            if jobs:
                what = "1 job that is not over uses it" if jobs == 1 else f"{jobs} jobs that are not over use it"
                raise NotAllowed(
                    f"{model_id}: {what}; wait for the end of it all, or cancel it (dreamforge jobs list)"
                )
            yield gone

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
            raise Unavailable(f"the registry in PostgreSQL does not answer as it should: {reason}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.dispose()

"""A database engine for tests of the worker's halves."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from dreamforge.db.engine import open_engine


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url, pool_size=12)
    yield opened
    opened.dispose()

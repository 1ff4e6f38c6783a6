"""A running stack that a whole session shares; an API of its own, and a way into its database, for each module."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from dreamforge.db.engine import open_engine
from tests import tiny_sdxl
from tests.api_server import Api
from tests.servers.stack import Up
from tests.tiny_sdxl import TinySdxl


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`dreamforge up` with the sketch backend. Tests may kill its children, not the stack itself."""
    up = Up(tmp_path_factory.mktemp("stack") / "data", "--backend", "sketch")
    try:
        yield up.start()
    finally:
        up.end()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, database_url: str, redis_url: str) -> Iterator[Api]:
    with Api(tmp_path_factory.mktemp("api"), database_url, redis_url) as running:
        yield running


@pytest.fixture(scope="module")
def engine(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url, pool_size=12)
    yield made
    made.dispose()


@pytest.fixture(scope="module")
def tiny() -> TinySdxl:
    """The tiny SDXL checkpoint that renders."""
    if missing := tiny_sdxl.missing_library():
        pytest.skip(missing)
    return tiny_sdxl.cached()

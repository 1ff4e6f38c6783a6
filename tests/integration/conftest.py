"""A running stack that a whole session shares."""

from collections.abc import Iterator

import pytest

from tests.servers.stack import Up


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`dreamforge up` with the sketch backend. Tests may kill its children, not the stack itself."""
    up = Up(tmp_path_factory.mktemp("stack") / "data", "--backend", "sketch")
    try:
        yield up.start()
    finally:
        up.end()

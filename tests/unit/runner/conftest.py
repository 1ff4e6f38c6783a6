"""Fixtures of the runner's unit tests."""

from collections.abc import Iterator

import pytest

from tests.unit.runner import events_kit


@pytest.fixture(autouse=True)
def _spools_are_closed() -> Iterator[None]:
    yield
    events_kit.close_spools()

"""One running composition for the tier."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compose import engine, images
from tests.compose.system import Composition


@pytest.fixture(scope="session")
def composition(tmp_path_factory: pytest.TempPathFactory, used: dict[str, str]) -> Iterator[Composition]:
    """Started by `make up`; nothing of it is there afterwards."""
    if reason := engine.missing():
        pytest.skip(reason)
    with engine.running() as found:
        if reason := images.missing(found):
            pytest.skip(reason)
        used["Compose"] = found.name
        made = Composition(found, images.made(found, Path(tmp_path_factory.mktemp("compose"))))
        try:
            made.make("up")
            yield made
        finally:
            made.close()

"""Which model a request means, in every backend mode, on a real registry."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from dreamforge.db.engine import open_async_engine
from dreamforge.errors import ErrorCode
from dreamforge.models import DEFAULT_PROVIDER, EPICREALISM, SKETCH_PROVIDER, BackendMode
from dreamforge_api.database import Database
from dreamforge_api.direct import DirectConnections
from dreamforge_api.models.catalog import Catalog
from dreamforge_api.models.choice import SKETCH_WARNING, Choice
from dreamforge_api.problem import Problem
from tests.servers import postgres


@pytest.fixture
def registry_url(postgres_url: str, database_template: str) -> Iterator[str]:
    """A registry of its own for each test."""
    with postgres.fresh_database(postgres_url, database_template) as url:
        yield url


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    made = tmp_path / "Tiny Model.safetensors"
    made.write_bytes(b"not looked at here")
    return made


def choose(
    url: str,
    mode: BackendMode,
    path: Path | None = None,
    *,
    model_id: str | None = None,
    provider: str = DEFAULT_PROVIDER,
) -> Choice:
    async def ask() -> Choice:
        database = Database(open_async_engine(url), DirectConnections(url, 1))
        try:
            return await Catalog(database, mode, path).choose(model_id, provider)
        finally:
            await database.dispose()

    return asyncio.run(ask())


def test_auto_takes_sketch_with_a_warning_when_there_is_no_checkpoint(registry_url: str) -> None:
    assert choose(registry_url, BackendMode.AUTO) == Choice("sketch", SKETCH_WARNING)
    assert choose(registry_url, BackendMode.AUTO, provider=SKETCH_PROVIDER) == Choice("sketch")


def test_auto_takes_the_configured_checkpoint(registry_url: str, checkpoint: Path) -> None:
    assert choose(registry_url, BackendMode.AUTO, checkpoint) == Choice("sdxl-tiny-model")
    assert choose(registry_url, BackendMode.AUTO) == Choice("sdxl-tiny-model"), "it stays the only one"


def test_the_configured_checkpoint_wins_over_others_and_epicrealism_is_next(
    registry_url: str, checkpoint: Path, tmp_path: Path
) -> None:
    others = [tmp_path / "other.safetensors", tmp_path / "epiCRealismXL_v8.safetensors"]
    for other in others:
        other.write_bytes(b"x")
        choose(registry_url, BackendMode.SDXL, other)
    assert choose(registry_url, BackendMode.SDXL, checkpoint).model_id == "sdxl-tiny-model"
    assert choose(registry_url, BackendMode.SDXL).model_id == EPICREALISM


def test_sketch_mode_takes_sketch_without_a_warning_but_a_named_model_all_the_same(
    registry_url: str, checkpoint: Path
) -> None:
    assert choose(registry_url, BackendMode.SKETCH, checkpoint) == Choice("sketch")
    assert choose(registry_url, BackendMode.SKETCH, model_id="sdxl-tiny-model").model_id == "sdxl-tiny-model"


def test_sdxl_mode_never_falls_back_to_sketch(registry_url: str, tmp_path: Path) -> None:
    with pytest.raises(Problem) as refused:
        choose(registry_url, BackendMode.SDXL, tmp_path / "missing.safetensors")
    assert refused.value.code is ErrorCode.UNKNOWN_MODEL
    assert choose(registry_url, BackendMode.SDXL, model_id="sketch") == Choice("sketch")
    with pytest.raises(Problem, match="installed: sketch"):
        choose(registry_url, BackendMode.SDXL, model_id="sdxl-missing")


def test_a_model_that_was_switched_off_is_not_used(registry_url: str, checkpoint: Path) -> None:
    choose(registry_url, BackendMode.AUTO, checkpoint)
    engine = create_engine(registry_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE models SET enabled = false WHERE id <> 'sketch'"))
    engine.dispose()
    assert choose(registry_url, BackendMode.AUTO).model_id == "sketch"
    with pytest.raises(Problem, match="not enabled"):
        choose(registry_url, BackendMode.AUTO, model_id="sdxl-tiny-model")

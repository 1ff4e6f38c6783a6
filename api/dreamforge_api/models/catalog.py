"""Which model a request means, from a copy of the registry that is at most two seconds old."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import RowMapping

from dreamforge.db import registry
from dreamforge.errors import ErrorCode
from dreamforge.models import (
    SKETCH,
    SKETCH_PROVIDER,
    BackendMode,
    ModelDescriptor,
    ModelKind,
    checkpoint_descriptor,
)
from dreamforge_api.database import Database
from dreamforge_api.problem import Problem

DEFAULT_CHECKPOINT = "sdxl-epicrealism-xl"
_FRESH_SECONDS = 2.0

SKETCH_WARNING = (
    "Rendered by `sketch`, which is not a diffusion model: no SDXL checkpoint is installed. To get SDXL, start with "
    "`dreamforge up --backend sdxl --model FILE` or set DF_GENERATE_MODEL_PATH to a .safetensors file."
)


class Choice(NamedTuple):
    """The model a job gets; ``warning`` when it is not what the client may think."""

    model_id: str
    warning: str | None = None


class Catalog:
    """The registry as requests see it."""

    def __init__(self, database: Database, mode: BackendMode, checkpoint: Path | None) -> None:
        self._database = database
        self._mode = mode
        self._checkpoint = None if checkpoint is None else checkpoint_descriptor(checkpoint)
        self._registered = False
        self._rows: Sequence[RowMapping] = ()
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")

    async def register(self) -> None:
        """Write what this installation can render into the registry; done once."""
        if self._registered:
            return
        own: list[ModelDescriptor] = [SKETCH] if self._checkpoint is None else [SKETCH, self._checkpoint]
        for model in own:
            await self._database.rows(registry.UPSERT, registry.upsert_parameters(model))
        self._registered = True

    async def choose(self, model_id: str | None, provider: str) -> Choice:
        """The model for a request; raises :class:`Problem` when there is none."""
        await self._refresh()
        usable = {row["id"]: row for row in self._rows if row["installed"] and row["enabled"]}
        if model_id is not None:
            if model_id not in usable:
                raise _unknown("No model of this id is installed and enabled", usable)
            return Choice(model_id)
        return self._default(usable, provider)

    def _default(self, usable: dict[str, RowMapping], provider: str) -> Choice:
        if self._mode is BackendMode.SKETCH or provider == SKETCH_PROVIDER:
            return _sketch(usable, None)
        checkpoints = [id_ for id_, row in usable.items() if row["kind"] == ModelKind.SDXL_CHECKPOINT]
        configured = DEFAULT_CHECKPOINT if self._checkpoint is None else self._checkpoint.id
        for preferred in (configured, DEFAULT_CHECKPOINT):
            if preferred in checkpoints:
                return Choice(preferred)
        if len(checkpoints) == 1:
            return Choice(checkpoints[0])
        if self._mode is BackendMode.AUTO:
            return _sketch(usable, SKETCH_WARNING)
        raise _unknown("No default model: name one with model_id", usable)

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at <= _FRESH_SECONDS:
            return
        async with self._reading:  # a burst of requests reads once
            if time.monotonic() - self._read_at <= _FRESH_SECONDS:
                return
            await self.register()
            self._rows = await self._database.rows(registry.listing(enabled_only=False))
            self._read_at = time.monotonic()


def _sketch(usable: dict[str, RowMapping], warning: str | None) -> Choice:
    if SKETCH.id not in usable:
        raise _unknown("The sketch model is switched off", usable)
    return Choice(SKETCH.id, warning)


def _unknown(reason: str, usable: dict[str, RowMapping]) -> Problem:
    ids = sorted(usable)
    detail = {
        "pointer": "/model_id",
        "field": "model_id",
        "rule": "unknown_model",
        "message": f"Must be one of: {', '.join(ids) or 'none is installed'}",
        "got": "string",
        "allowed": ids,
    }
    return Problem(ErrorCode.UNKNOWN_MODEL, f"{reason}; installed: {', '.join(ids) or 'none'}", details=[detail])

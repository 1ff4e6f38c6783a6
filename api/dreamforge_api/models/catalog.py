"""Which model a request means, from a copy of the registry that is at most two seconds old."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import RowMapping

from dreamforge.db import registry
from dreamforge.errors import ErrorCode
from dreamforge.models import SKETCH, BackendMode, ModelDescriptor, checkpoint_descriptor
from dreamforge_api.database import Database
from dreamforge_api.models.choice import Choice, NoModel, choose
from dreamforge_api.problem import Problem

_FRESH_SECONDS = 2.0


class Catalog:
    """The registry as requests see it."""

    def __init__(self, database: Database, mode: BackendMode, checkpoint: Path | None) -> None:
        self._database = database
        self._mode = mode
        self._checkpoint = None if checkpoint is None else checkpoint_descriptor(checkpoint)
        self._registered = False
        self._rows: Sequence[RowMapping] = ()
        #: What was chosen from these rows; as many as there are ids and slugs, for a refusal is not kept.
        self._chosen: dict[tuple[str | None, str], Choice] = {}
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
        asked = time.monotonic()
        await self._refresh(asked - _FRESH_SECONDS)
        try:
            return self._choose(model_id, provider)
        except NoModel:
            await self._refresh(asked)  # no refusal from memory: it may have been installed a moment ago
        try:
            return self._choose(model_id, provider)
        except NoModel as error:
            raise _unknown(error) from None

    def _choose(self, model_id: str | None, provider: str) -> Choice:
        if (known := self._chosen.get((model_id, provider))) is not None:
            return known
        configured = None if self._checkpoint is None else self._checkpoint.id
        return self._chosen.setdefault(
            (model_id, provider), choose(self._rows, model_id, provider, self._mode, configured)
        )

    async def _refresh(self, since: float) -> None:
        """Have the registry as it was then or later."""
        if self._read_at >= since:
            return
        async with self._reading:  # a burst of requests reads once
            if self._read_at >= since:
                return
            await self.register()
            began = time.monotonic()
            self._rows = await self._database.rows(registry.listing(enabled_only=False))
            self._chosen = {}
            self._read_at = began


def _unknown(error: NoModel) -> Problem:
    detail = {
        "pointer": "/model_id",
        "field": "model_id",
        "rule": "unknown_model",
        "message": f"Must be one of: {', '.join(error.usable) or 'none is installed'}",
        "got": "string",
        "allowed": error.usable,
    }
    return Problem(ErrorCode.UNKNOWN_MODEL, str(error), details=[detail])

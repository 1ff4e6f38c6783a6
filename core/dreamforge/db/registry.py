"""Statements on the model registry: what is registered, what became of it, and what still uses it.

The writing ones note in ``model_events`` what changed, in the same statement, and give that note back: no row means
that nothing changed worth telling.
"""

import json
from typing import Any

from sqlalchemy import Select, TextClause, select, text

from dreamforge.db.tables import model_events, models
from dreamforge.forms import parameters_schema
from dreamforge.models import ModelDescriptor


def listing(enabled_only: bool) -> Select[tuple[Any, ...]]:
    """Registered models in the order they were registered."""
    query = select(models).order_by(models.c.ordinal)
    return query.where(models.c.enabled) if enabled_only else query


def by_id(model_id: str) -> Select[tuple[Any, ...]]:
    """One model's row."""
    return select(models).where(models.c.id == model_id)


def history(model_id: str, limit: int = 100) -> Select[tuple[Any, ...]]:
    """What happened to a model, newest first; also of one that was removed."""
    return (
        select(model_events)
        .where(model_events.c.model_id == model_id)
        .order_by(model_events.c.id.desc())
        .limit(limit)
    )


_JSON = ("parameters_schema", "capabilities", "files", "provenance", "presets")
_PLAIN = ("name", "kind", "version", "checkpoint_hash", "source_uri", "local_path", "size_bytes", "installed")
_COLUMNS = (*_PLAIN, "folder", "verified_at", "problem", *_JSON)
_VALUES = ", ".join(f"CAST(:{name} AS jsonb)" if name in _JSON else f":{name}" for name in _COLUMNS)

#: Insert a model, or bring its row up to date; ``updated_at`` moves only when something changed. Whether it is
#: enabled is a person's decision and stays. All else is as the descriptor says: a hash that was known of another
#: file is worse than none. Gives ``kind, detail`` of what happened, if anything did.
UPSERT: TextClause = text(f"""
WITH old AS (SELECT * FROM models WHERE id = :id),
new AS (
  INSERT INTO models AS m (id, enabled, {", ".join(_COLUMNS)}) VALUES (:id, :enabled, {_VALUES})
  ON CONFLICT (id) DO UPDATE SET updated_at = now(), {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS)}
  WHERE ({", ".join(f"m.{name}" for name in _COLUMNS)})
    IS DISTINCT FROM ({", ".join(f"excluded.{name}" for name in _COLUMNS)})
  RETURNING m.*, m.xmax = 0 AS inserted)  -- ``old`` may show a row that was deleted while this one waited
INSERT INTO model_events (model_id, kind, detail)
SELECT new.id, what.kind, what.detail FROM new LEFT JOIN old ON true, LATERAL (VALUES
  (1, NOT new.installed AND (new.inserted OR old.installed OR new.problem IS DISTINCT FROM old.problem),
   'not_installed', COALESCE(new.problem, '')),
  (2, new.inserted OR new.checkpoint_hash IS DISTINCT FROM old.checkpoint_hash, 'registered', new.source_uri),
  (3, new.installed AND NOT old.installed, 'installed', ''),
  (4, new.verified_at > old.verified_at, 'verified', '')) AS what (rank, so, kind, detail)
WHERE what.so ORDER BY what.rank LIMIT 1
RETURNING kind, detail
""")


def upsert_parameters(model: ModelDescriptor) -> dict[str, Any]:
    """Parameters of :data:`UPSERT`."""
    given = model.model_dump(mode="json", include={"id", "enabled", *_COLUMNS} - {"verified_at"})
    given |= {"parameters_schema": parameters_schema(model.presets), "verified_at": model.verified_at}
    return given | {name: None if given[name] is None else json.dumps(given[name]) for name in _JSON}


#: Say that a registered model is (``:installed``) or is not usable, and why; ``:size_bytes`` of its file, if known.
#: Gives ``kind, detail`` when that is news.
SET_INSTALLED: TextClause = text("""
WITH new AS (
  UPDATE models SET installed = :installed, problem = :problem, updated_at = now(),
                    size_bytes = COALESCE(CAST(:size_bytes AS bigint), size_bytes)
  WHERE id = :id AND (installed, problem) IS DISTINCT FROM (:installed, CAST(:problem AS text)) RETURNING *)
INSERT INTO model_events (model_id, kind, detail)
SELECT id, CASE WHEN installed THEN 'installed' ELSE 'not_installed' END, COALESCE(problem, '') FROM new
RETURNING kind, detail
""")


def set_installed_parameters(
    model_id: str, *, installed: bool, problem: str | None = None, size_bytes: int | None = None
) -> dict[str, Any]:
    """Parameters of :data:`SET_INSTALLED`."""
    return {"id": model_id, "installed": installed, "problem": problem, "size_bytes": size_bytes}


#: Switch a model on or off. No row back: there is no such model.
SET_ENABLED: TextClause = text("UPDATE models SET enabled = :enabled, updated_at = now() WHERE id = :id RETURNING id")

#: How many models that are switched on are not usable.
COUNT_NOT_INSTALLED: TextClause = text("SELECT count(*) FROM models WHERE enabled AND NOT installed")

#: How many jobs that are not over use the model.
LIVE_JOBS: TextClause = text("SELECT count(*) FROM jobs WHERE model_id = :id AND status IN ('queued', 'running')")

#: Take a model out of the registry, unless jobs that are not over use it (``:id``, and ``:detail`` for its history).
#: No row back: they do, or there is no such model. Commit after its files are out of the root, or the worker finds
#: them and registers it again.
REMOVE: TextClause = text("""
WITH gone AS (
  DELETE FROM models WHERE id = :id
  AND NOT EXISTS (SELECT 1 FROM jobs WHERE model_id = :id AND status IN ('queued', 'running')) RETURNING id)
INSERT INTO model_events (model_id, kind, detail) SELECT id, 'removed', :detail FROM gone RETURNING kind, detail
""")

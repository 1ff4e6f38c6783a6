"""Statements on the model registry."""

import json

from sqlalchemy import Select, TextClause, select, text

from dreamforge.db.tables import models
from dreamforge.models import ModelDescriptor, parameters_schema


def listing(enabled_only: bool) -> Select[tuple[object, ...]]:
    """Registered models in the order they were registered."""
    query = select(models).order_by(models.c.ordinal)
    return query.where(models.c.enabled) if enabled_only else query


def by_id(model_id: str) -> Select[tuple[object, ...]]:
    """One model's row."""
    return select(models).where(models.c.id == model_id)


#: Insert a model, or bring its row up to date; ``updated_at`` moves only when something changed.
#: Whether it is enabled is a person's decision and stays.
UPSERT: TextClause = text("""
INSERT INTO models AS m (id, name, kind, version, checkpoint_hash, source_uri, local_path, size_bytes, installed,
                         enabled, parameters_schema, capabilities)
VALUES (:id, :name, :kind, :version, :checkpoint_hash, :source_uri, :local_path, :size_bytes, :installed,
        :enabled, CAST(:parameters_schema AS jsonb), CAST(:capabilities AS jsonb))
ON CONFLICT (id) DO UPDATE SET name = excluded.name, kind = excluded.kind, version = excluded.version,
  checkpoint_hash = COALESCE(excluded.checkpoint_hash, m.checkpoint_hash), source_uri = excluded.source_uri,
  local_path = excluded.local_path, size_bytes = excluded.size_bytes, installed = excluded.installed,
  parameters_schema = excluded.parameters_schema,
  capabilities = excluded.capabilities, updated_at = now()
WHERE (m.name, m.kind, m.version, m.source_uri, m.local_path, m.size_bytes, m.installed,
       m.parameters_schema, m.capabilities)
  IS DISTINCT FROM (excluded.name, excluded.kind, excluded.version, excluded.source_uri, excluded.local_path,
       excluded.size_bytes, excluded.installed, excluded.parameters_schema, excluded.capabilities)
""")


_COLUMNS = {"id", "name", "kind", "version", "checkpoint_hash", "source_uri"} | {
    "local_path", "size_bytes", "installed", "enabled",
}  # fmt: skip


def upsert_parameters(model: ModelDescriptor) -> dict[str, object]:
    """Parameters of :data:`UPSERT`."""
    return {
        **model.model_dump(mode="json", include=_COLUMNS),
        "parameters_schema": json.dumps(parameters_schema()),
        "capabilities": json.dumps(model.capabilities),
    }

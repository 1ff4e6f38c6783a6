"""How Postgres runs the hot statements on a database with many jobs: no table may be read from end to end.

A statement is prepared and run as often as a driver's pool would do it, so that Postgres has settled on its own plan
for it, the generic one included. Everything is rolled back.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from benchmarks.hot_paths import Jobs, Statement, all_of
from tests.servers.postgres import plain

#: Tables that grow with what users do; a handful of models may be read from end to end.
GROWING = frozenset({"jobs", "steps", "attempts", "items", "events", "artifacts", "idempotency_keys"})
#: Postgres plans a prepared statement anew five times before it considers one plan for all values.
_RUNS = 7
_WASTE = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


class Plan(NamedTuple):
    """What one statement did."""

    name: str
    #: Growing tables that were read from end to end.
    scanned: list[str]
    #: Rows that were read for nothing: they did not meet a condition the index knows nothing of.
    wasted: int


def plans(url: str) -> list[Plan]:
    """One plan for each hot statement, as it is after some uses."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute("SET timezone = 'UTC'")
        return [_plan(connection, statement) for statement in all_of(_jobs(connection))]


def _jobs(connection: psycopg.Connection) -> Jobs:
    def one(condition: str) -> UUID:
        row = connection.execute(f"SELECT id FROM jobs WHERE {condition} LIMIT 1").fetchone()
        assert row is not None
        found: UUID = row[0]
        return found

    third = "status = 'succeeded' ORDER BY id OFFSET (SELECT count(*) / 3 FROM jobs)"
    return Jobs(
        one("status = 'succeeded' ORDER BY id DESC"),
        one("status = 'running'"),
        one("status = 'queued' ORDER BY id DESC"),
        one(third),
    )


def _plan(connection: psycopg.Connection, statement: Statement) -> Plan:
    text, values = _prepared(statement.query, statement.parameters)
    with connection.transaction(force_rollback=True):
        connection.execute(f"PREPARE hot AS {text}")
        arguments = f"({', '.join(['%s'] * len(values))})" if values else ""
        for _ in range(_RUNS):
            with connection.transaction(force_rollback=True):
                found = psycopg.ClientCursor(connection).execute(
                    f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) EXECUTE hot{arguments}",
                    values,
                )
                row = found.fetchone()
        connection.execute("DEALLOCATE hot")
    assert row is not None
    root = row[0][0]["Plan"]
    scanned = sorted({n["Relation Name"] for n in _nodes(root) if n["Node Type"] == "Seq Scan"} & GROWING)
    wasted = sum(int(n[reason] * n["Actual Loops"]) for n in _nodes(root) for reason in _WASTE if reason in n)
    return Plan(statement.name, scanned, wasted)


def _prepared(query: Executable, given: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The text with ``$1, $2, ...`` and the values in that order."""
    dialect = PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves dialects untyped
    compiled = query.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})  # type: ignore[attr-defined]
    values = {**compiled.params, **given}
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}"

    text = _PLACEHOLDER.sub(number, compiled.string).replace("%%", "%")
    return text, [json.dumps(value) if isinstance(value := values[name], dict) else value for name in names]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)

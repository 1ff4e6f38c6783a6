"""Dead letters of one installation, straight from its Redis and its PostgreSQL.

They are for whoever runs the installation, not for its users: that is why no API call leads here.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from uuid import UUID

import uuid_utils
from sqlalchemy import Engine, TextClause
from sqlalchemy.exc import SQLAlchemyError

from dreamforge.crashpoints import CrashPoint, CrashSettings, arm_from, reach
from dreamforge.db import deadletters as statements
from dreamforge.db.engine import open_engine
from dreamforge.errors import Unavailable
from dreamforge.settings import load
from dreamforge.transport.deadletters import DeadBatches, Fate

_MOST = 1000
_VERDICTS = {
    "committed": "its events are in",
    "refused_terminal": "the job is over already, so it changes nothing",
    "refused_fenced": "a newer attempt has the job, so it changes nothing",
    "refused_unknown_job": "there is no such job any more, so it changes nothing",
}


class DeadLetters:
    """Batches of events by their message id, jobs by their job id (the one with dashes)."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._engine: Engine = open_engine(database_url, pool_size=1)
        self._batches = DeadBatches(redis_url)

    def all(self) -> list[dict[str, Any]]:
        """All of them, at most a thousand of each kind. Raises ``Unavailable``, as all calls do."""
        jobs = [_job(row) for row in self._rows(statements.LIST, limit=_MOST)]
        return jobs + [_batch(batch) for batch in self._batches.list(_MOST)]

    def show(self, letter_id: str) -> dict[str, Any] | None:
        if (job_id := _job_id(letter_id)) is not None:
            rows = self._rows(statements.SHOW, job_id=job_id)
            return _job(rows[0]) if rows else None
        batch = self._batches.get(letter_id)
        return None if batch is None else _batch(batch)

    def requeue(self, letter_id: str, wait_seconds: float) -> dict[str, Any] | None:
        """Try again: a job as a new job, a batch as it is. ``ok`` says whether it was taken."""
        if (job_id := _job_id(letter_id)) is not None:
            new_id = UUID(int=uuid_utils.uuid7().int)
            if not self._rows(statements.REQUEUE, job_id=job_id, new_id=new_id):
                return None
            reach(CrashPoint.DLQ_JOB_MADE)
            self._batches.wake()
            said = {"requeued_as": str(new_id), "ok": True, "answer": f"a new job has its request: {new_id}"}
            return {"id": letter_id, "kind": "job", **said}
        batch = self._batches.get(letter_id)
        done = None if batch is None else self._batches.requeue(batch, wait_seconds)
        if done is None:
            return None
        answer = {
            Fate.TAKEN: f"{done.detail or 'taken'}: {_VERDICTS.get(done.detail, 'ingest took it')}",
            Fate.REFUSED_AGAIN: f"refused again: {done.detail}",
            Fate.WAITING: "on the queue; no worker took it yet, so the letter stays",
        }[done.fate]
        ok = done.fate is not Fate.REFUSED_AGAIN
        return {"id": letter_id, "kind": "batch", "fate": done.fate.value, "ok": ok, "answer": answer}

    def drop(self, letter_id: str) -> bool:
        """Give it up; whether it was there."""
        if (job_id := _job_id(letter_id)) is not None:
            return bool(self._rows(statements.DROP, job_id=job_id))
        return self._batches.drop(letter_id)

    def close(self) -> None:
        self._engine.dispose()
        self._batches.close()

    def _rows(self, statement: TextClause, **parameters: Any) -> list[dict[str, Any]]:
        with _translated(), self._engine.begin() as connection:
            return [dict(row) for row in connection.execute(statement, parameters).mappings()]


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).partition("\n")[0]
        raise Unavailable(f"the database does not answer as it should: {reason}") from error


def _job_id(letter_id: str) -> UUID | None:
    if "-" not in letter_id:
        return None
    try:
        return UUID(letter_id)
    except ValueError:
        return None


def _job(row: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it."""
    more = {"model_id", "count", "completed", "attempt", "created_at", "labels", "correlation_id", "attempts"}
    shown = {
        "id": row["id"],
        "kind": "job",
        "failed_at": row["finished_at"].isoformat(),
        "job_id": row["id"],
        "reason": f"{row['error_code']}: {row['error_message']}",
        **{name: row[name] for name in sorted(more & row.keys())},
    }
    plain: dict[str, Any] = json.loads(json.dumps(shown, default=str))
    return plain


def _batch(batch: Any) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"kind": "batch", **asdict(batch)}, default=str))
    return plain


def open_letters(database_url: str, redis_url: str) -> DeadLetters:
    """What the command line calls; raises ``ConfigurationError`` for a URL that is none."""
    arm_from(load(CrashSettings))
    return DeadLetters(database_url, redis_url)

"""Every promise as a question with one good answer: nothing found.

Asked from outside, when the faults are over: rows, objects, replays, queues, metrics. An answer may settle for a
while (a dead runner's last events come when it lives again), so a question is asked again until its time is up.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import redis

from dreamforge import keys
from tests.e2e.client import TERMINAL, Client, Frame, Interrupted
from tests.faults import leaks
from tests.faults.load import Account, Promised
from tests.faults.stack import Stack

#: Invariant -> rows that break it.
_ROWS = {
    "I1 job not terminal": "SELECT id FROM jobs WHERE status NOT IN ('succeeded', 'failed', 'canceled')",
    "I1 job failed for good": (
        "SELECT id, error_code, error_message FROM jobs WHERE status = 'failed' AND dead_handled_at IS NULL"
    ),
    "I1 canceled, nobody asked": "SELECT id FROM jobs WHERE status = 'canceled' AND cancel_requested_at IS NULL",
    "I2 key without its job": (
        "SELECT key FROM idempotency_keys k LEFT JOIN jobs j ON j.id = k.job_id WHERE j.id IS NULL"
    ),
    "I2 job without its key": (
        "SELECT id FROM jobs WHERE id NOT IN (SELECT job_id FROM idempotency_keys) AND labels ->> 'keyless' IS NULL"
    ),
    "I3 artifact twice": (
        "SELECT job_id, item_index FROM artifacts GROUP BY job_id, step, item_index HAVING count(*) > 1"
    ),
    "I3 artifacts differ from completed": (
        "SELECT id FROM jobs j WHERE completed <> (SELECT count(*) FROM artifacts a WHERE a.job_id = j.id)"
    ),
    "I3 artifact and its events differ": (
        "SELECT id FROM jobs j WHERE (SELECT count(*) FROM artifacts a WHERE a.job_id = j.id)"
        " <> (SELECT count(*) FROM events e WHERE e.job_id = j.id AND e.type = 'artifact')"
    ),
    "I3 item and artifact have other seeds": (
        "SELECT a.job_id FROM artifacts a JOIN items i USING (job_id, step, item_index) WHERE a.seed <> i.seed"
    ),
    "I4 not one terminal event, last": (
        "SELECT id FROM jobs j WHERE finished_at IS NOT NULL AND ARRAY[last_seq] IS DISTINCT FROM"
        " (SELECT array_agg(seq) FROM events e WHERE e.job_id = j.id AND e.type = 'state'"
        "  AND e.payload ->> 'status' IN ('succeeded', 'failed', 'canceled'))"
    ),
    "I4 step and job differ": "SELECT j.id FROM jobs j JOIN steps s ON s.job_id = j.id WHERE s.status <> j.status",
    "I4 open item of an ended job": (
        "SELECT j.id FROM jobs j JOIN items i ON i.job_id = j.id"
        " WHERE j.finished_at IS NOT NULL AND i.status IN ('pending', 'running')"
    ),
    "I5 past its deadline + 120 s": (
        "SELECT id FROM jobs WHERE COALESCE(finished_at, now()) > deadline_at + interval '120 seconds'"
    ),
    "I6 attempt left open": (
        "SELECT j.id FROM jobs j JOIN attempts a ON a.job_id = j.id"
        " WHERE j.finished_at IS NOT NULL AND a.status = 'running'"
    ),
    "I6 attempts misnumbered": (
        "SELECT job_id FROM attempts GROUP BY job_id, step, shard HAVING max(number) <> count(*)"
    ),
    "I7 events with a gap": (
        "SELECT id FROM jobs j WHERE last_seq <> (SELECT count(*) FROM events e WHERE e.job_id = j.id)"
        " OR last_seq <> (SELECT max(seq) FROM events e WHERE e.job_id = j.id)"
    ),
    "I8 attempt without GPU verdict": "SELECT job_id, number, status FROM attempts WHERE gpu IS NULL",
}


@dataclass
class Verdict:
    """What was found, by invariant; and the size of what was looked at."""

    broken: dict[str, list[str]] = field(default_factory=dict)
    jobs: int = 0
    artifacts: int = 0
    events: int = 0
    attempts: int = 0
    #: Images that no row names, of jobs that were canceled or tried twice: the search for orphans removes them.
    strays: int = 0

    @property
    def found(self) -> dict[str, list[str]]:
        """The invariants that do not hold."""
        return {name: what for name, what in self.broken.items() if what}


def judge(stack: Stack, account: Account, settle_seconds: float = 45) -> Verdict:
    """Ask all questions about every job of the system, until all is well or time is up."""
    deadline = time.monotonic() + settle_seconds
    while True:
        verdict = _ask_all(stack, account)
        if not verdict.found or time.monotonic() > deadline:
            verdict.broken["I9 prompt or secret told"] = list(leaks.told(stack, account))  # never settles: asked once
            return verdict
        time.sleep(0.4)


def _ask_all(stack: Stack, account: Account) -> Verdict:
    verdict = Verdict()
    for name, query in _ROWS.items():
        verdict.broken[name] = [str(tuple(row.values())) for row in stack.rows(query)]
    questions: dict[str, Callable[[], Iterable[str]]] = {
        "client saw an error": lambda: account.errors,
        "I1 a 202 without its job": lambda: _lost(stack, account),
        "I5 a client waited in vain": lambda: account.stuck,
        "I3 object missing or other bytes": lambda: _objects(stack, verdict),
        "I7 replay wrong": lambda: _replays(stack, account),
        "dead letters": lambda: _dead_letters(stack),
        "metrics do not answer": lambda: _metrics(stack),
    }
    for name, ask in questions.items():
        verdict.broken[name] = list(ask())
    for table in ("jobs", "artifacts", "events", "attempts"):
        setattr(verdict, table, stack.rows(f"SELECT count(*) AS n FROM {table}")[0]["n"])
    return verdict


def _lost(stack: Stack, account: Account) -> Iterable[str]:
    known = {str(row["job_id"]): row["key"] for row in stack.rows("SELECT job_id, key FROM idempotency_keys")}
    return [job.id for job in account.jobs if known.get(job.id) != job.key]


def _objects(stack: Stack, verdict: Verdict) -> Iterable[str]:
    """Each row has its object with the same bytes, no other image lies there, a whole job has its manifest."""
    named: dict[str, list[dict[str, object]]] = {}
    for row in stack.rows("SELECT job_id, key, sha256 FROM artifacts"):
        named.setdefault(str(row["job_id"]), []).append(row)
    verdict.strays = 0
    for job in stack.rows("SELECT id, status, attempt FROM jobs"):
        rows = named.get(str(job["id"]), [])
        folder = stack.data / "objects" / keys.step_prefix(job["id"], "generate")
        there = {path.name: path for path in folder.glob("*")}
        manifest = there.pop("manifest.json", None)
        for row in rows:
            path = there.pop(str(row["key"]).rpartition("/")[2], None)
            if path is None or hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
                yield f"{row['key']}: {'missing' if path is None else 'other bytes'}"
        if job["status"] != "succeeded" or job["attempt"] > 1:
            verdict.strays += len(there)
        else:
            yield from (f"{job['id']}: {name} has no row" for name in there)
        if job["status"] != "succeeded":
            continue
        noted = json.loads(manifest.read_text())["items"] if manifest else []
        if sorted(str(item["sha256"]) for item in noted) != sorted(str(row["sha256"]) for row in rows):
            yield f"{job['id']}: its manifest says something else"


_replayed: dict[tuple[int, str], list[Frame]] = {}


def _replays(stack: Stack, account: Account) -> Iterable[str]:
    for job in account.jobs:
        try:
            yield from _replay(stack.client, job)
        except Interrupted:
            yield f"{job.id}: the replay broke off"


def _replay(client: Client, job: Promised) -> Iterable[str]:
    frames = _replayed.get((id(client), job.id))
    if frames is None:
        if client.http.get(f"/v1/jobs/{job.id}").status_code == 404:
            yield f"{job.id}: there is no such job"
            return
        *frames, end = client.stream(job.id)
        if [frame.id for frame in frames] != list(range(1, len(frames) + 1)) or end.data != {"last_seq": len(frames)}:
            yield f"{job.id}: ids {[frame.id for frame in frames]}, {end}"
            return
        ends = [frame.id for frame in frames if frame.event == "state" and frame.data["status"] in TERMINAL]
        if ends != [frames[-1].id]:
            yield f"{job.id}: terminal events {ends} of {len(frames)}"
            return
        _replayed[id(client), job.id] = frames  # a job that has ended never changes: asking once is enough
    by_id = {frame.id: frame for frame in frames}
    live = [frame for frame in job.live if frame.id is not None]
    if [frame.id for frame in live] != sorted({frame.id for frame in live if frame.id is not None}):
        yield f"{job.id}: live ids {[frame.id for frame in live]}"
    if any(by_id.get(frame.id) != frame for frame in live):
        yield f"{job.id}: a live event differs from its replay"
    if job.live:
        skipped = by_id.keys() - {frame.id for frame in live}
        if not {by_id[number].event for number in skipped} <= {"progress"}:
            yield f"{job.id}: a live reader missed {sorted(number or 0 for number in skipped)}"


def _dead_letters(stack: Stack) -> Iterable[str]:
    """RQ's places for messages that failed for good."""
    with redis.Redis.from_url(stack.redis_url) as queue:
        for name in ("events", "render"):
            yield from (f"{name}: {entry!r}" for entry in queue.zrange(f"rq:failed:{name}", 0, -1))


def _metrics(stack: Stack) -> Iterable[str]:
    answer = stack.client.http.get("/metrics")
    if answer.status_code != 200 or "dreamforge_jobs{" not in answer.text:
        yield f"{answer.status_code}: {answer.text[:200]}"

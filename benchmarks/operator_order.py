"""J4: from POST to the RenderJob that any client of the cluster can see, against one INSERT and one bare create.

Ours is the real API process and the real worker process, which writes a Secret before the RenderJob; no operator
runs. One job at a time, the three taking turns sample by sample.
"""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psycopg

from benchmarks.api import real_api
from benchmarks.bare_app import INSERT, row
from benchmarks.harness import Comparison, Result
from benchmarks.http_load import post
from benchmarks.operator_bed import bed, render_job
from benchmarks.operator_client import RENDERJOBS, Api, Sightings, connect
from benchmarks.plain_client import Line
from benchmarks.processes import program
from benchmarks.stack import Servers
from dreamforge.renderjob import names
from dreamforge_api.jobs.schemas import CreateJobRequest
from tests.cluster.kubectl import Kubectl
from tests.servers.postgres import fresh_database, migrate, plain

SAMPLES = 40
_WARM = 5
_PATIENCE_SECONDS = 60.0
_BODY = {"type": "generate", "prompt": "an old-growth forest at dawn"}


@dataclass
class _Round:
    ours: list[float] = field(default_factory=list)
    post: list[float] = field(default_factory=list)
    insert: list[float] = field(default_factory=list)
    create: list[float] = field(default_factory=list)


class _Bench:
    """The three ways, each as one sample in milliseconds."""

    def __init__(self, api: Api, seen: Sightings, line: Line, database: psycopg.Connection, elsewhere: str) -> None:
        self._api = api
        self._seen = seen
        self._line = line
        self._database = database
        self._path = RENDERJOBS.format(elsewhere)
        self._request = post("/v1/jobs", json.dumps(_BODY).encode())

    async def round(self, samples: int) -> _Round:
        found = _Round()
        for _ in range(samples):
            found.ours.append(await self._ours(found.post))
            found.insert.append(self._insert())
            found.create.append(await self._create())
        return found

    async def _ours(self, posts: list[float]) -> float:
        seen = self._seen.seen[RENDERJOBS]
        before, began = len(seen), time.perf_counter()
        posts.append(await asyncio.to_thread(self._line.ask, self._request, 202))
        await self._seen.all_seen(RENDERJOBS, before + 1, _PATIENCE_SECONDS)
        return (max(seen.values()) - began) * 1000

    def _insert(self) -> float:
        values = row(CreateJobRequest.model_validate(_BODY), uuid4())
        began = time.perf_counter()
        self._database.execute(INSERT, values)
        took = time.perf_counter() - began
        return took * 1000

    async def _create(self) -> float:
        text = json.dumps(render_job())
        began = time.perf_counter()
        await self._api.post(self._path, text)
        return (time.perf_counter() - began) * 1000


async def _measure(
    kubeconfig: Path, ours: Kubectl, elsewhere: Kubectl, port: int, database_url: str, rounds: int
) -> list[_Round]:
    line = Line(port)
    database: psycopg.Connection = psycopg.connect(plain(database_url), autocommit=True)
    async with connect(kubeconfig) as api:
        seen = Sightings(api, ours.namespace, names.LABEL_RENDERJOB)
        seen.follow(RENDERJOBS)
        bench = _Bench(api, seen, line, database, elsewhere.namespace)
        try:
            await bench.round(_WARM)
            return [await bench.round(SAMPLES) for _ in range(rounds)]
        finally:
            await seen.end()
            line.close()
            database.close()


def run(servers: Servers, pairs: int = 5) -> list[Result]:
    """Measure J4."""
    result = Comparison(
        "J4", "POST to RenderJob visible, p50, against INSERT and a bare create", "ms", 2.0, lower_is_better=True
    )
    with (
        bed(servers.folder / "order", servers.redis_url, controllers=False) as made,
        fresh_database(
            servers.database_url
        ) as bare_url,  # of a job in its own database the worker would make one more
    ):
        migrate(bare_url)
        ours, elsewhere = made.namespace(), made.namespace()
        kubeconfig = made.plane.kubeconfig
        settings = {
            "DF_DATABASE_URL": servers.database_url,
            "DF_REDIS_URL": servers.redis_url,
            "DF_STORE_ROOT": str(made.folder / "objects"),
            "DF_EXECUTOR": "kubernetes",
            "DF_NAMESPACE": ours.namespace,
            "KUBECONFIG": str(kubeconfig),
        }
        with (
            real_api(servers, name="api-order") as (_, port),
            program("worker", ["dreamforge_api.worker"], made.folder / "worker", settings),
        ):
            rounds = asyncio.run(_measure(kubeconfig, ours, elsewhere, port, bare_url, pairs))
    for found in rounds:
        result.ours.append(statistics.median(found.ours))
        result.reference.append(statistics.median(found.insert) + statistics.median(found.create))
    inserts = [value for found in rounds for value in found.insert]
    posts = [value for found in rounds for value in found.post]
    result.notes.append(f"of the reference, INSERT: p50 {statistics.median(inserts):.3g} ms")
    result.notes.append(f"of ours, POST: p50 {statistics.median(posts):.3g} ms")
    return [result]

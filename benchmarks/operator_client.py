"""A bare asynchronous client of an API server: objects in, and when each was first seen by a watch."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

Json = dict[str, Any]

RENDERJOBS = "apis/dreamforge.dev/v1alpha1/namespaces/{}/renderjobs"
JOBS = "apis/batch/v1/namespaces/{}/jobs"
PODS = "api/v1/namespaces/{}/pods"

_PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_NOT_READY_SECONDS = 0.2
_MERGE = "application/merge-patch+json"


class Api:
    """One account on one API server, as a kubeconfig names them."""

    def __init__(self, session: aiohttp.ClientSession, server: str) -> None:
        self._session = session
        self._server = server

    async def post(self, path: str, body: Json | str) -> Json:
        """Create an object."""
        text = body if isinstance(body, str) else json.dumps(body)
        return await self._call("POST", path, text, "application/json")

    async def patch(self, path: str, change: Json) -> Json:
        """Merge ``change`` into an object."""
        return await self._call("PATCH", path, json.dumps(change), _MERGE)

    async def watch(
        self, path: str, *, query: Mapping[str, str] | None = None, whole: bool = False
    ) -> AsyncIterator[tuple[str, Json]]:
        """Type and object of every event until the server ends the watch; ``whole`` or metadata only."""
        headers = {"Accept": "application/json" if whole else _PARTIAL}
        asked = {"watch": "1", **(query or {})}
        async with self._session.get(f"{self._server}/{path}", params=asked, headers=headers, timeout=None) as answer:
            if answer.status == 429:  # a kind that has just been installed is not ready to be watched
                await asyncio.sleep(_NOT_READY_SECONDS)
                return
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":  # too slow a reader, or too old a version: the caller begins anew
                    return
                yield event["type"], event["object"]

    async def _call(self, method: str, path: str, body: str, content_type: str) -> Json:
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        async with self._session.request(method, f"{self._server}/{path}", data=body, headers=headers) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]}")
            found: Json = json.loads(text)
            return found


@asynccontextmanager
async def connect(kubeconfig: Path, connections: int = 64) -> AsyncIterator[Api]:
    """By a kubeconfig with a token and a file of the authority."""
    server, trusted, token = _read(kubeconfig)
    connector = aiohttp.TCPConnector(ssl=trusted, limit=connections)
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers, read_bufsize=1 << 20) as session:
        yield Api(session, server)


def _read(kubeconfig: Path) -> tuple[str, ssl.SSLContext, str]:
    told = json.loads(kubeconfig.read_text())
    cluster, user = told["clusters"][0]["cluster"], told["users"][0]["user"]
    trusted = ssl.create_default_context(cafile=cluster["certificate-authority"])
    return cluster["server"], trusted, user["token"]


class Sightings:
    """When objects of some kinds were first seen, by the name of the RenderJob they belong to."""

    def __init__(self, api: Api, namespace: str, label: str) -> None:
        self._api = api
        self._namespace = namespace
        self._label = label
        self.seen: dict[str, dict[str, float]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()

    def follow(self, *kinds: str) -> None:
        """Begin to watch these kinds."""
        for kind in kinds:
            self.seen[kind] = {}
            task = asyncio.create_task(self._follow(kind))
            task.add_done_callback(lambda _: self._news.set())
            self._tasks.append(task)

    async def all_seen(self, kind: str, count: int, seconds: float) -> None:
        """Until ``count`` objects were seen; raises ``TimeoutError``, or whatever ended a watch."""
        async with asyncio.timeout(seconds):
            while len(self.seen[kind]) < count:
                for task in self._tasks:
                    if task.done():
                        task.result()
                self._news.clear()
                await self._news.wait()

    def between(self, first: str, then: str) -> list[float]:
        """Milliseconds from one kind's object to the other's, smallest first."""
        before, after = self.seen[first], self.seen[then]
        return sorted((after[name] - before[name]) * 1000 for name in after.keys() & before.keys())

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _follow(self, kind: str) -> None:
        found = self.seen[kind]
        while True:
            async for _, item in self._api.watch(kind.format(self._namespace)):
                meta = item["metadata"]
                name = meta["name"] if kind == RENDERJOBS else (meta.get("labels") or {}).get(self._label)
                if name and name not in found:
                    found[name] = time.perf_counter()
                    self._news.set()

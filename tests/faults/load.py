"""Clients that behave as the guide tells them to: a key with every POST, the same key again when no answer came.

Each client makes small bursts of mixed jobs, cancels some, follows some live over as many connections as it takes,
and waits for the end of all. What it was promised is kept for the oracle.
"""

import contextlib
import random
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.client import TERMINAL, Client, Frame, Interrupted

#: How long a client waits for one job to end before it calls the job stuck, unless it is told to be more patient:
#: under faults without a pause a job may lose one runner after the other. What the system promises is its deadline.
STUCK_SECONDS = 120.0
_PAUSE = 0.1
#: Names of the part of a link's query that makes it valid: of our own links, and of S3's.
_SIGNATURES = ("signature", "X-Amz-Signature")


@dataclass
class Promised:
    """One job that was answered 202, and what the client then did and saw."""

    id: str
    key: str
    count: int
    canceled: bool = False
    live: list[Frame] = field(default_factory=list)


@dataclass
class Account:
    """What all clients know together."""

    jobs: list[Promised] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    retries: int = 0
    slowest: float = 0.0
    longest: float = 0.0
    #: Stands in every prompt, and nowhere that people other than the owner read.
    canary: str = ""
    #: Signatures of links that were handed out, and the bodies of all answers that were errors.
    signatures: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


class Stuck(Exception):
    """A job did not end in time."""


class Load:
    """``clients`` threads from :meth:`start` until :meth:`finish`; every choice follows from ``seed``."""

    def __init__(
        self, url: str, seed: int, clients: int = 3, size: int = 384, patience: float = STUCK_SECONDS
    ) -> None:
        self._url = url
        self._patience = patience
        self._size = size
        self.seed = seed
        self._leaving = threading.Event()
        self._lock = threading.Lock()
        self.account = Account(canary=f"canary{seed:08x}")
        self._threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]

    def start(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def finish(self) -> Account:
        """No new bursts; wait for the ends of those under way."""
        self._leaving.set()
        deadline = time.monotonic() + self._patience + 30
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), "a client hangs"
        return self.account

    def _client(self, number: int) -> None:
        chance = random.Random(f"{self.seed}-{number}")
        with Client(self._url) as client:
            while not self._leaving.is_set():
                try:
                    self._burst(client, chance)
                except Stuck as error:
                    with self._lock:
                        self.account.stuck.append(str(error))
                except Exception as error:  # noqa: BLE001 - the edge of this thread; the oracle reports it
                    with self._lock:
                        self.account.errors.append(f"{type(error).__name__}: {error}")
                    return

    def _burst(self, client: Client, chance: random.Random) -> None:
        made = [self._create(client, chance) for _ in range(chance.randint(1, 3))]
        for job in made:
            if chance.random() < 0.3:
                job.canceled = True
                self._ask(client, "POST", f"/v1/jobs/{job.id}/cancel")
        if chance.random() < 0.5:
            self._follow(client, chance.choice(made))
        for job in made:
            self._wait(client, job)
        if chance.random() < 0.3:
            self._download(client, chance.choice(made))
        if chance.random() < 0.2:
            self._blunder(client, chance)

    def pile(self, jobs: int) -> None:
        """So many more jobs, for nobody to wait for."""
        chance = random.Random(f"{self.seed}-pile")
        with Client(self._url) as client:
            for _ in range(jobs):
                self._create(client, chance, count=5)

    def _download(self, client: Client, job: Promised) -> None:
        """Take the images by the links that are handed out."""
        for artifact in self._ask(client, "GET", f"/v1/jobs/{job.id}/artifacts")["items"]:
            query = httpx.URL(artifact["url"]).params
            with self._lock:
                self.account.signatures += [query[name] for name in _SIGNATURES if name in query]
            with contextlib.suppress(httpx.TransportError):
                answer = client.http.get(artifact["url"])
                assert answer.status_code in (200, 503), f"{artifact['key']}: {answer.status_code}"

    def _blunder(self, client: Client, chance: random.Random) -> None:
        """A request that is refused, for what its refusal says."""
        canary = self.account.canary
        wrongs: list[dict[str, Any]] = [
            {"width": 7},
            {"model_id": "no-such-model"},
            {"no_such_field": canary},
            {"steps": canary},
            {"prompt": [canary]},
            {"negative_prompt": canary * 1000},
        ]
        wrong = chance.choice(wrongs)
        with contextlib.suppress(httpx.TransportError):
            answer = client.http.post("/v1/jobs", json={"type": "generate", "prompt": canary, **wrong})
            assert answer.status_code >= 400, f"{list(wrong)}: {answer.status_code}"
            self._note_refusal(answer)

    def _note_refusal(self, answer: httpx.Response) -> None:
        with self._lock:
            self.account.refusals.append(answer.text)

    def _create(self, client: Client, chance: random.Random, count: int = 0) -> Promised:
        count = count or chance.randint(1, 5)
        body = {
            "type": "generate",
            "prompt": f"a lighthouse, {self.account.canary}",
            "negative_prompt": f"fog, {self.account.canary}",
            "width": self._size,
            "height": 256,
            "steps": chance.randint(2, 8),
            "count": count,
            "format": chance.choice(["png", "jpg"]),
        }
        key = f"{chance.getrandbits(128):032x}"
        answers = [self._ask(client, "POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key})]
        if chance.random() < 0.3:
            answers.append(self._ask(client, "POST", "/v1/jobs", json=body, headers={"Idempotency-Key": key}))
        ids = {answer["id"] for answer in answers}
        assert len(ids) == 1, f"one key, several jobs: {ids}"
        job = Promised(ids.pop(), key, count)
        with self._lock:
            self.account.jobs.append(job)
        return job

    def _ask(self, client: Client, method: str, path: str, **more: Any) -> dict[str, Any]:
        """Ask until there is an answer: nobody at home, 429, 503 and a key in use mean again."""
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            begun = time.monotonic()
            try:
                answer = client.http.request(method, path, **more)
            except httpx.TransportError:
                answer = None
            with self._lock:
                self.account.slowest = max(self.account.slowest, time.monotonic() - begun)
            if answer is not None and answer.status_code not in (409, 429, 503):
                assert answer.status_code in (200, 202), f"{method} {path}: {answer.status_code} {answer.text}"
                found: dict[str, Any] = answer.json()
                return found
            with self._lock:
                self.account.retries += 1
            if answer is not None:
                self._note_refusal(answer)
            time.sleep(_PAUSE)
        raise AssertionError(f"{method} {path}: no answer in {self._patience:g} s")

    def _wait(self, client: Client, job: Promised) -> None:
        begun = time.monotonic()
        while self._ask(client, "GET", f"/v1/jobs/{job.id}")["status"] not in TERMINAL:
            if time.monotonic() > begun + self._patience:
                raise Stuck(f"job {job.id} did not end in {self._patience:g} s")
            time.sleep(_PAUSE)
        with self._lock:
            self.account.longest = max(self.account.longest, time.monotonic() - begun)

    def _follow(self, client: Client, job: Promised) -> None:
        """Every event as a patient client sees it, resuming after the last one whatever breaks."""
        deadline = time.monotonic() + self._patience
        while not job.live or job.live[-1].event != "end":
            if time.monotonic() > deadline:
                raise Stuck(f"the stream of job {job.id} has no end")
            after = job.live[-1].id if job.live else None
            try:
                for frame in client.stream(job.id, after):
                    job.live.append(frame)
            except (httpx.TransportError, Interrupted):
                time.sleep(_PAUSE)
            else:
                if job.live and job.live[-1].event != "end" and after == job.live[-1].id:
                    return  # 204: nothing follows what was seen already

"""A REST and event-stream client of the tests' own, so that no mistake of the product's client hides one of the API.

The parser is strict: a line that the contract does not name is an error, so text that forges a frame is noticed.
"""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import httpx

from tests.servers.stack import until

EVENTS = frozenset({"state", "progress", "log", "artifact", "error", "end"})
#: For a busy machine, where a job may begin with half a minute of imports.
PATIENCE_SECONDS = 180.0
TERMINAL = frozenset({"succeeded", "failed", "canceled"})


@dataclass(frozen=True)
class Frame:
    """One event of a stream; ``id`` is ``None`` for ``end`` only."""

    event: str
    data: dict[str, Any]
    id: int | None


def parse(lines: Iterable[str]) -> Iterator[Frame]:
    """Frames of an event stream, given as lines without their ends."""
    fields: dict[str, str] = {}
    for line in lines:
        if line == "":
            if "data" in fields:
                yield _frame(fields)
            fields = {}
            continue
        if line.startswith(":"):
            continue
        name, colon, value = line.partition(": ")
        assert colon, f"a line that is no field: {line!r}"
        assert name in {"id", "event", "data", "retry"}, f"a line that the contract does not name: {line!r}"
        assert name not in fields, f"two lines {name!r} in one frame"
        fields[name] = value
    if fields:
        raise Interrupted


def parse_text(text: str) -> list[Frame]:
    """All frames of a whole answer."""
    assert text.startswith("retry: "), text[:100]
    assert text.count("retry: ") == 1
    return list(parse(text.removesuffix("\n").split("\n")))


class Interrupted(Exception):
    """The stream broke off; a client resumes it."""


def _frame(fields: dict[str, str]) -> Frame:
    assert fields["event"] in EVENTS, fields
    data = json.loads(fields["data"])
    number = fields.get("id")
    assert (number is None) == (fields["event"] == "end"), fields
    if number is not None:
        assert data["seq"] == int(number)
    return Frame(fields["event"], data, None if number is None else int(number))


def events_of(frames: Iterable[Frame], event: str) -> list[Frame]:
    return [frame for frame in frames if frame.event == event]


class Client:
    """One server."""

    def __init__(self, base: str) -> None:
        self.http = httpx.Client(base_url=base, timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def post(self, **fields: Any) -> dict[str, Any]:
        """Make a job, small unless ``fields`` say otherwise; the job resource."""
        body = {"type": "generate", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 2, **fields}
        return self._json(self.http.post("/v1/jobs", json=body), 202)

    def job(self, job_id: str) -> dict[str, Any]:
        return self._json(self.http.get(f"/v1/jobs/{job_id}"))

    def progress(self, job_id: str) -> dict[str, Any]:
        return self._json(self.http.get(f"/v1/jobs/{job_id}/progress"))

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._json(self.http.get(f"/v1/jobs/{job_id}/artifacts"))["items"]
        return found

    def logs(self, job_id: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.http.get(f"/v1/jobs/{job_id}/logs", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        return [json.loads(line) for line in answer.text.split("\n") if line]

    def codes(self, job_id: str) -> list[str]:
        """The ``code`` of each log event."""
        return [entry["code"] for entry in self.logs(job_id)]

    def cancel(self, job_id: str) -> httpx.Response:
        return self.http.post(f"/v1/jobs/{job_id}/cancel")

    def stream(self, job_id: str, after: int | None = None) -> Iterator[Frame]:
        """One connection to the stream, until the server closes it."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        with self.http.stream("GET", f"/v1/jobs/{job_id}/progress/stream", headers=headers, timeout=60) as answer:
            if answer.status_code == 204:
                return
            if answer.status_code == 503:
                raise Interrupted
            assert answer.status_code == 200, answer.read()
            yield from parse(_lines(answer.iter_text()))

    def follow(self, job_id: str, seconds: float = PATIENCE_SECONDS) -> list[Frame]:
        """Every event up to ``end``, over as many connections as it takes: what a patient client sees."""
        seen: list[Frame] = []
        deadline = time.monotonic() + seconds
        while not seen or seen[-1].event != "end":
            assert time.monotonic() < deadline, f"no end of job {job_id} in {seconds} s"
            try:
                for frame in self.stream(job_id, seen[-1].id if seen else None):
                    seen.append(frame)
            except (httpx.TransportError, Interrupted):
                time.sleep(0.1)
        return seen

    def wait(self, job_id: str, status: str = "succeeded", seconds: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """Poll until the job has ended, whatever is down meanwhile; it must have ended as ``status``."""

        def ended() -> dict[str, Any] | None:
            job = self._look(job_id)
            return job if job and job["status"] in TERMINAL else None

        job: dict[str, Any] = until(ended, seconds, f"the end of job {job_id}")
        assert job["status"] == status, job
        return job

    def render(self, **fields: Any) -> dict[str, Any]:
        """Make a job and wait for its success."""
        return self.wait(self.post(**fields)["id"])

    def until_completed(self, job_id: str, count: int, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until so many images are stored."""

        def stored() -> bool:
            job = self._look(job_id)
            return job is not None and job["completed"] >= count

        until(stored, seconds, f"{count} images of {job_id}")

    def _look(self, job_id: str) -> dict[str, Any] | None:
        """The job, or ``None`` while the server can't say."""
        try:
            answer = self.http.get(f"/v1/jobs/{job_id}")
        except httpx.TransportError:
            return None
        return None if answer.status_code == 503 else self._json(answer)

    def until_ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until the server can work (again)."""

        def ready() -> bool:
            try:
                return self.http.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, seconds, "readiness")

    def download(self, artifact: dict[str, Any]) -> bytes:
        answer = httpx.get(artifact["url"], timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.content

    @staticmethod
    def _json(answer: httpx.Response, status: int = 200) -> dict[str, Any]:
        assert answer.status_code == status, answer.text
        found: dict[str, Any] = answer.json()
        return found


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Lines ended by LF only: httpx's own also cut at U+2028 and the like, which are text of a prompt."""
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from whole
    if rest:
        raise Interrupted

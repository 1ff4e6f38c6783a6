"""A client of the REST API: plain calls, the event stream with exact resume, downloads checked by digest."""

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from dreamforge.errors import DreamForgeError
from dreamforge_cli.sse import frames

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
#: Three heartbeats (15 s each) may be late before the connection counts as dead.
_STREAM_TIMEOUT = httpx.Timeout(50.0, connect=5.0)
_PATIENCE_SECONDS = 30.0
_LONGEST_WAIT_SECONDS = 5.0
#: 502 and 504 are a proxy's words for a server that is being started again.
_BUSY = frozenset({429, 502, 503, 504})


class ServerUnreachable(DreamForgeError):
    """No answer from the server, or no usable one, for longer than this client waits."""


class Stranger(ServerUnreachable):
    """Something answers there, but not as Dream Forge's API does: another program, or a proxy's page."""


class Refused(DreamForgeError):
    """The server answered with a problem; the text is for people."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.problem = dict(problem)
        super().__init__(_readable(status, problem))


class BrokenDownload(DreamForgeError):
    """The bytes that came are not those the server announced."""


@dataclass(frozen=True)
class Event:
    """One event of a job: the SSE name and its data."""

    type: str
    data: dict[str, Any]


class Client:
    """One server. Use as a context manager."""

    def __init__(self, base: str, *, patience_seconds: float = _PATIENCE_SECONDS) -> None:
        self.base = base.rstrip("/")
        self._patience = patience_seconds
        self._http = httpx.Client(base_url=self.base, timeout=_TIMEOUT, follow_redirects=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post a job. One idempotency key covers all tries, so a lost answer never makes two jobs."""
        key = str(uuid.uuid4())
        deadline = time.monotonic() + self._patience
        while True:
            response = self._send("POST", "/v1/jobs", json=dict(body), headers={"Idempotency-Key": key})
            wait = _retry_after(response)
            if response.status_code not in _BUSY or time.monotonic() + wait > deadline:
                return _object(response)
            time.sleep(wait)

    def job(self, job_id: str) -> dict[str, Any]:
        return self._get(f"/v1/jobs/{job_id}")

    def jobs(self, **query: Any) -> dict[str, Any]:
        """One page; ``next_cursor`` of the answer asks for the next."""
        return self._get("/v1/jobs", **query)

    def cancel(self, job_id: str) -> dict[str, Any]:
        return _object(self._send("POST", f"/v1/jobs/{job_id}/cancel"))

    def artifacts(self, job_id: str) -> list[dict[str, Any]]:
        return self._items(f"/v1/jobs/{job_id}/artifacts")

    def models(self, **query: Any) -> list[dict[str, Any]]:
        return self._items("/v1/models", **query)

    def logs(self, job_id: str, **query: Any) -> Iterator[dict[str, Any]]:
        """A job's log, one entry at a time."""
        response = self._send("GET", f"/v1/jobs/{job_id}/logs", params=query)
        if response.is_error:
            raise _refusal(response)
        for line in response.text.split("\n"):
            if line:
                yield _object_of(line, response.url)

    def events(self, job_id: str, after: int = 0) -> Iterator[Event]:
        """Every event of a job until its end, each once, over as many connections as it takes.

        Raises ``ServerUnreachable`` when nothing at all comes for 30 s after a connection broke. How long one was
        quiet before that doesn't count: a model that is being loaded brings heartbeats only.
        """
        last_id, deadline, wait = str(after), time.monotonic() + self._patience, 0.1
        while True:
            heard, trouble = _Heard(), None
            try:
                for event, seen in self._stream(job_id, last_id, heard):
                    if event is None or event.type == "end":
                        return
                    last_id, wait = seen, 0.1
                    yield event
            except httpx.HTTPError as error:
                trouble = error
            if heard.anything:
                deadline = time.monotonic() + self._patience
            elif trouble is not None and time.monotonic() > deadline:
                raise self._unreachable(trouble) from trouble
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_SECONDS)

    def download(self, artifact: Mapping[str, Any], target: Path) -> Path:
        """Save one artifact at ``target``, whole and with the digest the listing names, or not at all."""
        response = self._send("GET", artifact["url"])
        if response.is_error:
            raise _refusal(response)
        if hashlib.sha256(response.content).hexdigest() != artifact["sha256"]:
            raise BrokenDownload(f"image {artifact['item_index']}: what arrived has another sha256 than announced")
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.part")
        draft.write_bytes(response.content)
        draft.replace(target)
        return target

    def _stream(self, job_id: str, last_id: str, heard: "_Heard") -> Iterator[tuple[Event | None, str]]:
        """One connection: events with the id to resume after; ``None`` when nothing is missing any more."""
        headers = {"Accept": "text/event-stream", "Last-Event-ID": last_id}
        path = f"/v1/jobs/{job_id}/progress/stream"
        with self._http.stream("GET", path, headers=headers, timeout=_STREAM_TIMEOUT) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                yield None, last_id
                return
            if response.status_code in _BUSY:
                response.raise_for_status()
            if response.is_error:
                response.read()
                raise _refusal(response)
            for frame in frames(_lines(heard.of(response.iter_text())), last_id):
                yield Event(frame.event, json.loads(frame.data)), frame.id or last_id

    def _items(self, path: str, **query: Any) -> list[dict[str, Any]]:
        found = self._get(path, **query).get("items")
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise _strange(self.base + path)
        return found

    def _get(self, path: str, **query: Any) -> dict[str, Any]:
        given = {name: value for name, value in query.items() if value not in (None, [])}
        return _object(self._send("GET", path, params=given))

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **more)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: httpx.HTTPError) -> ServerUnreachable:
        return ServerUnreachable(
            f"{self.base} can't be reached ({str(error) or type(error).__name__}); "
            "start one with `dreamforge up`, or name another in DF_API_BASE"
        )


class _Heard:
    """Whether a connection brought ``anything``, be it a heartbeat."""

    anything = False

    def of(self, chunks: Iterator[str]) -> Iterator[str]:
        for chunk in chunks:
            self.anything = True
            yield chunk


def _lines(chunks: Iterator[str]) -> Iterator[str]:
    """Lines ended by LF or CRLF only: other separators (U+2028, ...) are text of a prompt."""
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        for line in whole:
            yield line.removesuffix("\r")


def _object(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise _refusal(response)
    return _object_of(response.content, response.url)


def _object_of(text: str | bytes, url: httpx.URL) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        raise _strange(url) from None
    if not isinstance(found, dict):
        raise _strange(url)
    return found


def _strange(url: object) -> Stranger:
    return Stranger(f"what answers at {url} is no Dream Forge server; name one in DF_API_BASE")


def _refusal(response: httpx.Response) -> Refused:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    return Refused(response.status_code, problem if isinstance(problem, dict) else {})


def _readable(status: int, problem: Mapping[str, Any]) -> str:
    """``422 invalid_input: The input breaks a rule`` and a line for each detail."""
    message = problem.get("message") or problem.get("detail") or problem.get("title") or "no explanation"
    lines = [f"{status} {problem.get('code', '')}".rstrip() + f": {message}"]
    details = problem.get("details") or problem.get("errors") or []
    for detail in details if isinstance(details, list) else [details]:
        said = _detail(detail)
        if said.rpartition(": ")[2] not in str(message):
            lines.append("  " + said)
    if problem.get("correlation_id"):
        lines.append(f"  correlation id: {problem['correlation_id']}")
    return "\n".join(lines)


def _detail(detail: Any) -> str:
    if not isinstance(detail, dict):
        return str(detail)
    where = detail.get("pointer") or detail.get("field") or detail.get("parameter") or detail.get("name") or ""
    said = detail.get("message") or detail.get("detail") or detail.get("msg") or json.dumps(detail)
    return f"{where}: {said}" if where else str(said)


def _retry_after(response: httpx.Response) -> float:
    try:
        asked = float(response.headers.get("Retry-After", "1"))
    except ValueError:
        asked = 1.0
    return min(max(asked, 0.1), _LONGEST_WAIT_SECONDS)

"""The one middleware: correlation id, request metrics, access log, and the last net under every request.

Plain ASGI, because anything that wraps the body iterator costs more than the rest of a request.
"""

import re
import time
from functools import cache

from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from dreamforge import telemetry
from dreamforge.errors import ErrorCode
from dreamforge_api import metrics, problem

_HEADER = b"x-correlation-id"
_SAFE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
_log = telemetry.logger(__name__)


class RequestMiddleware:
    """Wraps the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        correlation_id = _correlation_id(scope)
        scope[problem.CORRELATION] = correlation_id
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] += (
                    (_HEADER, correlation_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                )
                _observe(scope, message["status"], time.perf_counter() - began)
            await send(message)

        with telemetry.bound(correlation_id=correlation_id):
            try:
                await self._app(scope, receive, send_marked)
            except Exception:  # noqa: BLE001 - the edge of the process: no request may end it or show a trace
                _log.exception("a request failed", method=scope["method"], route=_route(scope))
                if not started:
                    defect = problem.Problem(ErrorCode.INTERNAL, "A defect in Dream Forge; its log has the trace")
                    await problem.response(defect, scope)(scope, receive, send_marked)


def _correlation_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == _HEADER and _SAFE.fullmatch(value):
            return str(value, "ascii")
    return str(uuid7())


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")


def _observe(scope: Scope, status: int, seconds: float) -> None:
    method = scope["method"] if scope["method"] in _METHODS else "other"
    route = _route(scope)
    _histogram(method, route, status).observe(seconds)
    _log.debug("answered", method=method, route=route, status=status, seconds=round(seconds, 4))


@cache
def _histogram(method: str, route: str, status: int) -> Histogram:
    """One label set of the request histogram; there are as many as routes times statuses."""
    return metrics.HTTP_SECONDS.labels(method, route, str(status))

"""The operator's own port: is it alive, is it ready, what has it counted."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


async def serve(host: str, port: int, *, alive: Callable[[], bool], ready: Callable[[], bool]) -> web.AppRunner:
    """Answer on ``host:port`` until the runner is cleaned up."""

    async def healthz(_: web.Request) -> web.Response:
        return _answer(alive(), "no full pass has ended for two minutes")

    async def readyz(_: web.Request) -> web.Response:
        return _answer(ready(), "the first full pass has not ended")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def _answer(fine: bool, otherwise: str) -> web.Response:
    return web.json_response({"status": "ok" if fine else otherwise}, status=200 if fine else 503)

"""S1's ceiling: a broadcast in memory. A queue per subscriber, the same bytes for all, no database, no job.

``POST /feed?events=N`` puts N ready-made frames into every queue; a reader takes all that wait for it and sends them
in one write, which is the cheapest a queue per subscriber can be.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

from fastapi import FastAPI
from starlette.responses import StreamingResponse

from benchmarks import bare_server
from dreamforge_api.progress import frames

#: A frame as the real API makes it of a progress event.
FRAME = frames.encode(
    {
        "seq": 1000,
        "type": "progress",
        "ts": datetime(2026, 11, 20, 12, tzinfo=UTC),
        "job_id": UUID(int=2**127),
        "step": "generate",
        "item_index": 0,
        "payload": {
            "progress": 0.0167,
            "item_progress": 0.5,
            "stage": "denoising",
            "step_index": 15,
            "steps_total": 30,
        },
    }
).data


def make_app() -> FastAPI:
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    queues: set[asyncio.Queue[bytes]] = set()

    async def follow() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        queues.add(queue)
        try:
            yield frames.RETRY
            while True:
                waiting = [await queue.get()]
                while not queue.empty():
                    waiting.append(queue.get_nowait())
                yield b"".join(waiting)
        finally:
            queues.discard(queue)

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(follow(), media_type="text/event-stream")

    @app.post("/feed")
    async def feed(events: int) -> int:
        for queue in queues:
            for _ in range(events):
                queue.put_nowait(FRAME)
        return len(queues)

    return app


if __name__ == "__main__":
    bare_server.serve(make_app())

"""The FastAPI application: slices, errors, middleware, document."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import dreamforge
from dreamforge_api import document, pages, problem, wiring
from dreamforge_api.artifacts import routes as artifacts
from dreamforge_api.deps import Services
from dreamforge_api.health import routes as health
from dreamforge_api.jobs import routes as jobs
from dreamforge_api.logs import routes as logs
from dreamforge_api.middleware import RequestMiddleware
from dreamforge_api.models import routes as models
from dreamforge_api.progress import routes as progress

_DESCRIPTION = """Jobs in over REST, images out, live over server-sent events.

Create a job, follow `urls.events`, then list its artifacts. Every error is `application/problem+json`.
"""


def create_app(services: Services | None = None, *, docs: bool = True) -> FastAPI:
    """The application. Without ``services`` it can describe itself, but serve nothing."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if services is None:
            yield
            return
        async with wiring.running(services):
            yield

    app = FastAPI(
        title="Dream Forge",
        version=dreamforge.__version__,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        # The pages that FastAPI would serve load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.services = services
    # One flat list: a tree of included routers is walked anew for every request.
    for slice_ in (jobs, artifacts, logs, progress, models, health):
        app.router.routes.extend(slice_.router.routes)
    if docs:
        app.router.routes.extend(pages.router.routes)
    problem.install(app)
    app.add_middleware(RequestMiddleware)
    document.install(app)
    return app

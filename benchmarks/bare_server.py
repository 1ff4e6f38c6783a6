"""uvicorn for the bare apps, with the settings of ``dreamforge_api.server``."""

import uvicorn
from fastapi import FastAPI
from pydantic import Field, SecretStr

from dreamforge.settings import DfSettings, load


class BareSettings(DfSettings):
    """What a bare app needs; the names are the real API's."""

    api_port: int = Field(description="Port to listen on.")
    database_url: SecretStr = Field(description="PostgreSQL.")
    database_pool_size: int = Field(description="Database connections.")


class ProducerSettings(DfSettings):
    """What a producer of events needs."""

    redis_url: SecretStr = Field(description="Redis.")


def settings() -> BareSettings:
    return load(BareSettings)


def serve(app: FastAPI) -> None:
    """Until SIGTERM."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=settings().api_port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=75,
        backlog=4096,
    )
    uvicorn.Server(config).run()

"""Settings of the worker process."""

from typing import Literal

from pydantic import Field

from dreamforge.settings import DfSettings


class WorkerSettings(DfSettings):
    """What ``python -m dreamforge_api.worker`` reads."""

    database_url: str = Field(description="PostgreSQL, as postgresql://user:password@host:port/name.")
    redis_url: str = Field(description="Redis, as redis://:password@host:port/0.")
    executor: Literal["local"] = Field("local", description="Where jobs run.")
    log_level: str = Field("INFO", description="Least severe level that is logged.")
    worker_port: int = Field(
        0, ge=0, le=65535, description="Loopback port for the worker's /healthz and /metrics; 0 switches it off."
    )
    worker_host: str = Field("127.0.0.1", description="Address the worker's /healthz and /metrics bind to.")
    item_timeout_seconds: float = Field(1800, gt=0, description="Longest time one item may take.")
    grace_seconds: float = Field(5, gt=0, description="Between SIGTERM and SIGKILL of a render child.")
    max_attempts: int = Field(3, ge=1, le=10, description="Attempts that count before a job fails for good.")
    silence_seconds: float = Field(
        15, ge=1, description="A dispatched job nobody heard of for this long is looked into."
    )
    dispatch_window: int = Field(64, ge=1, description="Jobs handed to the executor ahead of a runner.")

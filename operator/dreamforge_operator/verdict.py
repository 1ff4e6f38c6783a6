"""What a runner said with its last breath: the JSON in its pod's termination message.

It is written by :mod:`dreamforge_runner.once`; codes and counters only. A message that is none (killed before it was
written, or written by something else) is ``None``: then the exit code and the kubelet's reason decide.
"""

import json
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dreamforge.errors import ErrorCode
from dreamforge_operator.observed import Pod

Count = Annotated[int, Field(ge=0, le=100_000)]
Mib = Annotated[float, Field(ge=0, le=1e9)]


class Vram(BaseModel):
    """GPU memory in MiB around the attempt; unknown readings are ``None``."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    start: Mib | None = None
    peak: Mib | None = None
    end: Mib | None = None


class Verdict(BaseModel):
    """One attempt's end, in codes and counters."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    v: int = Field(ge=1, le=1)
    error: ErrorCode | None = Field(None, alias="class")
    exit_code: int
    items_done: Count = 0
    items_failed: Count = 0
    vram_mib: Vram | None = None
    clean: bool | None = None
    #: Of the step's manifest; told by the attempt that wrote it.
    manifest_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None


def newest(pods: Iterable[Pod]) -> Iterator[Verdict]:
    """What the attempts said that said something, the newest first."""
    ended = [(pod.created, pod.ended.message) for pod in pods if pod.ended is not None]
    for _, message in sorted(ended, key=itemgetter(0), reverse=True):
        if (words := parse(message)) is not None:
            yield words


def parse(message: str | None) -> Verdict | None:
    """The verdict in a termination message, if it is one."""
    if not message:
        return None
    try:
        return Verdict.model_validate(json.loads(message))
    except (ValueError, RecursionError, ValidationError):
        return None

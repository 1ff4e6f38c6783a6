"""What is already there of a file that is still on its way, so that a killed download goes on where it was.

``NAME.part.json`` beside ``NAME.part`` says which bytes were written, and how far they were hashed. After a kill that
is the truth, since the kernel keeps what was written. After a power cut it may not be, so the sidecar also says what
is known to be on the disk, and which boot it speaks of. It holds no URL and no token.
"""

import functools
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dreamforge_cli.models.fetch.ranges import Stretch

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MAX_BYTES = 2**20
_Position = Annotated[int, Field(ge=0, le=2**53)]


class Progress(BaseModel):
    """How far a download is at one moment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    done: tuple[tuple[_Position, _Position], ...] = ()
    hashed: _Position = 0
    #: Of ``hashing.Sha256`` at ``hashed``.
    hash_state: Annotated[str, Field(max_length=400)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "Progress":
        flat = [0, *(edge for stretch in self.done for edge in stretch)]
        if flat != sorted(flat):
            raise ValueError("stretches out of order")
        if self.hashed and not any(start == 0 and self.hashed <= end for start, end in self.done):
            raise ValueError("more was hashed than is there")
        return self

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        return self.done


class Sidecar(BaseModel):
    """The file's content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    #: What the bytes shall be; another expectation makes them another file.
    digest: str
    size: _Position
    etag: Annotated[str, Field(max_length=300)] | None
    boot: str
    written: Progress
    synced: Progress

    def trusted(self) -> Progress:
        """What can be relied on now."""
        return self.written if self.boot and self.boot == boot() else self.synced


@functools.cache
def boot() -> str:
    """Names this run of the machine; empty where the system does not say."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""


def load(path: Path, part: Path, digest: str) -> Sidecar | None:
    """The sidecar, if it speaks of this digest and the bytes it tells of can be there."""
    try:
        with path.open("rb") as file:
            found = Sidecar.model_validate_json(file.read(_MAX_BYTES))
        there = part.lstat().st_size
    except (OSError, ValidationError):
        return None
    end = max((end for _, end in found.trusted().done), default=0)
    return found if found.digest == digest and end <= min(there, found.size) else None


def save(path: Path, sidecar: Sidecar) -> None:
    """Replace the sidecar whole."""
    draft = path.with_name(f"{path.name}.new")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as out:
        out.write(sidecar.model_dump_json().encode())
    draft.replace(path)

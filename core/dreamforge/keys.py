"""Object keys: a pure function of the job row and the item, so a retry writes to the same place.

    dreamforge/{user}/jobs/{job_id}/{step}/{ts}_{index}_{w}x{h}_{seed}.{ext}
    dreamforge/{user}/jobs/{job_id}/{step}/manifest.json

``ts`` is the job's ``created_at``, not the time of writing: two attempts at an item share one key.
"""

import re
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

_NAME = re.compile(
    r"^(?P<ts>\d{8}T\d{6}Z)_(?P<index>\d{1,5})_(?P<width>\d{1,5})x(?P<height>\d{1,5})_(?P<seed>\d{1,10})\.(?P<ext>png|jpg)$"
)
_SAFE_KEY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")


class ArtifactName(NamedTuple):
    """What an artifact's file name says about it."""

    item_index: int
    width: int
    height: int
    seed: int
    ext: str


def step_prefix(job_id: UUID, step: str, user: str = "default") -> str:
    """The prefix that all objects of one step share; ends with a slash."""
    return f"dreamforge/{user}/jobs/{job_id}/{step}/"


def artifact_key(job_id: UUID, step: str, created_at: datetime, name: ArtifactName, user: str = "default") -> str:
    """The one key an item's image may have. ``created_at`` must carry a zone."""
    ts = created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    file = f"{ts}_{name.item_index}_{name.width}x{name.height}_{name.seed}.{name.ext}"
    return step_prefix(job_id, step, user) + file


def manifest_key(job_id: UUID, step: str, user: str = "default") -> str:
    """The key of the object that is written last, when every item of the step is stored."""
    return step_prefix(job_id, step, user) + "manifest.json"


def parse_artifact_key(key: str) -> ArtifactName | None:
    """Read an artifact key back; ``None`` when it is not one (the manifest, say)."""
    match = _NAME.fullmatch(key.rpartition("/")[2])
    if match is None:
        return None
    return ArtifactName(
        int(match["index"]), int(match["width"]), int(match["height"]), int(match["seed"]), match["ext"]
    )


def is_safe_key(key: str) -> bool:
    """Whether every segment is a plain name: no dot segments, no hidden files, no empty parts."""
    return len(key) <= 512 and _SAFE_KEY.fullmatch(key) is not None and key.isascii()

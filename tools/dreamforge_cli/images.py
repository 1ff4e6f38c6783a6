"""Saving a job's images: named by job, item and seed, each checked against its announced digest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamforge_cli.client import Client
from dreamforge_cli.console import results


@dataclass(frozen=True)
class Saved:
    """One image on disk."""

    path: Path
    seed: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "seed": self.seed, "sha256": self.sha256}


def save_all(client: Client, job_id: str, out: Path) -> list[Saved]:
    """Fetch what the job has made so far, in item order."""
    return [_save(client, job_id, artifact, out) for artifact in client.artifacts(job_id)]


def show(saved: list[Saved]) -> None:
    """Path, seed and sha256, one image a line."""
    for image in saved:
        results.print(f"{image.path}  seed={image.seed}  sha256={image.sha256}")


def _save(client: Client, job_id: str, artifact: Mapping[str, Any], out: Path) -> Saved:
    name = f"{job_id}_{int(artifact['item_index']):03d}_{int(artifact['seed'])}.{artifact['format']}"
    path = client.download(artifact, out / name)
    return Saved(path, int(artifact["seed"]), str(artifact["sha256"]))

"""Images for Compose: the project's own as ``make images`` builds them, and stand-ins where no registry is asked."""

import json
import os
import subprocess
from pathlib import Path

from tests.cluster import images, parts
from tests.compose.engine import Engine

_PARTS = ("api", "runner", "cli")
_SERVICES = {"postgres": "postgres", "redis": "redis", "s3": "versitygw"}
"""Services of public images, and their stand-ins."""


def made(engine: Engine, folder: Path) -> dict[str, str]:
    """Build what is missing; the variables that tell ``scripts/compose.sh`` of it."""
    if engine.name == "docker":
        command = [str(parts.ROOT / "scripts" / "images.sh"), *_PARTS]
        environment = {**os.environ, **engine.environment, "ENGINE": "docker", "TAG": "test"}
        subprocess.run(command, env=environment, check=True, timeout=images.BUILD_SECONDS)
        return {"TAG": "test"}
    tags = {images.project(part).rpartition(":")[2] for part in _PARTS}
    override = folder / "stand-ins.json"  # JSON is YAML
    services = {
        service: {"image": images.stand_in(name), "pull_policy": "never"} for service, name in _SERVICES.items()
    }
    override.write_text(json.dumps({"services": services}))
    (tag,) = tags
    return {"TAG": tag, "COMPOSE_EXTRA": str(override)}


def missing(engine: Engine) -> str | None:
    """Why images can't be made, or ``None``."""
    if engine.name == "podman" and not (parts.ROOT / ".cache" / "bin" / "versitygw").exists():
        return "the S3 server's stand-in needs `make s3-server`"
    return None

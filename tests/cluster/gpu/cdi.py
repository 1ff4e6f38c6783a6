"""The Container Device Interface spec of GPUs that are not there, as the vendor's toolkit would write it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

KIND = "nvidia.com/gpu"


def spec(devices: Sequence[str]) -> dict[str, Any]:
    """Each device brings its node (the host's ``/dev/null``) and an environment variable.

    Version 0.5.0 is the oldest that lets a node have another path on the host. With two devices in one container the
    last variable wins, as with real ones.
    """
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": [
            {
                "name": device,
                "containerEdits": {
                    "env": [f"NVIDIA_VISIBLE_DEVICES=GPU-fake-{index}"],
                    "deviceNodes": [{"path": f"/dev/nvidia{index}", "hostPath": "/dev/null", "permissions": "rw"}],
                },
            }
            for index, device in enumerate(devices)
        ],
    }


def write(path: Path, devices: Sequence[str]) -> None:
    """Whole at once: the runtime reads a spec as soon as it appears."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(spec(devices), indent=1))
    part.rename(path)

"""What a program that knows only Hugging Face's own client sees at ``HF_ENDPOINT``: one JSON document on stdout."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download


def refused(call: Callable[[], Any]) -> str:
    """The name of the error that the client raises."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - its kind is the answer
        return type(error).__name__
    return "none"


def seen(folder: Path) -> dict[str, Any]:
    """Every answer that the adapter relies on, as the client reads it."""
    api = HfApi(token=False)
    info = api.model_info("owner/thing-xl", revision="v1", files_metadata=True)
    about = get_hf_file_metadata(hf_hub_url("owner/thing-xl", "thing.safetensors"), token=False)
    small = get_hf_file_metadata(hf_hub_url("owner/thing-xl", "unet/config.json"), token=False)
    plan = hf_hub_download("owner/thing-xl", "thing.safetensors", dry_run=True, token=False, cache_dir=folder)
    weights = hf_hub_download("owner/thing-xl", "thing.safetensors", token=False, cache_dir=folder)
    whole = snapshot_download("owner/old", allow_patterns="*.json", token=False, cache_dir=folder)
    return {
        "commit": info.sha,
        "license": info.card_data.license if info.card_data else None,
        "files": {
            one.rfilename: [one.size, one.blob_id, one.lfs.sha256 if one.lfs else None] for one in info.siblings or []
        },
        "tree": sorted(entry.path for entry in api.list_repo_tree("owner/thing-xl", recursive=True)),
        "lfs": [about.commit_hash, about.etag, about.size],
        "git": [small.commit_hash, small.etag, small.size],
        "plan": [plan.commit_hash, plan.file_size],
        "sha256": hashlib.sha256(Path(weights).read_bytes()).hexdigest(),
        "snapshot": sorted(path.relative_to(whole).as_posix() for path in Path(whole).rglob("*.json")),
        "refused": {
            "no repository": refused(lambda: api.model_info("owner/nothing")),
            "no revision": refused(lambda: api.model_info("owner/thing-xl", revision="nope")),
            "no file": refused(lambda: hf_hub_download("owner/thing-xl", "nope", token=False, cache_dir=folder)),
            "gated": refused(lambda: hf_hub_download("owner/gated", "x.safetensors", token=False, cache_dir=folder)),
            "gated, by its check": refused(lambda: api.auth_check("owner/gated")),
            "gated, not a member": refused(lambda: api.auth_check("owner/gated", token="known")),
            "gated, a member": refused(lambda: api.auth_check("owner/gated", token="member")),
            "wrong token": refused(lambda: api.model_info("owner/thing-xl", token="unknown")),
            "disabled": refused(lambda: api.model_info("owner/disabled")),
        },
    }


if __name__ == "__main__":
    json.dump(seen(Path(sys.argv[1])), sys.stdout)

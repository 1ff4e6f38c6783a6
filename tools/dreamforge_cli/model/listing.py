"""`dreamforge model list`: what the server knows, and without one what lies on the disk."""

from pathlib import Path
from typing import Annotated, Any

import typer

from dreamforge import models_root
from dreamforge.models_root import Found
from dreamforge.settings import load
from dreamforge_cli import console
from dreamforge_cli.client import Client, Refused, ServerUnreachable, Stranger
from dreamforge_cli.model.places import DataOption, JsonOption, RootOption, edge, places
from dreamforge_cli.models.disk import size
from dreamforge_cli.models.settings import ModelSettings
from dreamforge_cli.models.staging import unfinished
from dreamforge_cli.server import server
from dreamforge_cli.settings import CliSettings


def list_models(
    enabled: Annotated[bool | None, typer.Option("--enabled/--disabled", help="Only those.")] = None,
    root: RootOption = None,
    data: DataOption = None,
    json: JsonOption = False,
) -> None:
    """List models: those the server knows; with --root, --data or no server running, those in the models root."""
    with edge():
        settings = load(CliSettings)
        under_way: dict[str, int] = {}
        named = "api_base" in settings.model_fields_set
        absent = None if named or root or data else _absent(settings.api_base)
        if root or data or absent:
            where = places(load(ModelSettings), root, data)
            under_way = unfinished(where.root)
            items, source = [on_disk(where.root, found) for found in models_root.scan(where.root)], "disk"
            if absent:
                console.remarks.print(f"{absent}: these are the models in {where.root}")
        else:
            items, source = _registered(settings.api_base, enabled), "server"
    if json:
        console.as_json({"items": items, "source": source})
        return
    for path, occupied in under_way.items():
        name = console.harmless(path.rpartition("/")[2])
        console.remarks.print(
            f"{name}: unfinished, {size(occupied)} so far; the same download goes on, `remove` ends it"
        )
    console.table(["ID", "KIND", "INSTALLED", "ENABLED", "SIZE", "SHA256", "NAME"], [_row(item) for item in items])


def on_disk(root: Path, found: Found) -> dict[str, Any]:
    """A folder of the models root as the registry would show it; ``enabled`` is known to the registry alone."""
    if found.model is None:
        return {
            "id": found.folder.name,
            "installed": False,
            "problem": found.problem,
            "local_path": str(found.folder),
        }
    entry = models_root.descriptor(root, found.model, found.problem).model_dump(mode="json")
    return {**entry, "enabled": None}


def _registered(base: str, enabled: bool | None) -> list[dict[str, Any]]:
    with server(base) as client:
        return client.models(enabled=None if enabled is None else str(enabled).lower())


def _absent(base: str) -> str | None:
    """Why there is no server to ask; ``None`` when ours answers, be it that it refuses, which is told then."""
    strange = f"what answers at {base} is no Dream Forge server"
    try:
        with Client(base) as client:
            client.models()
    except Stranger:
        return strange
    except ServerUnreachable:
        return f"no server at {base}"
    except Refused as error:
        return None if "code" in error.problem else f"{strange} ({error.status})"
    return None


def _row(item: dict[str, Any]) -> list[object]:
    there = "yes" if item["installed"] else f"no: {item['problem']}" if item.get("problem") else "no"
    enabled = {True: "yes", False: "no"}.get(item.get("enabled"), "")  # type: ignore[arg-type]  # None has no word
    bytes_ = item.get("size_bytes")
    hashed = str(item.get("checkpoint_hash") or "")[:12]
    return [item["id"], item.get("kind"), there, enabled, size(bytes_) if bytes_ else "", hashed, item.get("name")]

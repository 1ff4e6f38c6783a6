"""What must be true of every job that succeeded, whatever happened on the way."""

import json
from collections.abc import Mapping
from typing import Any

from tests.e2e.client import Frame, events_of
from tests.e2e.system import System, sha256


def whole(system: System, job: Mapping[str, Any]) -> list[Frame]:
    """The job succeeded and its rows, objects, links and events agree (I3, I4, I7); its events."""
    assert job["status"] == "succeeded", job
    assert job["completed"] == job["count"]
    assert job["progress"] == 1
    assert job["error"] is None
    images(system, job)
    frames = history(system, job, "succeeded")
    artifacts = [frame.data["item_index"] for frame in events_of(frames, "artifact")]
    assert sorted(artifacts) == list(range(job["count"]))
    attempts(system, job)
    return frames


def images(system: System, job: Mapping[str, Any]) -> None:
    """One artifact and one object for each item; all digests agree; the manifest names the same."""
    listed = system.client.artifacts(job["id"])
    assert [one["item_index"] for one in listed] == list(range(job["count"]))
    assert len({one["seed"] for one in listed}) == job["count"]
    rows = system.rows("SELECT * FROM artifacts WHERE job_id = %s ORDER BY item_index", job["id"])
    assert [row["item_index"] for row in rows] == list(range(job["count"]))
    items = system.rows("SELECT * FROM items WHERE job_id = %s ORDER BY item_index", job["id"])
    assert [item["seed"] for item in items] == [row["seed"] for row in rows] == [one["seed"] for one in listed]
    files = {path.name: path.read_bytes() for path in system.folder(job).iterdir()}
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["job_id"] == job["id"]
    assert {row["key"].rpartition("/")[2] for row in rows} == files.keys(), "an object that no artifact names"
    for row, one, noted in zip(rows, listed, manifest["items"], strict=True):
        file = files[row["key"].rpartition("/")[2]]
        assert noted["key"] == row["key"]
        assert sha256(file) == row["sha256"] == one["sha256"] == noted["sha256"]
        assert len(file) == row["size_bytes"] == one["size_bytes"]
        assert system.client.download(one) == file


def history(system: System, job: Mapping[str, Any], status: str) -> list[Frame]:
    """The replay is gapless and ends with the one terminal event, then ``end``."""
    *frames, end = system.client.stream(job["id"])
    last = frames[-1]
    assert [frame.id for frame in frames] == list(range(1, len(frames) + 1))
    assert (end.event, end.data) == ("end", {"last_seq": len(frames)})
    terminal = [f for f in events_of(frames, "state") if f.data["status"] in {"succeeded", "failed", "canceled"}]
    assert terminal == [last]
    assert last.data["status"] == status
    assert {frame.data["job_id"] for frame in frames} == {job["id"]}
    return frames


def attempts(system: System, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """No attempt is left open, and each that said how it ended left its GPU verdict (OR-001)."""
    rows = system.rows("SELECT * FROM attempts WHERE job_id = %s ORDER BY number", job["id"])
    assert rows
    assert [row["number"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert row["status"] != "running"
        assert row["finished_at"] is not None
        if row["status"] != "lost":
            assert row["gpu"] is not None, row
    return rows

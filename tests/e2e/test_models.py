"""From a reference to a rendered image: both sources, one running system (AC-8, AC-9)."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import tiny_sdxl
from tests.e2e import checks, pictures
from tests.e2e.system import System, sha256
from tests.model_kit import BASE, BASE_COMMIT, Shops, open_shops, other, tiny
from tests.servers.stack import clean_environment, command, until

HF_TOKEN, CIVITAI_TOKEN = "hf_canaryCanaryCanary", "civitaiCanaryCanaryCanary"
HF_MODEL = "sdxl-tiny-sdxl"
CIVITAI_MODEL = "sdxl-epicrealism-xl"


@pytest.fixture(scope="module")
def shops() -> Iterator[Shops]:
    """The tiny checkpoint with its configuration at Hugging Face, behind a login, and without at CivitAI."""
    if missing := tiny_sdxl.missing_library():
        pytest.skip(missing)
    data, config = tiny()
    with open_shops(config) as opened:
        opened.hf.tokens = opened.hf.members = {HF_TOKEN}
        opened.civitai.tokens = {CIVITAI_TOKEN}
        opened.hf.add("acme/tiny-sdxl", {"tiny-sdxl.safetensors": data, **config}, gated="auto")
        model = opened.civitai.add_checkpoint(277058, 646523, "epiCRealism XL", other(data), "v8")
        model.versions[0].needs_login = True
        yield opened


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, shops: Shops) -> Iterator[System]:
    """`dreamforge up` with no model at all."""
    running = System(tmp_path_factory.mktemp("e2e-models") / "data", environment={"OMP_NUM_THREADS": "1"})
    try:
        yield running.start()
    finally:
        running.end()


@pytest.fixture(scope="module")
def downloaded(up: System, shops: Shops) -> list[dict[str, Any]]:
    """What `model download` says in the end of each."""
    told = [model(up, shops, "download", ref, "--json") for ref in ("hf:acme/tiny-sdxl", "civitai:277058")]
    return [json.loads(text.splitlines()[-1]) for text in told]


def model(up: System, shops: Shops, *arguments: str, status: int = 0) -> str:
    """Run `dreamforge model ... --data DIR`; its stdout."""
    environment = clean_environment(**shops.environment, HF_TOKEN=HF_TOKEN, CIVITAI_TOKEN=CIVITAI_TOKEN)
    line = command("model", *arguments, "--data", up.data)
    done = subprocess.run(line, env=environment, cwd=up.data.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout + done.stderr
    for token in (HF_TOKEN, CIVITAI_TOKEN):
        assert token not in done.stdout + done.stderr
    return done.stdout


def registered(up: System, slug: str) -> dict[str, Any]:
    """The entry of ``GET /v1/models``."""
    items = up.client.http.get("/v1/models").json()["items"]
    (found,) = [item for item in items if item["id"].startswith(f"{slug}@")]
    return dict(found)


def folder_of(entry: dict[str, Any]) -> Path:
    return Path(entry["local_path"]).parent


def test_both_are_registered_with_checksum_and_provenance(up, shops, downloaded):
    data, _ = tiny()
    assert [(told["event"], told["registered"]) for told in downloaded] == [("installed", True)] * 2
    hf, civitai = registered(up, HF_MODEL), registered(up, CIVITAI_MODEL)
    assert [hf["id"], civitai["id"]] == [told["id"] for told in downloaded]
    for entry, content in ((hf, data), (civitai, other(data))):
        assert (entry["installed"], entry["enabled"], entry["problem"]) == (True, True, None)
        assert entry["checkpoint_hash"] == sha256(content) == sha256(Path(entry["local_path"]).read_bytes())
        assert entry["size_bytes"] == len(content)
        assert entry["parameters_schema"]["properties"]["steps"]["maximum"] == 150
        for file in entry["files"]:
            assert sha256((folder_of(entry) / file["path"]).read_bytes()) == file["sha256"]
    assert hf["source_uri"].startswith("hf:acme/tiny-sdxl@")
    assert hf["provenance"]["commit"] == hashlib.sha1(b"acme/tiny-sdxl", usedforsecurity=False).hexdigest()
    assert civitai["provenance"]["ids"]["version"] == "646523"
    assert civitai["provenance"]["ids"]["config"] == f"hf:{BASE}@{BASE_COMMIT}"


def test_a_job_runs_on_each(up, downloaded):
    for told in downloaded:
        job = up.client.render(model_id=told["id"], seed=3)
        checks.whole(up, job)
        assert job["model_id"] == told["id"]
        (artifact,) = up.client.artifacts(job["id"])
        picture = pictures.read(up.client.download(artifact))
        assert (picture.fields["backend"], picture.fields["model_id"]) == ("sdxl", told["id"])
        assert picture.fields["checkpoint_hash"] == artifact["metadata"]["checkpoint_hash"] == told["sha256"]


def test_a_slug_means_its_newest_version_and_the_default_is_epicrealism(up, downloaded):
    for fields in ({"model_id": CIVITAI_MODEL}, {}):
        job = up.client.render(**fields)
        assert job["model_id"] == downloaded[1]["id"]
        assert job["warnings"] == []


def test_a_second_download_fetches_nothing(up, shops, downloaded):
    before = shops.sent_bytes
    for ref, first in zip(("hf:acme/tiny-sdxl", "civitai:277058"), downloaded, strict=True):
        told = json.loads(model(up, shops, "download", ref, "--json").splitlines()[-1])
        assert (told["event"], told["id"], told["fetched"]) == ("already_installed", first["id"], 0)
    assert shops.sent_bytes == before


def test_list_shows_them_from_server_and_from_disk(up, shops, downloaded):
    from_disk = json.loads(model(up, shops, "list", "--json"))
    assert from_disk["source"] == "disk"
    line = command("model", "list", "--json")
    environment = clean_environment(DF_API_BASE=up.up.url)
    done = subprocess.run(line, env=environment, cwd=up.data.parent, capture_output=True, text=True, timeout=60)
    from_server = json.loads(done.stdout)
    assert from_server["source"] == "server"
    for listed in (from_disk, from_server):
        found = {item["id"]: item["checkpoint_hash"] for item in listed["items"]}
        assert {told["id"]: told["sha256"] for told in downloaded}.items() <= found.items()


def test_a_damaged_model_is_found_refused_and_mended(up, shops, downloaded):
    entry = registered(up, HF_MODEL)
    tokenizer = folder_of(entry) / "config" / "tokenizer" / "tokenizer.json"
    good = tokenizer.read_bytes()
    tokenizer.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    told = json.loads(model(up, shops, "verify", entry["id"], "--json", status=1))
    assert [item["ok"] for item in told["items"]] == [False]
    damaged = registered(up, HF_MODEL)
    assert damaged["installed"] is False
    assert "tokenizer" in damaged["problem"]
    answer = up.client.http.post("/v1/jobs", json={"type": "generate", "prompt": "x", "model_id": entry["id"]})
    assert answer.status_code == 422
    assert "tokenizer" in answer.text
    before = shops.sent_bytes
    model(up, shops, "download", "hf:acme/tiny-sdxl")
    assert shops.sent_bytes - before < 100_000  # the weights were good
    assert tokenizer.read_bytes() == good
    assert registered(up, HF_MODEL)["installed"] is True
    checks.whole(up, up.client.render(model_id=entry["id"]))


def test_a_model_in_use_stays_and_an_unused_one_goes(up, shops, downloaded):
    told = downloaded[0]
    job = up.client.post(model_id=told["id"], steps=150, count=100)
    refused = subprocess.run(
        command("model", "remove", told["id"], "--data", up.data),
        env=clean_environment(), cwd=up.data.parent, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert refused.returncode == 5, refused.stderr
    assert "job" in refused.stderr
    assert registered(up, HF_MODEL)["installed"] is True
    up.client.cancel(job["id"])
    up.client.wait(job["id"], "canceled")
    model(up, shops, "remove", told["id"])
    assert up.client.http.get(f"/v1/models/{told['id']}").status_code == 404
    assert not Path(told["folder"]).exists()
    model(up, shops, "download", "hf:acme/tiny-sdxl")
    checks.whole(up, up.client.render(model_id=told["id"]))


def test_a_model_put_into_the_root_by_hand_is_found(up, shops, downloaded, tmp_path):
    """A folder from another machine, as over an air gap: the worker registers it by itself."""
    apart = tmp_path / "apart"
    subprocess.run(
        command("model", "download", "hf:acme/tiny-sdxl", "--id", "sdxl-by-hand", "--root", apart, "--json"),
        env=clean_environment(**shops.environment, HF_TOKEN=HF_TOKEN),
        cwd=tmp_path, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    (folder,) = (apart / "sdxl-checkpoint").iterdir()
    folder.rename(up.data / "models" / "sdxl-checkpoint" / folder.name)

    def there() -> bool:
        return bool(up.client.http.get(f"/v1/models/{folder.name}").is_success)

    until(there, 60, "the registration of a model put there by hand")
    checks.whole(up, up.client.render(model_id=folder.name))


def small_files(root: Path) -> dict[Path, bytes]:
    """The files under `root`, less the weights. The system runs on: a spool it just ended is passed over."""
    found = {}
    for folder, _, names in os.walk(root):
        for path in (Path(folder) / name for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_size < 2**20:
                    found[path] = path.read_bytes()
    return found


def test_no_token_is_anywhere(up, downloaded):
    kept = small_files(up.data)
    assert {"api.ndjson", "worker.ndjson"} <= {path.name for path in kept}
    for token in (HF_TOKEN.encode(), CIVITAI_TOKEN.encode()):
        assert [path for path, content in kept.items() if token in content] == []
    rows = json.dumps(up.rows("SELECT * FROM models"), default=str)
    rows += json.dumps(up.rows("SELECT * FROM model_events"), default=str)
    assert HF_TOKEN not in rows
    assert CIVITAI_TOKEN not in rows


def test_models_that_were_copied_render_from_the_first_moment_without_a_network(up, downloaded, tmp_path):
    """Last in this file: it ends the running system, and starts a new one that has nothing but the models."""
    shutil.copytree(up.data / "models", tmp_path / "data" / "models")
    up.end()
    nowhere = {"OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    offline = System(tmp_path / "data", environment=nowhere)
    try:
        offline.start()
        job = offline.client.render()
        assert job["model_id"] == downloaded[1]["id"]
        checks.whole(offline, job)
        (said,) = [line for line in offline.up.remarks().splitlines() if line.startswith("backend: sdxl with ")]
        assert downloaded[1]["id"] in said
    finally:
        offline.end()

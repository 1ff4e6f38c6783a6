"""``once``: one spec, one exit code, whatever happens."""

import hashlib
import io
import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dreamforge.events import AttemptFinished, Outcome
from dreamforge.keys import manifest_key, parse_artifact_key, step_prefix
from dreamforge.spec import Limits, RenderSpec, Shard
from dreamforge.storage.filesystem import FilesystemStore
from tests.integration.runner_kit import Ingest, Runner, make_spec, wait_for


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "r"


def render(home: Path, spec: RenderSpec, redis_url: str | None = None, **settings: str) -> Runner:
    home.mkdir(exist_ok=True)
    (home / "spec.json").write_text(spec.model_dump_json())
    return Runner(home, "once", "spec.json", redis_url=redis_url, **settings)


def store_of(home: Path) -> FilesystemStore:
    return FilesystemStore(home / ".dreamforge" / "objects", None)


def test_without_redis_a_person_reads_along(home: Path):
    spec = make_spec("a castle", kind="sketch", params={"count": 2})
    code, out = render(home, spec).finish()
    assert code == 0
    lines = out.splitlines()
    assert "started on" in lines[0]
    assert "succeeded, 2 stored, exit code 0" in lines[-1]
    assert "GPU memory" in out
    manifest = json.loads(store_of(home).get(manifest_key(spec.job_id, "generate")))
    assert [row["item_index"] for row in manifest["items"]] == [0, 1]
    for row in manifest["items"]:
        image = Image.open(io.BytesIO(store_of(home).get(row["key"])))
        assert image.size == (256, 256)
        assert json.loads(image.info["dreamforge"])["seed"] == row["seed"]
    assert len({row["seed"] for row in manifest["items"]}) == 2
    assert not list((home / ".dreamforge" / "spool").glob("runner-*"))


def test_the_same_seed_gives_the_same_file(home: Path):
    digests = set()
    for _ in range(2):
        spec = make_spec("a castle", kind="sketch", params={"seed": 5})
        assert render(home, spec).finish()[0] == 0
        manifest = json.loads(store_of(home).get(manifest_key(spec.job_id, "generate")))
        data = store_of(home).get(manifest["items"][0]["key"])
        digests.add(Image.open(io.BytesIO(data)).tobytes())
    assert len(digests) == 1


def test_a_second_attempt_renders_nothing_twice(home: Path):
    spec = make_spec("a castle", kind="sketch", params={"count": 2})
    assert render(home, spec).finish()[0] == 0
    before = {info.key: info.modified_at for info in store_of(home).list(step_prefix(spec.job_id, "generate"))}
    code, out = render(home, spec).finish()
    assert code == 0
    assert out.count("stored dreamforge/") == 2
    assert "seed" not in out, "no item was started"
    after = {info.key: info.modified_at for info in store_of(home).list(step_prefix(spec.job_id, "generate"))}
    images = [key for key in before if key.endswith(".png")]
    assert {key: before[key] for key in images} == {key: after[key] for key in images}


@pytest.mark.parametrize(
    ("prompt", "kind", "model_id", "code", "said"),
    [
        ("oom", "faulty", "m", 13, "gpu_oom"),
        ("raises", "faulty", "m", 21, "provider_error"),
        ("decode", "faulty", "m", 22, "gpu_fault"),
        ("killed", "faulty", "m", 21, "SIGKILL"),
        ("fine", "faulty", "absent", 11, "model_missing"),
        ("fine", "flux", "m", 10, "invalid_input"),
    ],
)
def test_each_class_has_its_exit_code(home: Path, prompt: str, kind: str, model_id: str, code: int, said: str):
    verdict = home / "verdict.json"
    spec = make_spec(f"{prompt} my secret words", kind=kind, model_id=model_id)
    runner = render(home, spec, DF_TERMINATION_LOG=str(verdict))
    left_with, out = runner.finish()
    assert left_with == code
    assert said in out.splitlines()[-1]
    told = json.loads(verdict.read_text())
    assert (told["v"], told["exit_code"], told["items_done"]) == (1, code, 0)
    assert "secret" not in out + runner.log + verdict.read_text()


def test_a_model_that_never_loads_is_a_timeout(home: Path):
    limits = Limits(item_timeout_seconds=0.5, grace_seconds=0.2)
    code, out = render(home, make_spec("hangs", limits=limits)).finish()
    assert code == 31
    assert "item_timeout" in out


def test_the_jobs_deadline_ends_it(home: Path):
    limits = Limits(deadline_at=make_spec().created_at, grace_seconds=0.2)
    code, out = render(home, make_spec("slow", limits=limits)).finish()
    assert code == 31
    assert "job_timeout" in out


@pytest.mark.parametrize("content", [b"", b"{}", b'{"prompt": "my secret words"}', b"\xff\xff"])
def test_a_file_that_is_no_spec_is_invalid_input(home: Path, content: bytes):
    home.mkdir()
    (home / "spec.json").write_bytes(content)
    runner = Runner(home, "once", "spec.json")
    assert runner.finish()[0] == 10
    assert "secret" not in runner.log


def test_no_file_is_invalid_input(home: Path):
    assert Runner(home, "once", "absent.json").finish()[0] == 10


def test_a_wrong_setting_is_one_readable_line(home: Path):
    runner = render(home, make_spec(), DF_RUNNER_BACKEND="gpu")
    assert runner.finish()[0] == 2
    assert runner.log == "DF_RUNNER_BACKEND: must be one of auto, sketch, sdxl (got 'gpu')\n"


def test_sdxl_without_a_checkpoint_names_the_path(home: Path):
    runner = render(home, make_spec(), DF_RUNNER_BACKEND="sdxl", DF_GENERATE_MODEL_PATH="/models/none.safetensors")
    assert runner.finish()[0] == 2
    assert "/models/none.safetensors" in runner.log
    assert runner.log.count("\n") == 1


def test_a_store_that_can_not_be_written_is_a_storage_error(home: Path):
    home.mkdir()
    (home / "objects").write_text("a file where the folder should be")
    code, out = render(home, make_spec("a castle", kind="sketch"), DF_STORE_ROOT=str(home / "objects")).finish()
    assert code == 20
    assert "storage_error" in out
    assert stat.S_ISREG((home / "objects").stat().st_mode)


def test_sigterm_ends_it_as_stopped(home: Path):
    runner = render(home, make_spec("slow"))
    wait_for(lambda: "repeats the prompt" in runner.log, what="rendering")
    runner.process.send_signal(signal.SIGTERM)
    code, out = runner.finish()
    assert code == 30
    assert "stopped" in out.splitlines()[-1]


@pytest.fixture
def ingest(redis_db: str) -> Iterator[Ingest]:
    consumer = Ingest(redis_db)
    yield consumer
    consumer.stop()


def test_with_redis_it_waits_until_the_events_are_safe(home: Path, redis_db: str, ingest: Ingest):
    spec = make_spec(params={"count": 2})
    runner = render(home, spec, redis_db, DF_ATTEMPT_ID="pod-uid-1")
    assert runner.finish()[0] == 0
    (end,) = ingest.of(spec.job_id, AttemptFinished)
    assert (end.outcome, end.items_done) == (Outcome.SUCCEEDED, 2)
    assert ingest.attempts(spec.job_id) == ["pod-uid-1"]
    assert runner.spools == []


def test_without_an_ack_the_events_stay_in_the_spool_for_the_next(home: Path, redis_db: str, ingest: Ingest):
    ingest.paused.set()
    spec = make_spec()
    runner = render(home, spec, redis_db, DF_ACK_TIMEOUT_SECONDS="0.5")
    assert runner.finish()[0] == 0
    assert len(runner.spools) == 1
    ingest.paused.clear()
    other = make_spec()
    assert render(home, other, redis_db).finish()[0] == 0
    assert ingest.of(spec.job_id, AttemptFinished)
    assert ingest.of(other.job_id, AttemptFinished)


def test_redis_that_is_away_does_not_stop_the_work(home: Path):
    spec = make_spec()
    runner = render(home, spec, "redis://127.0.0.1:1/0", DF_ACK_TIMEOUT_SECONDS="0.2")
    assert runner.finish()[0] == 0
    assert len(list(store_of(home).list(step_prefix(spec.job_id, "generate")))) == 2
    assert len(runner.spools) == 1


def test_each_pod_renders_its_shard_and_the_last_one_writes_the_manifest(home: Path):
    spec = make_spec("a castle", kind="sketch", params={"count": 3}, shard=Shard(count=2))
    first, last = home / "first.json", home / "last.json"

    def stored() -> list[int]:
        names = (parse_artifact_key(info.key) for info in store_of(home).list(step_prefix(spec.job_id, "generate")))
        return sorted(name.item_index for name in names if name is not None)

    assert render(home, spec, JOB_COMPLETION_INDEX="0", DF_TERMINATION_LOG=str(first)).finish()[0] == 0
    assert "manifest_sha256" not in json.loads(first.read_text())
    assert stored() == [0, 2]
    assert store_of(home).head(manifest_key(spec.job_id, "generate")) is None
    assert render(home, spec, JOB_COMPLETION_INDEX="1", DF_TERMINATION_LOG=str(last)).finish()[0] == 0
    assert stored() == [0, 1, 2]
    manifest = store_of(home).get(manifest_key(spec.job_id, "generate"))
    assert [row["item_index"] for row in json.loads(manifest)["items"]] == [0, 1, 2]
    told = json.loads(last.read_text())
    assert (told["items_done"], told["manifest_sha256"]) == (1, hashlib.sha256(manifest).hexdigest())


def test_a_shard_that_is_none_is_invalid_input_and_the_pod_says_so(home: Path):
    verdict = home / "verdict.json"
    runner = render(home, make_spec(), JOB_COMPLETION_INDEX="1", DF_TERMINATION_LOG=str(verdict))
    assert runner.finish()[0] == 10
    told = json.loads(verdict.read_text())
    assert (told["class"], told["exit_code"]) == ("invalid_input", 10)


def test_events_name_the_shard_and_how_many_there_are(home: Path, redis_db: str, ingest: Ingest):
    spec = make_spec(params={"count": 2}, shard=Shard(count=2))
    assert render(home, spec, redis_db, JOB_COMPLETION_INDEX="1").finish()[0] == 0
    batches = [batch for batch in ingest.sink.batches if batch.job_id == spec.job_id]
    assert {(batch.shard, batch.shards) for batch in batches} == {(1, 2)}

"""The runner with the real SDXL backend and a tiny checkpoint: warm, repeatable, and alive after broken files."""

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from dreamforge.errors import ErrorCode
from dreamforge.events import ArtifactStored, AttemptFinished, GpuMeasured, Outcome
from dreamforge.spec import ModelRef, RenderSpec
from dreamforge.storage.filesystem import FilesystemStore
from tests.integration.runner_kit import Ingest, Runner, make_spec, submit, wait_for
from tests.tiny_sdxl import TinySdxl

pytestmark = pytest.mark.sdxl

WAIT_SECONDS = 150.0  # the child imports torch and diffusers


@pytest.fixture
def ingest(redis_db: str) -> Iterator[Ingest]:
    consumer = Ingest(redis_db)
    yield consumer
    consumer.stop()


@pytest.fixture
def runner(tmp_path: Path, redis_db: str, ingest: Ingest, tiny: TinySdxl) -> Iterator[Runner]:
    settings = {"DF_RUNNER_BACKEND": "sdxl", "DF_GENERATE_MODEL_PATH": str(tiny.checkpoint)}
    with Runner(tmp_path / "r", "serve", redis_url=redis_db, **settings).wait_ready() as serving:
        yield serving
        assert serving.stop() == 0


def sdxl_spec(path: Path, **params: object) -> RenderSpec:
    model = ModelRef(id="sdxl-tiny", name="Tiny", kind="sdxl-checkpoint", version="1", path=str(path))
    return make_spec("a castle", params={"steps": 2, **params}).model_copy(update={"model": model})


def end_of(ingest: Ingest, job_id: UUID) -> AttemptFinished:
    wait_for(lambda: ingest.of(job_id, AttemptFinished), WAIT_SECONDS)
    return ingest.of(job_id, AttemptFinished)[0]


def pixels(runner: Runner, event: ArtifactStored) -> bytes:
    data = FilesystemStore(runner.home / ".dreamforge" / "objects", None).get(event.key)
    path = runner.home / "image"
    path.write_bytes(data)
    with Image.open(path) as image:
        told = json.loads(image.info["dreamforge"])
        assert (told["backend"], told["plan"]) == ("sdxl", event.metadata["plan"])
        assert "@" in told["plan"]
        return image.tobytes()


def test_sdxl_stays_warm_repeats_a_seed_and_outlives_a_broken_checkpoint(
    runner: Runner, redis_db: str, ingest: Ingest, tiny: TinySdxl, tmp_path: Path
):
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(tiny.checkpoint.read_bytes()[:5000])
    first, second = sdxl_spec(tiny.checkpoint, seed=5), sdxl_spec(tiny.checkpoint, seed=5)
    batch, wrong, after = sdxl_spec(tiny.checkpoint, count=3), sdxl_spec(broken), sdxl_spec(tiny.checkpoint)
    ends: dict[UUID, AttemptFinished] = {}
    # All at once, the last would overtake the wrong one: its model is loaded.
    for specs in ((first, second, batch, wrong), (after,)):
        for spec in specs:
            submit(redis_db, spec)
        ends |= {spec.job_id: end_of(ingest, spec.job_id) for spec in specs}
    outcomes = [end.outcome for end in ends.values()]
    assert outcomes == [Outcome.SUCCEEDED] * 3 + [Outcome.FAILED, Outcome.SUCCEEDED]
    failure = ends[wrong.job_id].failure
    assert failure is not None
    assert failure.code is ErrorCode.MODEL_INVALID
    # The runner was not ready before it had loaded the configured checkpoint.
    assert runner.log.index("model is warm") < runner.log.index("runner is ready")
    assert "model.reused" in ingest.logs(first.job_id)
    assert "model.reused" in ingest.logs(second.job_id)
    assert "model.loaded" in ingest.logs(after.job_id)
    assert runner.log.count("render child started") == 1
    (one,), (two,) = ingest.of(first.job_id, ArtifactStored), ingest.of(second.job_id, ArtifactStored)
    assert pixels(runner, one) == pixels(runner, two)
    assert len({event.item_seed for event in ingest.of(batch.job_id, ArtifactStored)}) == 3
    (measured,) = ingest.of(first.job_id, GpuMeasured)
    assert not measured.child_discarded

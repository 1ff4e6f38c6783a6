"""The runner and installed models: which file it takes, which it refuses, and what its images say of it.

One warm runner for all of it: importing the libraries costs more than every job here together.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dreamforge import models_root
from dreamforge.checkpoints import digest
from dreamforge.errors import ErrorCode
from dreamforge.events import ArtifactStored, AttemptFinished, Outcome
from dreamforge.models_root import InstalledModel
from dreamforge.spec import ModelRef, RenderSpec
from dreamforge.storage.filesystem import FilesystemStore
from tests.adoption import adopted
from tests.integration.runner_kit import Ingest, Runner, make_spec, submit, wait_for
from tests.tiny_sdxl import TinySdxl, broken

pytestmark = pytest.mark.sdxl

WAIT_SECONDS = 150.0  # the child imports torch and diffusers


@pytest.fixture
def ingest(redis_db: str) -> Iterator[Ingest]:
    with Ingest(redis_db) as consumer:
        yield consumer


def installed(root: Path, tiny: TinySdxl) -> InstalledModel:
    """As ``dreamforge model adopt`` leaves it, with bytes of its own."""
    return adopted(root, tiny.checkpoint, config=tiny.config, copy=True)


def registered(model: InstalledModel) -> ModelRef:
    """What the control loop makes of its row, on a machine whose models root is another."""
    file = model.checkpoint
    return ModelRef(
        id=model.id,
        name=model.name,
        kind=model.kind.value,
        version=model.version,
        path=f"/elsewhere/{model.folder}/{file.path}",
        folder_path=f"{model.folder}/{file.path}",
        sha256=file.sha256,
        size_bytes=file.size_bytes,
    )


class Client:
    """Hands jobs to a runner and waits for their ends."""

    def __init__(self, redis_url: str, ingest: Ingest) -> None:
        self._redis_url = redis_url
        self.ingest = ingest

    def job(self, model: ModelRef, **params: Any) -> tuple[RenderSpec, AttemptFinished]:
        spec = make_spec("a castle", params={"steps": 1, **params}).model_copy(update={"model": model})
        submit(self._redis_url, spec)
        wait_for(lambda: self.ingest.of(spec.job_id, AttemptFinished), WAIT_SECONDS)
        return spec, self.ingest.of(spec.job_id, AttemptFinished)[0]

    def renders(self, model: ModelRef) -> ArtifactStored:
        spec, end = self.job(model)
        assert end.outcome is Outcome.SUCCEEDED, end.failure
        return self.ingest.of(spec.job_id, ArtifactStored)[0]

    def refuses(self, model: ModelRef, words: str) -> ErrorCode:
        spec, end = self.job(model)
        assert end.failure is not None
        assert words in end.failure.message
        assert not self.ingest.of(spec.job_id, ArtifactStored)
        return end.failure.code


def replaced(path: Path, data: bytes) -> None:
    """As a person would put a file in place of another."""
    draft = path.with_suffix(".new")
    draft.write_bytes(data)
    draft.replace(path)


def test_an_installed_model_from_its_root_to_its_images(
    tmp_path: Path, redis_db: str, ingest: Ingest, tiny: TinySdxl
):
    root = tmp_path / "models"
    model = installed(root, tiny)
    reference, checkpoint = registered(model), root / model.folder / model.checkpoint.path
    good, client = checkpoint.read_bytes(), Client(redis_db, ingest)
    settings = {"DF_RUNNER_BACKEND": "sdxl", "DF_MODELS_ROOT": str(root)}
    with Runner(tmp_path / "r", "serve", redis_url=redis_db, **settings).wait_ready(WAIT_SECONDS) as runner:
        # The row's path is another machine's: the place below this runner's root counts.
        spec, _ = client.job(reference)
        (stored,) = ingest.of(spec.job_id, ArtifactStored)
        assert "model.reused" in ingest.logs(spec.job_id)  # it was warm before it said that it is ready
        said = {"model_id": model.id, "model_version": model.version, "checkpoint_hash": model.checkpoint.sha256}
        assert {name: stored.metadata[name] for name in said} == said
        beside = FilesystemStore(runner.home / ".dreamforge" / "objects", None).head(stored.key)
        assert beside is not None
        assert beside.metadata["checkpoint-hash"] == model.checkpoint.sha256
        # The folder alone is enough, as the operator tells it of a RenderJob that names the model.
        bare = reference.model_copy(update={"path": None, "folder_path": model.folder, "sha256": None})
        assert client.renders(bare).metadata["checkpoint_hash"] == model.checkpoint.sha256
        # By hand and without a recorded hash: the image carries the one of the file that was loaded.
        by_hand = ModelRef(id="mine", name="m", kind="sdxl-checkpoint", version="local", path=str(tiny.checkpoint))
        assert client.renders(by_hand).metadata["checkpoint_hash"] == digest.sha256(tiny.checkpoint)
        client.renders(reference)

        # Another file of the same size, a shorter one, none: each refused, with the model still warm in the child.
        replaced(checkpoint, broken.with_weights_that_are_not_numbers(good, "first_stage_model.decoder."))
        assert client.refuses(reference, "sha256") is ErrorCode.MODEL_INVALID
        replaced(checkpoint, good[:-1])
        assert client.refuses(reference, "truncated") is ErrorCode.MODEL_INVALID
        checkpoint.unlink()
        assert client.refuses(reference, "no model at") is ErrorCode.MODEL_MISSING
        checkpoint.symlink_to(tiny.checkpoint)
        assert client.refuses(reference, "leads out of the models root") is ErrorCode.MODEL_INVALID
        checkpoint.unlink()
        replaced(checkpoint, good)
        vocabulary = next((root / model.folder / "config/tokenizer").glob("*.json"))
        told = vocabulary.read_bytes()
        vocabulary.write_bytes(told + b" ")
        assert client.refuses(reference, vocabulary.name) is ErrorCode.MODEL_INVALID
        vocabulary.write_bytes(told)
        client.renders(reference)
        assert runner.log.count("render child started") == 1
        assert runner.stop() == 0


_PARTS = ("first_stage_model.decoder.", "model.diffusion_model.", "conditioner.embedders.1.model.transformer.")


def test_what_only_rendering_finds_and_what_is_not_read_again(
    tmp_path: Path, redis_db: str, ingest: Ingest, tiny: TinySdxl
):
    root, good = tmp_path / "models", tiny.checkpoint.read_bytes()
    damaged = []
    for part in _PARTS:
        bad = tmp_path / f"{part}safetensors"
        bad.write_bytes(broken.with_weights_that_are_not_numbers(good, part))
        damaged.append(adopted(root, bad, config=tiny.config))
    model = installed(root, tiny)
    (entry,) = [e for e in digest.memory_of(root).iterdir() if e.read_text() == model.checkpoint.sha256]
    entry.write_text("f" * 64)  # only a reader of the root's memory can know this
    settings = {"DF_MODELS_ROOT": str(root), "DF_HASH_CACHE_PATH": ""}
    with Runner(tmp_path / "r", "serve", redis_url=redis_db, **settings).wait_ready(WAIT_SECONDS) as runner:
        client = Client(redis_db, ingest)
        # Nobody looks at gigabytes of weights before they are used; then it is an error and never a black image.
        for one in damaged:
            assert client.refuses(registered(one), "not numbers") is ErrorCode.MODEL_INVALID
        # What a pod meets: who downloaded the model wrote down its hash on the volume, and the runner has no other.
        stored = client.renders(registered(model).model_copy(update={"sha256": "f" * 64}))
        assert stored.metadata["checkpoint_hash"] == "f" * 64
        assert not (runner.home / ".dreamforge" / "hashes").exists()
        assert runner.stop() == 0


def converted(home: Path, folder: Path, *options: str) -> dict[str, Any]:
    """What the command prints."""
    code, said = Runner(home, "convert", str(folder), *options).finish(WAIT_SECONDS)
    assert code == 0, said
    return dict(json.loads(said))


def test_a_converted_model_with_its_checkpoint_and_without(
    tmp_path: Path, redis_db: str, ingest: Ingest, tiny: TinySdxl
):
    root = tmp_path / "models"
    model = installed(root, tiny)
    reference, folder = registered(model), root / model.folder
    told = converted(tmp_path / "c", folder, "--dtype", "float32")
    assert (told["event"], told["dtype"], told["original_kept"]) == ("converted", "float32", True)
    settings = {"DF_RUNNER_BACKEND": "sdxl", "DF_MODELS_ROOT": str(root), "DF_HASH_CACHE_PATH": ""}
    with Runner(tmp_path / "r", "serve", redis_url=redis_db, **settings).wait_ready(WAIT_SECONDS) as runner:
        client = Client(redis_db, ingest)

        def warm(model: ModelRef) -> bool:
            spec, _ = client.job(model)
            (stored,) = ingest.of(spec.job_id, ArtifactStored)
            assert stored.metadata["checkpoint_hash"] == told_hash
            assert "model.conversion_ignored" not in ingest.logs(spec.job_id)
            return "model.reused" in ingest.logs(spec.job_id)

        told_hash = model.checkpoint.sha256
        assert warm(reference)
        told = converted(tmp_path / "c", folder, "--drop-original")
        assert (told["original_kept"], (folder / model.checkpoint.path).exists()) == (False, False)
        # Loaded once more, from other files than before; then they are what the model is known by.
        assert [warm(reference) for _ in range(2)] == [False, True]
        models_root.write(root, models_root.read(folder).model_copy(update={"verified_at": datetime.now(UTC)}))
        assert warm(reference)
        assert warm(reference.model_copy(update={"path": None, "folder_path": model.folder, "sha256": None}))

        unet = folder / "converted" / "unet.safetensors"
        good = unet.read_bytes()
        replaced(unet, good[:-1] + b"\x55")
        assert client.refuses(reference, "was not kept") is ErrorCode.MODEL_INVALID
        replaced(unet, good)
        assert not warm(reference)
        assert runner.log.count("render child started") == 1
        assert runner.stop() == 0

"""Converted files on the real libraries: the checkpoint's own pictures, and what happens when they can't be had."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamforge import models_root
from dreamforge.checkpoints import converted, digest
from dreamforge.errors import ErrorCode, JobError
from dreamforge.models_root import InstalledModel
from dreamforge.spec import ModelRef
from dreamforge_runner.backends.base import Notice
from dreamforge_runner.backends.sdxl import SdxlBackend, conversion
from dreamforge_runner.backends.sdxl.plan import Number
from dreamforge_runner.backends.sdxl.plan_settings import PlanSettings
from dreamforge_runner.backends.sdxl.settings import SdxlSettings
from tests import tiny_sdxl
from tests.adoption import adopted
from tests.golden import renders
from tests.tiny_sdxl import TinySdxl, broken

pytestmark = [
    pytest.mark.sdxl,
    pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library())),
    # diffusers' schedulers hand torch tensors to numpy 2 in an old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers"),
]
IGNORED = "model.conversion_ignored"


def made(root: Path, **plan: Any) -> SdxlBackend:
    settings = SdxlSettings(models_root=root, hash_cache_path=None)
    backend = SdxlBackend(settings, PlanSettings(sdxl_compile_cache_path=None, **plan))
    import torch  # noqa: PLC0415 - after the backend set the libraries' environment

    torch.set_num_threads(1)
    return backend


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def model(root: Path, tiny: TinySdxl) -> InstalledModel:
    return adopted(root, tiny.checkpoint, config=tiny.config, copy=True)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> SdxlBackend:
    """In float32, as the plan of the CPU has it."""
    return made(tmp_path_factory.mktemp("elsewhere"))


def reference(root: Path, model: InstalledModel) -> ModelRef:
    path = str(root / model.folder / model.checkpoint.path)
    return ModelRef(id=model.id, name="m", kind=model.kind.value, version="1", path=path)


def pictures(backend: SdxlBackend) -> list[bytes]:
    return [renders.render(backend, renders.params(name)).rgb for name in ("euler", "dpmpp_2m", "long-prompt")]


def notices(backend: SdxlBackend) -> list[Notice]:
    try:
        return list(backend.begin(renders.params("euler")))
    finally:
        backend.end()


def convert(root: Path, model: InstalledModel, kind: Number = Number.FLOAT32, **wishes: Any) -> InstalledModel:
    return conversion.convert(root / model.folder, kind, **wishes).model


@pytest.mark.parametrize("kind", [Number.FLOAT32, Number.BFLOAT16])
def test_converted_files_make_the_pictures_of_their_checkpoint(kind: Number, root: Path, model: InstalledModel):
    backend, asked = made(root, sdxl_dtype=kind, sdxl_vae_dtype=kind), reference(root, model)
    backend.load(asked)
    wanted = pictures(backend)
    assert len(set(wanted)) == len(wanted)
    before = (root / model.folder / "model.json").read_bytes()
    done = convert(root, model, kind)
    assert (root / model.folder / "model.json").read_bytes() != before
    assert backend.load(asked) == model.checkpoint.sha256
    assert notices(backend) == []
    assert pictures(backend) == wanted
    # Without the checkpoint there is nothing else that these pictures could come from.
    dropped = convert(root, done, kind, keep_original=False)
    assert not Path(str(asked.path)).exists()
    assert models_root.problem_of(root / dropped.folder, dropped) is None
    assert backend.load(asked) == model.checkpoint.sha256
    assert pictures(backend) == wanted


def _rewritten(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


def _flipped(root: Path, model: InstalledModel) -> None:
    path = root / model.folder / converted.path_of("text_encoder_2")
    _rewritten(path, path.read_bytes()[:-1] + b"\x55")


def _gone(root: Path, model: InstalledModel) -> None:
    (root / model.folder / converted.path_of("vae")).unlink()


def _of_another_type(root: Path, model: InstalledModel) -> None:
    convert(root, model, Number.BFLOAT16)


def _renamed_weight(root: Path, model: InstalledModel) -> None:
    """As if the libraries had come to call it otherwise: the bytes are right, and don't fit."""
    told = model.conversion
    assert told is not None
    path = root / model.folder / converted.path_of("unet")
    header, data = broken.split(path.read_bytes())
    header["a.name.of.old"] = header.pop("conv_in.weight")
    _rewritten(path, broken.join(header, data))
    file = next(file for file in told.files if file.path == converted.path_of("unet"))
    other = file.model_copy(update={"size_bytes": path.stat().st_size, "sha256": digest.read(path)})
    files = tuple(other if one == file else one for one in told.files)
    models_root.write(root, model.model_copy(update={"conversion": told.model_copy(update={"files": files})}))


_DAMAGE: dict[Callable[[Path, InstalledModel], None], str] = {
    _flipped: "other bytes",
    _gone: "can't be read",
    _of_another_type: "plan wants float32",
    _renamed_weight: "a.name.of.old",
}


@pytest.mark.parametrize("damage", _DAMAGE, ids=lambda damage: damage.__name__)
def test_what_can_not_be_used_is_ignored_and_said(
    damage: Callable[[Path, InstalledModel], None], backend: SdxlBackend, root: Path, model: InstalledModel
):
    asked = reference(root, model)
    backend.load(asked)
    wanted = pictures(backend)
    damage(root, convert(root, model))
    assert backend.load(asked) == model.checkpoint.sha256
    (said,) = notices(backend)
    assert (said.code, _DAMAGE[damage] in said.message) == (IGNORED, True), said
    assert pictures(backend) == wanted


@pytest.mark.parametrize("damage", [_flipped, _gone], ids=lambda damage: damage.__name__)
def test_without_the_checkpoint_damage_is_an_invalid_model(
    damage: Callable[[Path, InstalledModel], None], backend: SdxlBackend, root: Path, model: InstalledModel
):
    done = convert(root, model, keep_original=False)
    damage(root, done)
    with pytest.raises(JobError) as caught:
        backend.load(reference(root, model))
    assert (caught.value.code, "was not kept" in caught.value.message) == (ErrorCode.MODEL_INVALID, True)


def test_a_registered_sha256_of_another_checkpoint_is_refused(
    backend: SdxlBackend, root: Path, model: InstalledModel
):
    convert(root, model, keep_original=False)
    asked = reference(root, model).model_copy(update={"sha256": "0" * 64})
    with pytest.raises(JobError, match="another checkpoint"):
        backend.load(asked)


def _lacking(good: bytes) -> bytes:
    header, data = broken.split(good)
    prefix = "conditioner.embedders.1.model."
    header[f"{prefix}nobody.knows"] = header.pop(f"{prefix}text_projection")
    return broken.join(header, data)


def _other_bytes(path: Path, model: InstalledModel) -> None:
    _rewritten(path, broken.with_weights_that_are_not_numbers(path.read_bytes(), "first_stage_model.decoder."))


@pytest.mark.parametrize("spoil", ["other bytes", "lacks a weight"])
def test_a_checkpoint_that_is_refused_leaves_its_model_as_it_was(
    spoil: str, root: Path, tiny: TinySdxl, tmp_path: Path
):
    source = tmp_path / "lacking.safetensors"
    source.write_bytes(
        _lacking(tiny.checkpoint.read_bytes()) if spoil != "other bytes" else tiny.checkpoint.read_bytes()
    )
    model = adopted(root, source, config=tiny.config, copy=True)
    folder = root / model.folder
    if spoil == "other bytes":
        _other_bytes(folder / model.checkpoint.path, model)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(JobError) as caught:
        conversion.convert(folder, Number.FLOAT32)
    assert caught.value.code is ErrorCode.MODEL_INVALID
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_weights_that_are_not_numbers_are_the_same_weights(root: Path, tiny: TinySdxl, tmp_path: Path):
    source = tmp_path / "nan.safetensors"
    source.write_bytes(
        broken.with_weights_that_are_not_numbers(tiny.checkpoint.read_bytes(), "first_stage_model.decoder.")
    )
    assert convert(root, adopted(root, source, config=tiny.config)).conversion is not None


def test_a_single_bit_is_a_difference(backend: SdxlBackend, root: Path, model: InstalledModel):
    from dreamforge_runner.backends.sdxl.engine import converting, loading  # noqa: PLC0415 - imports torch

    done = convert(root, model)
    folder, config = root / done.folder, root / done.folder / "config"
    one, other = (loading.from_converted(folder, config) for _ in range(2))
    assert converting.difference(one.unet, other.unet) is None
    weight = other.unet.conv_in.weight.detach().clone()
    weight.view(-1).numpy().view("uint32")[0] ^= 1
    other.unet.conv_in.weight.data = weight
    assert converting.difference(one.unet, other.unet) == "conv_in.weight"

"""The SDXL backend on the real libraries and a tiny checkpoint."""

import json
import logging
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from dreamforge.errors import ErrorCode, JobError
from dreamforge.spec import ModelRef, RenderParams, Scheduler
from dreamforge_runner.backends.base import Item, Notice, RenderCanceled
from dreamforge_runner.backends.sdxl import SdxlBackend
from dreamforge_runner.backends.sdxl.schedulers import RECIPES
from dreamforge_runner.backends.sdxl.settings import SdxlSettings
from tests import tiny_sdxl
from tests.golden import renders
from tests.tiny_sdxl import broken

pytestmark = [
    pytest.mark.sdxl,
    pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library())),
    # diffusers' schedulers hand torch tensors to numpy 2 in an old way.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers"),
]
SECRET = "xylophone"  # a word of prompts that no message may hold


@pytest.fixture(scope="module")
def files() -> tiny_sdxl.TinySdxl:
    return tiny_sdxl.cached()


@pytest.fixture(scope="module")
def backend(files: tiny_sdxl.TinySdxl) -> SdxlBackend:
    backend = SdxlBackend(SdxlSettings(hash_cache_path=None))
    # Threads gain nothing at this size, and wait on each other for long where the processors are busy.
    import torch  # noqa: PLC0415 - after the backend set the libraries' environment

    torch.set_num_threads(1)
    backend.load(renders.model(files))
    return backend


@pytest.fixture
def model_folder(files: tiny_sdxl.TinySdxl, tmp_path: Path) -> Path:
    """A copy of the configuration to spoil, and room for a checkpoint beside it."""
    shutil.copytree(files.config, tmp_path / "config")
    return tmp_path


def params(**changes: Any) -> RenderParams:
    return RenderParams.model_validate({"prompt": "a red fox", "width": 256, "height": 256, "steps": 2, **changes})


def picture(backend: SdxlBackend, seed: int = 1, **changes: Any) -> bytes:
    return renders.render(backend, params(**changes), seed).rgb


def notices(backend: SdxlBackend, **changes: Any) -> list[Notice]:
    try:
        return list(backend.begin(params(**changes)))
    finally:
        backend.end()


def reference(path: Path) -> ModelRef:
    return ModelRef(id="m", name="m", kind="sdxl-checkpoint", version="1", path=str(path))


def failure(call: Callable[[], Any]) -> JobError:
    with pytest.raises(JobError) as caught:
        call()
    return caught.value


def test_a_seed_is_a_picture(backend: SdxlBackend):
    assert picture(backend, 1) == picture(backend, 1)
    assert picture(backend, 1) != picture(backend, 2)


def test_the_largest_seed_works(backend: SdxlBackend):
    assert picture(backend, 2**32 - 1) != picture(backend, 0)


def test_items_of_a_job_do_not_depend_on_their_order(backend: SdxlBackend):
    backend.begin(params(scheduler="dpmpp_2m", steps=3))
    drawn = [backend.decode(backend.denoise(Item(i, seed), lambda _: True)).rgb for i, seed in enumerate([5, 6, 5])]
    backend.end()
    assert drawn[0] == drawn[2] != drawn[1]


def test_every_scheduler_is_the_class_it_is_named_for(backend: SdxlBackend):
    for scheduler in Scheduler:
        backend.begin(params(scheduler=scheduler.value))
        job = backend._engine._job
        assert job is not None
        used = job.denoiser._sampler.scheduler
        backend.end()
        assert type(used).__name__ == RECIPES[scheduler].class_name
        for name, value in RECIPES[scheduler].overrides.items():
            assert used.config[name] == value
        # The rest comes from the checkpoint's own configuration.
        assert (used.config.beta_start, used.config.steps_offset) == (0.00085, 1)


def test_every_scheduler_draws_its_own_picture(backend: SdxlBackend):
    drawn = {scheduler: picture(backend, scheduler=scheduler.value, steps=4) for scheduler in Scheduler}
    same = [pair for pair in combinations(drawn, 2) if drawn[pair[0]] == drawn[pair[1]]]
    assert not same


@pytest.mark.parametrize("scheduler", Scheduler)
def test_steps_are_counted(scheduler: Scheduler, backend: SdxlBackend):
    steps: list[int] = []

    def on_step(done: int) -> bool:
        steps.append(done)
        return True

    backend.begin(params(scheduler=scheduler.value, steps=5))
    backend.denoise(Item(0, 1), on_step)
    backend.end()
    assert steps == [1, 2, 3, 4, 5]


def test_one_step_is_enough(backend: SdxlBackend):
    for scheduler in Scheduler:
        assert picture(backend, scheduler=scheduler.value, steps=1)


def test_size_is_width_by_height(backend: SdxlBackend):
    pixels = renders.render(backend, params(width=320, height=264))
    assert (pixels.width, pixels.height, len(pixels.rgb)) == (320, 264, 320 * 264 * 3)


@pytest.mark.parametrize("name", renders.CASES)
def test_golden(name: str, backend: SdxlBackend):
    thumbnail = renders.thumbnail(renders.render(backend, renders.params(name)))
    assert renders.difference(thumbnail, renders.committed(name)) < renders.TOLERANCE


def test_goldens_tell_settings_apart():
    alike = [
        {one, other}
        for one, other in combinations([name for name in renders.CASES if name != "wide"], 2)
        if renders.difference(renders.committed(one), renders.committed(other)) < 2 * renders.TOLERANCE
    ]
    assert alike == [{"euler", "ddim"}]


def test_golden_catches_another_seed(backend: SdxlBackend):
    other = renders.thumbnail(renders.render(backend, renders.params("euler"), renders.SEED + 1))
    assert renders.difference(other, renders.committed("euler")) > 20 * renders.TOLERANCE


@pytest.fixture(scope="module")
def library(files: tiny_sdxl.TinySdxl) -> Callable[..., bytes]:
    """The pipeline's own way, prompt to picture in one call."""
    return library_with(files, files.config)


def library_with(files: tiny_sdxl.TinySdxl, config: Path) -> Callable[..., bytes]:
    import diffusers  # noqa: PLC0415 - seconds; only where torch is installed
    from torch import Generator  # noqa: PLC0415

    untyped: Any = diffusers
    pipe = untyped.StableDiffusionXLPipeline.from_single_file(
        str(files.checkpoint), config=str(config), local_files_only=True, add_watermarker=False
    )
    pipe.set_progress_bar_config(disable=True)
    own = pipe.scheduler.config

    def draw(scheduler: Scheduler = Scheduler.EULER, *, seed: int = 1, steps: int = 3, **settings: Any) -> bytes:
        recipe = RECIPES[scheduler]
        pipe.scheduler = getattr(untyped, recipe.class_name).from_config(own, **recipe.overrides)
        settings = {"negative_prompt": "blurry", "guidance_scale": 7.0, **settings}
        image = pipe(
            "a red fox", width=256, height=256, num_inference_steps=steps,
            generator=Generator("cpu").manual_seed(seed), **settings,
        ).images[0]  # fmt: skip
        return bytes(image.tobytes())

    return draw


@pytest.mark.parametrize("scheduler", Scheduler)
def test_pixels_are_those_of_the_library(scheduler: Scheduler, backend: SdxlBackend, library: Callable[..., bytes]):
    ours = picture(backend, negative_prompt="blurry", steps=3, scheduler=scheduler.value)
    assert ours == library(scheduler)


def test_pixels_without_guidance_are_those_of_the_library(backend: SdxlBackend, library: Callable[..., bytes]):
    assert picture(backend, guidance=0.0, steps=3) == library(guidance_scale=0.0, negative_prompt=None)


def test_pixels_with_scaled_latents_are_those_of_the_library(files: tiny_sdxl.TinySdxl, model_folder: Path):
    latents = {"latents_mean": [0.1, -0.2, 0.3, 0.4], "latents_std": [0.9, 1.1, 1.2, 0.8]}
    config = model_folder / "config" / "vae" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **latents}))
    ours = SdxlBackend(SdxlSettings(sdxl_config_path=model_folder / "config"))
    ours.load(renders.model(files))
    theirs = library_with(files, model_folder / "config")
    assert picture(ours, negative_prompt="blurry", steps=3) == theirs()


@pytest.mark.parametrize("stop_after", [1, 3])
def test_cancel_stops_between_steps(stop_after: int, backend: SdxlBackend):
    before = picture(backend, steps=4)
    steps: list[int] = []

    def on_step(done: int) -> bool:
        steps.append(done)
        return done < stop_after

    backend.begin(params(steps=4))
    with pytest.raises(RenderCanceled):
        backend.denoise(Item(0, 1), on_step)
    backend.end()
    assert steps == list(range(1, stop_after + 1))
    assert picture(backend, steps=4) == before


def test_guidance_of_one_and_below_is_off(backend: SdxlBackend):
    off = picture(backend, guidance=0.0)
    assert picture(backend, guidance=1.0) == off
    assert picture(backend, guidance=0.0, negative_prompt="blurry") == off
    assert picture(backend, guidance=1.5) != off


def test_a_negative_prompt_counts_unless_empty(backend: SdxlBackend):
    plain = picture(backend)
    assert picture(backend, negative_prompt="blurry") != plain
    assert picture(backend, negative_prompt="") == plain


def test_what_the_text_encoders_cut_is_told_but_not_repeated(
    backend: SdxlBackend, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    longest = SECRET + "b" * (75 - len(SECRET))  # the tiny tokenizer makes one token of each letter
    assert notices(backend, prompt=longest) == []
    (notice,) = notices(backend, prompt=longest + "c" * 40)
    assert notice.code == "prompt.truncated"
    assert "The prompt is 40 tokens longer than the 75" in notice.message
    (notice,) = notices(backend, negative_prompt=longest + "c")
    assert "The negative prompt is 1 tokens longer" in notice.message
    assert notices(backend, negative_prompt=longest + "c", guidance=1.0) == []
    assert len(notices(backend, prompt=SECRET * 20, negative_prompt=SECRET * 20)) == 2
    assert picture(backend, prompt=longest + "c") == picture(backend, prompt=longest + "d")
    assert capfd.readouterr() == ("", "")
    assert SECRET not in caplog.text


def test_decoding_beside_the_next_item_changes_nothing(backend: SdxlBackend):
    alone = [picture(backend, seed, steps=3) for seed in range(4)]
    backend.begin(params(steps=3))
    with ThreadPoolExecutor(1) as decoder:
        beside = [decoder.submit(backend.decode, backend.denoise(Item(s, s), lambda _: True)) for s in range(4)]
        drawn = [future.result(60).rgb for future in beside]
    backend.end()
    assert drawn == alone


def test_nothing_is_said_and_nobody_is_called(files: tiny_sdxl.TinySdxl, backend: SdxlBackend, tmp_path: Path):
    """Import, load and render in a process without network, home folder or anything on stdout and stderr."""
    image = tmp_path / "image.rgb"
    done = subprocess.run(
        [sys.executable, "-m", "tests.tiny_sdxl.render_offline", str(files.checkpoint.parent), str(image)],
        cwd=Path(__file__).parent.parent.parent,
        env={"PATH": os.defpath, "HOME": "/nonexistent", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert image.read_bytes() == renders.render(backend, renders.params("long-prompt")).rgb


@pytest.fixture
def still_works(backend: SdxlBackend, files: tiny_sdxl.TinySdxl) -> Iterator[None]:
    """Whatever the test breaks, the same process then loads a good model and draws what it drew before."""
    before = picture(backend)
    yield
    backend.load(renders.model(files))
    assert picture(backend) == before


@pytest.mark.usefixtures("still_works")
def test_broken_files_are_refused_and_the_process_lives_on(
    backend: SdxlBackend, files: tiny_sdxl.TinySdxl, model_folder: Path
):
    good = files.checkpoint.read_bytes()
    wrong = {}
    for case in broken.CORPUS:
        path = case.write(model_folder, good)
        error = failure(partial(backend.load, reference(path)))
        if error.code is not case.code or case.words not in error.message:
            wrong[case.name] = error.message
    assert not wrong


@pytest.mark.usefixtures("still_works")
def test_absent_files_are_missing(backend: SdxlBackend, files: tiny_sdxl.TinySdxl, tmp_path: Path):
    lonely = tmp_path / "lonely.safetensors"
    lonely.symlink_to(files.checkpoint)
    for path in (tmp_path / "absent.safetensors", lonely):
        error = failure(partial(backend.load, reference(path)))
        assert error.code is ErrorCode.MODEL_MISSING
        assert str(tmp_path) in error.message
    no_path = ModelRef(id="m", name="m", kind="sdxl-checkpoint", version="1")
    assert failure(lambda: backend.load(no_path)).code is ErrorCode.MODEL_MISSING


def _spoiled(good: bytes, spoil: str) -> bytes:
    """Files with a sound header that only the library can find fault with."""
    header, data = broken.split(good)
    if spoil == "shape":
        entry = header[broken.UNET_INPUT]
        entry["shape"] = [entry["shape"][0] * 9, entry["shape"][1], 1, 1]
    elif spoil == "key":
        header["model.diffusion_model.nobody.knows"] = header.pop("model.diffusion_model.time_embed.0.weight")
    elif spoil == "text-encoder-1-key":
        prefix = "conditioner.embedders.0.transformer.text_model."
        header[f"{prefix}nobody.knows"] = header.pop(f"{prefix}encoder.layers.1.mlp.fc1.weight")
    elif spoil == "text-encoder-2-key":
        prefix = "conditioner.embedders.1.model."
        header[f"{prefix}nobody.knows"] = header.pop(f"{prefix}text_projection")
    return broken.join(header, data)


@pytest.mark.usefixtures("still_works")
@pytest.mark.parametrize("spoil", ["shape", "key", "text-encoder-1-key", "text-encoder-2-key"])
def test_weights_that_do_not_fit_are_an_invalid_model(
    spoil: str, backend: SdxlBackend, files: tiny_sdxl.TinySdxl, model_folder: Path
):
    path = model_folder / "spoiled.safetensors"
    path.write_bytes(_spoiled(files.checkpoint.read_bytes(), spoil))
    error = failure(lambda: backend.load(reference(path)))
    assert error.code is ErrorCode.MODEL_INVALID
    assert str(path) in error.message


@pytest.mark.usefixtures("still_works")
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "scheduler"])
def test_a_configuration_that_does_not_fit_is_an_invalid_model(
    part: str, backend: SdxlBackend, files: tiny_sdxl.TinySdxl, model_folder: Path
):
    for file in (model_folder / "config" / part).iterdir():
        file.write_text("[]")
    path = model_folder / "model.safetensors"
    path.symlink_to(files.checkpoint)
    assert failure(lambda: backend.load(reference(path))).code is ErrorCode.MODEL_INVALID


@pytest.mark.usefixtures("still_works")
def test_weights_that_are_not_numbers_are_an_invalid_model(
    backend: SdxlBackend, files: tiny_sdxl.TinySdxl, model_folder: Path
):
    header, data = broken.split(files.checkpoint.read_bytes())
    begin, end = header["first_stage_model.decoder.conv_out.weight"]["data_offsets"]
    path = model_folder / "nan.safetensors"
    path.write_bytes(broken.join(header, data[:begin] + b"\xff" * (end - begin) + data[end:]))
    backend.load(reference(path))
    error = failure(lambda: picture(backend))
    assert error.code is ErrorCode.MODEL_INVALID
    assert "not numbers" in error.message


def test_loading_another_model_lets_the_old_one_go(files: tiny_sdxl.TinySdxl):
    backend = SdxlBackend(SdxlSettings(hash_cache_path=None))
    backend.load(renders.model(files))
    picture(backend)
    old = weakref.ref(backend._engine._pipe.unet)
    backend.load(renders.model(files))
    assert old() is None


def test_a_failed_load_leaves_no_model(backend: SdxlBackend, files: tiny_sdxl.TinySdxl, model_folder: Path):
    path = model_folder / "spoiled.safetensors"
    path.write_bytes(_spoiled(files.checkpoint.read_bytes(), "shape"))
    failure(lambda: backend.load(reference(path)))
    try:
        assert failure(lambda: backend.begin(params())).code is ErrorCode.INTERNAL
    finally:
        backend.load(renders.model(files))


def test_calls_out_of_order_are_our_own_defect(backend: SdxlBackend):
    assert failure(lambda: backend.denoise(Item(0, 1), lambda _: True)).code is ErrorCode.INTERNAL
    backend.end()
    assert failure(lambda: backend.denoise(Item(0, 1), lambda _: True)).code is ErrorCode.INTERNAL


def test_memory_is_told_only_where_it_was_measured(backend: SdxlBackend):
    import torch  # noqa: PLC0415 - only where it is installed

    backend.begin(params())
    backend.denoise(Item(0, 1), lambda _: True)
    memory = backend.end()
    if torch.cuda.is_available():
        assert memory is not None
        assert 0 < memory.allocated_end_mib <= memory.reserved_end_mib <= memory.reserved_peak_mib
        assert memory.allocated_start_mib < memory.allocated_peak_mib <= memory.reserved_peak_mib
    else:
        assert memory is None


def _raising(error: Exception) -> Callable[[int], bool]:
    def on_step(_: int) -> bool:
        raise error

    return on_step


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda torch: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), ErrorCode.GPU_OOM),
        (lambda torch: RuntimeError("CUDA error: out of memory"), ErrorCode.GPU_OOM),
        (lambda torch: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"), ErrorCode.GPU_OOM),
        (lambda torch: RuntimeError("CUDA error: an illegal memory access was encountered"), ErrorCode.GPU_FAULT),
        (lambda torch: RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), ErrorCode.GPU_FAULT),
        (lambda torch: torch.AcceleratorError("unspecified launch failure"), ErrorCode.GPU_FAULT),
        (lambda torch: RuntimeError(f"shapes do not match for {SECRET}"), ErrorCode.PROVIDER_ERROR),
        (lambda torch: ValueError(f"CUDA error in a prompt: {SECRET}"), ErrorCode.PROVIDER_ERROR),
        (lambda torch: MemoryError(), ErrorCode.PROVIDER_ERROR),
    ],
)
def test_errors_inside_the_loop_get_their_class(
    make: Callable[[Any], Exception], code: ErrorCode, backend: SdxlBackend
):
    import torch  # noqa: PLC0415 - only where it is installed

    backend.begin(params(prompt=SECRET))
    error = failure(lambda: backend.denoise(Item(0, 1), _raising(make(torch))))
    backend.end()
    assert error.code is code
    assert SECRET not in error.message
    # The library's frames, which hold tensors, must not live on in the new error.
    assert error.__context__ is None
    assert error.__cause__ is None
    if code is ErrorCode.GPU_OOM:
        assert "256x256" in error.message
    assert picture(backend)

"""Plans on the real libraries and the tiny checkpoint: what a plan may change of a picture, and what never leaks."""

import hashlib
from typing import Any

import psutil
import pytest

from dreamforge.errors import ErrorCode, JobError
from dreamforge.spec import Scheduler
from dreamforge_runner.backends.base import Item, Pixels
from dreamforge_runner.backends.sdxl import SdxlBackend
from dreamforge_runner.backends.sdxl.plan import PLANS
from tests import tiny_sdxl
from tests.golden import renders
from tests.integration.sdxl_kit import SAME_PICTURE_DB, alone, decibels, made, params

pytestmark = [
    pytest.mark.sdxl,
    pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library())),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers.schedulers"),
]
#: bfloat16 keeps 8 bits of a number: another thumbnail than float32 by a little, another picture by no means.
BFLOAT16_TOLERANCE = 4 * renders.TOLERANCE
MIB = 1 << 20


@pytest.fixture(scope="module")
def plain() -> SdxlBackend:
    return made()


@pytest.fixture(scope="module")
def batching() -> SdxlBackend:
    return made(sdxl_micro_batch=3)


def together(backend: SdxlBackend, seeds: list[int], **changes: Any) -> list[Pixels]:
    backend.begin(params(**changes))
    try:
        items = [Item(index, seed) for index, seed in enumerate(seeds)]
        return [backend.decode(latents) for latents in backend.denoise_many(items, lambda _: True)]
    finally:
        backend.end()


@pytest.mark.parametrize("scheduler", Scheduler)
def test_items_rendered_together_are_the_items_rendered_alone(
    scheduler: Scheduler, plain: SdxlBackend, batching: SdxlBackend
):
    seeds = [7, 8, 2**32 - 1]
    batch = together(batching, seeds, scheduler=scheduler.value)
    for seed, picture in zip(seeds, batch, strict=True):
        assert decibels(picture, alone(plain, seed, scheduler=scheduler.value)) > SAME_PICTURE_DB
        assert picture.plan is not None
        assert "micro_batch=3" in picture.plan
    assert decibels(batch[0], batch[1]) < SAME_PICTURE_DB / 2


def test_an_item_rendered_alone_says_so_whatever_the_plan(batching: SdxlBackend):
    told = alone(batching, 1).plan
    assert told is not None
    assert "micro_batch" not in told


def test_guidance_off_goes_together_too(plain: SdxlBackend, batching: SdxlBackend):
    batch = together(batching, [1, 2], guidance=0.0)
    assert decibels(batch[1], alone(plain, 2, guidance=0.0)) > SAME_PICTURE_DB


@pytest.mark.parametrize(
    ("plan", "tolerance"),
    [
        ({"sdxl_memory_format": "channels_last"}, renders.TOLERANCE),
        ({"sdxl_attention": "math"}, renders.TOLERANCE),
        # No kernel of the CPU's: a preference is no condition.
        ({"sdxl_attention": "efficient"}, renders.TOLERANCE),
        ({"sdxl_vae_dtype": "bfloat16"}, BFLOAT16_TOLERANCE),
        ({"sdxl_dtype": "bfloat16", "sdxl_vae_dtype": "bfloat16"}, BFLOAT16_TOLERANCE),
    ],
    ids=str,
)
def test_golden_holds_under_every_plan_that_keeps_the_picture(plan: dict[str, str], tolerance: float):
    pixels = renders.render(made(**plan), renders.params("euler"))
    assert renders.difference(renders.thumbnail(pixels), renders.committed("euler")) < tolerance
    assert pixels.plan is not None
    for name, value in plan.items():
        assert f"{name.removeprefix('sdxl_')}={value}" in pixels.plan


@pytest.mark.parametrize("kernel", ["flash", "cudnn"])
def test_a_preferred_attention_kernel_takes_none_from_the_decoder(kernel: str):
    """torch's switches hold for all threads, and the VAE's wide head needs a kernel that these two are not."""
    import torch  # noqa: PLC0415 - only where it is installed

    backend = made(sdxl_attention=kernel)
    switches: Any = torch.backends.cuda  # it has no types
    before = switches.flash_sdp_enabled(), switches.mem_efficient_sdp_enabled(), switches.math_sdp_enabled()
    seen: list[tuple[bool, bool, int]] = []

    def on_step(_: int) -> bool:
        first = torch._C._get_sdp_priority_order()[0]
        seen.append((switches.mem_efficient_sdp_enabled(), switches.math_sdp_enabled(), first))
        return True

    backend.begin(params(steps=1))
    backend.denoise(Item(0, 1), on_step)
    backend.end()
    preferred = getattr(torch.nn.attention.SDPBackend, f"{kernel.upper()}_ATTENTION")
    assert seen == [(True, True, int(preferred))]
    assert (switches.flash_sdp_enabled(), switches.mem_efficient_sdp_enabled(), switches.math_sdp_enabled()) == before


@pytest.mark.parametrize("name", [name for name in PLANS if name != "cpu"])
def test_golden_holds_under_the_plan_of_every_card(name: str):
    """Its numbers and layout, on the CPU; compiled pictures have a module of their own."""
    pixels = renders.render(made(sdxl_plan=name, sdxl_compile="off"), renders.params("euler"))
    assert renders.difference(renders.thumbnail(pixels), renders.committed("euler")) < BFLOAT16_TOLERANCE
    assert pixels.plan is not None
    assert pixels.plan.startswith(f"{name}@{PLANS[name].version}")


def test_the_speed_preset_changes_the_picture_and_says_so(plain: SdxlBackend):
    fast = alone(made(sdxl_speed="guidance-cutoff@1"), 1, steps=5)
    assert fast.plan is not None
    assert "speed=guidance-cutoff@1" in fast.plan
    assert decibels(fast, alone(plain, 1, steps=5)) < SAME_PICTURE_DB


def test_a_request_may_cut_guidance_off_and_then_the_plans_preset_is_silent(plain: SdxlBackend):
    """What steers a step is what counts: the request's share, by steps."""
    whole, cut = alone(plain, 1, steps=5), alone(plain, 1, steps=5, guidance_cutoff=0.4)
    assert decibels(cut, whole) < SAME_PICTURE_DB
    assert alone(plain, 1, steps=5, guidance_cutoff=1.0).rgb == whole.rgb
    fast = made(sdxl_speed="guidance-cutoff@1")
    assert alone(fast, 1, steps=5).rgb == cut.rgb
    picture = alone(fast, 1, steps=5, guidance_cutoff=1.0)
    assert picture.rgb == whole.rgb
    assert picture.plan is not None
    assert "speed" not in picture.plan


def test_a_vae_that_overflows_is_asked_again_in_float32_and_the_image_says_so(
    plain: SdxlBackend, monkeypatch: pytest.MonkeyPatch
):
    import torch  # noqa: PLC0415 - only where it is installed

    backend = made(sdxl_vae_dtype="bfloat16")
    convolution = backend._engine._pipe.vae.decoder.conv_in
    usual = type(convolution).forward

    def overflowing(self: Any, images: Any) -> Any:
        result = usual(self, images)
        return result * torch.inf if images.dtype is torch.bfloat16 else result

    monkeypatch.setattr(type(convolution), "forward", overflowing)
    pixels = alone(backend, 1)
    assert pixels.notice is not None
    assert (pixels.notice.code, pixels.notice.level) == ("vae.overflow", "warning")
    assert pixels.plan == backend._engine.plan.label.replace(" vae_dtype=bfloat16", "")
    assert decibels(pixels, alone(plain, 1)) > SAME_PICTURE_DB / 1.5
    assert backend._engine._pipe.vae.dtype is torch.bfloat16


def test_jobs_in_one_warm_process_know_nothing_of_each_other(plain: SdxlBackend, batching: SdxlBackend):
    first = together(batching, [5, 6], scheduler="dpmpp_2m", negative_prompt="blurry")
    for changes in ({"scheduler": "unipc"}, {"guidance": 0.0}, {"width": 320}, {"prompt": "a blue whale"}):
        together(batching, [1], **changes)
    assert together(batching, [5, 6], scheduler="dpmpp_2m", negative_prompt="blurry") == first
    assert batching._engine._job is None


def test_jobs_leave_no_trace_in_the_model(batching: SdxlBackend):
    """Neither weights (an adapter merged in would change them), nor modules, nor the scheduler's configuration."""
    before = state_of(batching)
    for changes in (
        {"scheduler": "unipc", "count": 2},
        {"guidance_cutoff": 0.4},
        {"width": 320, "negative_prompt": "x"},
    ):
        together(batching, [1, 2], **changes)
    assert state_of(batching) == before


def state_of(backend: SdxlBackend) -> tuple[str, list[str], dict[str, Any]]:
    """What the next job finds: the weights' sha256, the modules' names, the scheduler's settings."""
    pipe = backend._engine._pipe
    parts = [pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2]
    weights = hashlib.sha256()
    for part in parts:
        for tensor in part.state_dict().values():
            weights.update(tensor.numpy().tobytes())
    modules = [name for part in parts for name, _ in part.named_modules()]
    return weights.hexdigest(), modules, dict(backend._engine._scheduler_config)


def test_after_running_out_of_memory_together_the_backend_goes_on_alone(plain: SdxlBackend, batching: SdxlBackend):
    import torch  # noqa: PLC0415 - only where it is installed

    def full(_: int) -> bool:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    batching.begin(params())
    with pytest.raises(JobError) as caught:
        batching.denoise_many([Item(0, 1), Item(1, 2)], full)
    assert caught.value.code is ErrorCode.GPU_OOM
    picture = batching.decode(batching.denoise(Item(0, 1), lambda _: True))
    batching.end()
    assert picture.rgb == alone(plain, 1).rgb


def test_a_hundred_items_leave_memory_flat(plain: SdxlBackend):
    process = psutil.Process()
    plain.begin(params(steps=1, count=100))
    used: list[int] = []
    for index in range(100):
        plain.decode(plain.denoise(Item(index, index), lambda _: True))
        used.append(process.memory_info().rss)
    plain.end()
    assert max(used[50:]) - max(used[:50]) < 16 * MIB


def test_no_step_waits_for_the_device():
    """Every scheduler's steps run on tensors that are on a device without data: reading one back raises."""
    import torch  # noqa: PLC0415 - only where it is installed
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415

    from dreamforge_runner.backends.sdxl.engine.samplers import Sampler  # noqa: PLC0415

    class Crossing(TorchDispatchMode):
        """Notes each tensor that changes its device, which makes the host wait."""

        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]  # torch: untyped
            self.seen: set[str] = set()

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            first = args[0] if args and isinstance(args[0], torch.Tensor) else None
            if isinstance(result, torch.Tensor) and first is not None and "copy" in str(func):
                self.seen |= {str(func)} if result.device != first.device else set()
            return result

    class Ready:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.draw = lambda: tensor

    waiting = {}
    for scheduler in Scheduler:
        sampler = Sampler(scheduler, CONFIG, 4, "cpu")
        with Crossing() as crossing:
            latents = torch.empty(1, 4, 32, 32, device="meta")
            noise: Any = Ready(torch.empty(1, 4, 32, 32, device="meta"))
            try:
                for index in range(4):
                    latents = sampler.step(sampler.scaled(latents, index) * 2, index, latents, noise)
            except RuntimeError as error:
                crossing.seen.add(type(error).__name__)
        waiting[scheduler] = crossing.seen
    unipc = waiting.pop(Scheduler.UNIPC)
    assert not any(waiting.values()), waiting
    assert unipc  # diffusers' own way, which docs/performance.md tells; when it is gone, so is this line


#: The scheduler's part of an SDXL checkpoint's configuration.
CONFIG = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

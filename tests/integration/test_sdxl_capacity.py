"""The figures per pixel are counted again: SDXL's own networks run on tensors that have a shape and no data."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from dreamforge_runner.backends.sdxl import capacity
from tests import tiny_sdxl

pytestmark = [
    pytest.mark.sdxl,
    pytest.mark.skipif(tiny_sdxl.missing_library() is not None, reason=str(tiny_sdxl.missing_library())),
]
SMALL, LARGE = 512, 1024


@pytest.fixture
def fused_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: no score matrix. Without a device torch would take the plain formula."""
    import torch  # noqa: PLC0415 - seconds; only where it is installed

    def attend(query: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.empty_like(query)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)


def peak_bytes(module: Any, work: Callable[[], object]) -> int:
    """The most bytes of tensors alive at once during ``work``, the module's weights apart."""
    import torch  # noqa: PLC0415
    from torch.utils._python_dispatch import TorchDispatchMode  # noqa: PLC0415
    from torch.utils._pytree import tree_leaves  # noqa: PLC0415

    class Counter(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]  # torch: untyped
            self.known = {weight.untyped_storage()._cdata for weight in module.parameters()}
            self.live = self.peak = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor) and (key := leaf.untyped_storage()._cdata) not in self.known:
                    self.known.add(key)
                    self.live += leaf.untyped_storage().nbytes()
                    weakref.finalize(leaf.untyped_storage(), self.gone, key, leaf.untyped_storage().nbytes())
            self.peak = max(self.peak, self.live)
            return result

        def gone(self, key: int, size: int) -> None:
            self.live -= size
            self.known.discard(key)

    with torch.no_grad(), Counter() as counter:
        work()
    return int(counter.peak)


def unet() -> Any:
    """SDXL base 1.0's."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415

    untyped: Any = diffusers
    with torch.device("meta"):
        return untyped.UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(5, 10, 20), transformer_layers_per_block=(1, 2, 10), use_linear_projection=True,
            cross_attention_dim=2048, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ).to(torch.bfloat16)  # fmt: skip


def vae() -> Any:
    """SDXL base 1.0's, in float32."""
    import diffusers  # noqa: PLC0415
    import torch  # noqa: PLC0415

    untyped: Any = diffusers
    with torch.device("meta"):
        return untyped.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        )  # fmt: skip


def step(model: Any, side: int, batch: int) -> None:
    import torch  # noqa: PLC0415

    def blank(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device="meta", dtype=torch.bfloat16)

    added = {"text_embeds": blank(batch, 1280), "time_ids": blank(batch, 6)}
    latents, prompt = blank(batch, 4, side // 8, side // 8), blank(batch, 77, 2048)
    model(latents, blank(), encoder_hidden_states=prompt, added_cond_kwargs=added, return_dict=False)


def decode(model: Any, side: int) -> None:
    """As the engine does."""
    import torch  # noqa: PLC0415

    image = model.decode(torch.empty(1, 4, side // 8, side // 8, device="meta"), return_dict=False)[0][0].float()
    image.mul(0.5).add(0.5).clamp(0, 1).mul(255).round().to(torch.uint8)


@pytest.mark.usefixtures("fused_attention")
def test_denoising_takes_what_the_estimate_says():
    model = unet()
    low, high = (peak_bytes(model, partial(step, model, side, 2)) for side in (SMALL, LARGE))
    per_pixel = (high - low) / (LARGE**2 - SMALL**2) / 2
    assert per_pixel == pytest.approx(capacity.DENOISE_BYTES, rel=0.02)
    assert high <= capacity.HEADROOM_FACTOR * 2 * capacity.DENOISE_BYTES * LARGE**2


@pytest.mark.usefixtures("fused_attention")
def test_decoding_takes_what_the_estimate_says():
    model = vae()
    high = peak_bytes(model, partial(decode, model, LARGE))
    assert high / LARGE**2 / 4 == pytest.approx(capacity.DECODE_BYTES, rel=0.02)


def test_the_weights_are_counted():
    encoders = 123_060_480 + 694_659_840
    numbers = encoders + sum(weight.numel() for model in (unet(), vae()) for weight in model.parameters())
    assert 2 * numbers == pytest.approx(capacity.WEIGHTS_BYTES, rel=0.01)

"""The largest picture that would have fitted the GPU memory an attempt found: an estimate, from data to text.

What a picture needs beside the model's weights grows with its pixels. The two figures per pixel below are the most
bytes of tensors that are alive at once while SDXL's own networks run, counted on tensors without data
(``tests/integration/test_sdxl_capacity.py`` counts again); attention takes no score matrix, since torch's fused
kernels make none, and the VAE is not tiled, since the engine never tiles. What no count sees (workspaces of
cuDNN and cuBLAS, holes in the allocator's blocks) is the headroom, which is a choice. Where the failed attempt
needed more than the estimate says, all of it is scaled up to what was measured; nothing is ever scaled down.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dreamforge.spec import RenderParams

#: UNet in half precision, for each pixel of the picture and each row of its batch (guidance makes it two).
DENOISE_BYTES = 158
#: VAE decoder, for each pixel and each byte of its number type: three tensors of 256 channels at full size.
DECODE_BYTES = 768
#: SDXL base 1.0 in half precision: UNet 2,567 million numbers, text encoders 818 million, VAE 84 million.
WEIGHTS_BYTES = 2 * 3_469_000_000
HEADROOM_FACTOR = 1.1
HEADROOM_BYTES = 256 << 20
#: Bounds and grid of a request (``dreamforge.spec.Size``).
SMALLEST, LARGEST, GRID = 256, 2048, 8
_MIB = 1 << 20


class Size(NamedTuple):
    """In pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class Measured:
    """Bytes on the device when memory ran out, as the driver and torch's allocator told them."""

    free: int
    total: int
    #: Held by this process for tensors, in use or not.
    reserved: int
    #: Of it the loaded model's.
    resident: int
    #: The most that tensors took during the attempt, with the request that was refused.
    demanded: int
    #: Size of one number of the VAE: 2, or 4 where it runs in float32.
    vae_number: int = 2

    @property
    def room(self) -> int:
        """What a picture could have had beside the model: other processes' memory is not counted."""
        return self.free + self.reserved - self.resident


def needed(size: Size, params: RenderParams, vae_number: int) -> int:
    """Bytes that a picture of ``size`` takes beside the weights, headroom included."""
    denoise = DENOISE_BYTES * (2 if params.guidance > 1 else 1)
    decode = DECODE_BYTES * vae_number
    # Of several items one is decoded while the next is denoised.
    per_pixel = denoise + decode if params.count > 1 else max(denoise, decode)
    return int(size.pixels * per_pixel * HEADROOM_FACTOR) + HEADROOM_BYTES


def largest_size(params: RenderParams, measured: Measured) -> Size | None:
    """The largest size of the asked shape, smaller than the asked one, that fits; ``None`` when none does."""
    asked = Size(params.width, params.height)
    told = needed(asked, params, measured.vae_number)
    # It did not fit, so it took more than there was, whatever the estimate says.
    scale = max(1.0, HEADROOM_FACTOR * max(measured.room, measured.demanded - measured.resident) / told)
    for size in _smaller(asked):
        if needed(size, params, measured.vae_number) * scale <= measured.room:
            return size
    return None


def explain(params: RenderParams, measured: Measured) -> str:
    """The message of a picture that did not fit; holds no prompt."""
    asked, fits = Size(params.width, params.height), largest_size(params, measured)
    begun = (
        f"too little GPU memory for {asked} pixels: {measured.room // _MIB} MiB of {measured.total // _MIB} MiB "
        "were left beside the model and other processes"
    )
    if fits is not None:
        return f"{begun}; by estimate {fits} is the largest size of this shape that fits, all else unchanged"
    return f"{begun}; by estimate no smaller size of this shape fits: free the GPU of other processes"


def explain_model(free: int, total: int) -> str:
    """The message of a model that did not fit; ``free`` is what there was before it was loaded."""
    return (
        f"too little GPU memory for the model: {free // _MIB} MiB of {total // _MIB} MiB were left by other "
        f"processes, SDXL's weights alone take about {WEIGHTS_BYTES // _MIB} MiB; no size fits"
    )


def _smaller(asked: Size) -> Iterator[Size]:
    """Sizes on the grid with the asked shape (as near as the grid allows), largest first."""
    long, short = max(asked), min(asked)
    for side in range(long - GRID, SMALLEST - GRID, -GRID):
        other = round(side * short / long / GRID) * GRID
        if other < SMALLEST:
            return
        yield Size(side, other) if asked.width == long else Size(other, side)

"""Golden renders of the tiny checkpoint: what each setting drew when it was last looked at.

    python -m tests.golden.renders

draws them anew; look at the difference before committing it. Each is a thumbnail of one pixel per latent pixel,
so that the last bits of another CPU or library average out while another seed, scheduler or step count does not.
"""

from pathlib import Path
from typing import Any

from PIL import Image, ImageChops, ImageStat

from dreamforge.spec import ModelRef, RenderParams, Scheduler
from dreamforge_runner.backends.base import Backend, Item, Pixels
from dreamforge_runner.backends.sdxl import SdxlBackend
from dreamforge_runner.backends.sdxl.settings import SdxlSettings
from tests import tiny_sdxl

FOLDER = Path(__file__).parent / "sdxl"
#: Mean difference of a channel, of 255. Measured: 0.0002 between 1 and 2 threads, with and without oneDNN; any two
#: cases differ by 1 or more, but for euler and ddim, which are one method in two notations.
TOLERANCE = 0.5
SEED = 11

_BASE: dict[str, Any] = {"prompt": "a lighthouse in a storm", "width": 256, "height": 256, "steps": 5}
CASES: dict[str, dict[str, Any]] = {
    **{scheduler.value: {"scheduler": scheduler.value} for scheduler in Scheduler},
    "negative": {"negative_prompt": "blurry, low quality"},
    "unguided": {"guidance": 0.0},
    "guidance-cutoff": {"guidance_cutoff": 0.4},
    "wide": {"width": 384},
    "long-prompt": {"prompt": "a lighthouse in a storm, " * 8},
}


def model(files: tiny_sdxl.TinySdxl) -> ModelRef:
    return ModelRef(id="sdxl-tiny", name="Tiny SDXL", kind="sdxl-checkpoint", version="1", path=str(files.checkpoint))


def params(name: str) -> RenderParams:
    return RenderParams.model_validate({**_BASE, **CASES[name]})


def render(backend: Backend, wanted: RenderParams, seed: int = SEED) -> Pixels:
    """One item from ``begin`` to ``end``."""
    backend.begin(wanted)
    try:
        return backend.decode(backend.denoise(Item(0, seed), lambda _: True))
    finally:
        backend.end()


def thumbnail(pixels: Pixels) -> Image.Image:
    image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.rgb)
    return image.reduce(8)


def committed(name: str) -> Image.Image:
    with Image.open(FOLDER / f"{name}.png") as image:
        return image.convert("RGB")


def difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of a channel, 0..255."""
    means = ImageStat.Stat(ImageChops.difference(one, other)).mean
    return sum(means) / len(means)


def main() -> None:
    backend = SdxlBackend(SdxlSettings(hash_cache_path=None))
    backend.load(model(tiny_sdxl.cached()))
    for name in CASES:
        thumbnail(render(backend, params(name))).save(FOLDER / f"{name}.png", optimize=True)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()

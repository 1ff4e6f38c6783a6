"""A drawn landscape, the same for the same prompt and seed. No model, no diffusion: it says so wherever it can.

It exists so that every other part of the system runs for real on a machine without a GPU or a checkpoint. Each
"denoise step" draws the next strokes, so progress and cancel behave as with a model.
"""

import colorsys
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFilter

from dreamforge.events import AllocatorMemory
from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner.backends.base import Item, Notice, OnStep, Pixels, RenderCanceled

_RIDGES = 6
_Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class _Scene:
    """What the seed decides once: colours, light, horizon."""

    hue: float
    night: bool
    horizon: float
    sun_x: float
    sun_y: float
    sun_size: float

    def colour(self, shift: float, saturation: float, value: float) -> _Rgb:
        red, green, blue = colorsys.hsv_to_rgb((self.hue + shift) % 1.0, saturation, min(value, 1.0))
        return round(red * 255), round(green * 255), round(blue * 255)


class SketchBackend:
    """Draws with Pillow; ``load`` has nothing to load."""

    name = "sketch"
    digital_source_type = "algorithmicMedia"

    def __init__(self) -> None:
        self._params: RenderParams | None = None

    def load(self, model: ModelRef) -> None:
        """Nothing to load."""

    def begin(self, params: RenderParams) -> Sequence[Notice]:
        self._params = params
        return [Notice("sketch.not_a_model", "Drawn by the sketch backend: an algorithm, not a diffusion model")]

    def denoise(self, item: Item, on_step: OnStep) -> Image.Image:
        params = self._params
        if params is None:
            raise RuntimeError("begin() comes before denoise()")
        chance = random.Random(_seed(params, item.seed))  # noqa: S311 - a picture, not a secret
        scene = _scene(chance)
        picture = _sky(scene, params.width, params.height)
        strokes = _RIDGES + 2
        drawn = 0
        for step in range(1, params.steps + 1):
            due = math.ceil(strokes * step / params.steps)
            while drawn < due:
                _stroke(picture, scene, chance, drawn)
                drawn += 1
            if not on_step(step):
                raise RenderCanceled
        return picture

    def decode(self, latents: Image.Image) -> Pixels:
        smooth = latents.filter(ImageFilter.SMOOTH)
        return Pixels(smooth.width, smooth.height, smooth.tobytes())

    def end(self) -> AllocatorMemory | None:
        self._params = None
        return None


def _seed(params: RenderParams, seed: int) -> int:
    text = f"{params.prompt}\0{params.negative_prompt or ''}\0{seed}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")


def _scene(chance: random.Random) -> _Scene:
    return _Scene(
        hue=chance.random(),
        night=chance.random() < 0.35,
        horizon=chance.uniform(0.45, 0.6),
        sun_x=chance.uniform(0.2, 0.8),
        sun_y=chance.uniform(0.15, 0.38),
        sun_size=chance.uniform(0.05, 0.11),
    )


def _sky(scene: _Scene, width: int, height: int) -> Image.Image:
    """A vertical gradient with the glow of sun or moon."""
    top = scene.colour(0.0, 0.75, 0.12 if scene.night else 0.55)
    middle = scene.colour(0.08, 0.55, 0.35 if scene.night else 0.9)
    low = scene.colour(0.17, 0.35, 0.5 if scene.night else 1.0)
    ramp = Image.new("RGB", (1, 3))
    ramp.putdata([top, middle, low])
    sky = ramp.resize((width, height), Image.Resampling.BICUBIC)
    glow_size = round(min(width, height) * 1.5)
    glow = Image.radial_gradient("L").point([max(0, 160 - level) for level in range(256)])
    glow = glow.resize((glow_size, glow_size), Image.Resampling.BILINEAR)
    corner = (round(scene.sun_x * width - glow_size / 2), round(scene.sun_y * height - glow_size / 2))
    sky.paste(scene.colour(0.12, 0.18, 1.0), corner, glow)
    return sky


def _stroke(picture: Image.Image, scene: _Scene, chance: random.Random, number: int) -> None:
    if number == 0:
        _stars(picture, scene, chance)
    elif number == 1:
        _sun(picture, scene)
    else:
        _ridge(picture, scene, chance, (number - 2) / (_RIDGES - 1))


def _stars(picture: Image.Image, scene: _Scene, chance: random.Random) -> None:
    draw = ImageDraw.Draw(picture)
    for _ in range(220 if scene.night else 14):
        x, y = chance.random() * picture.width, chance.random() ** 1.5 * picture.height * scene.horizon
        if scene.night:
            size = chance.uniform(0.3, 1.3) * picture.height / 1000
            draw.ellipse(
                (x - size, y - size, x + size, y + size), fill=scene.colour(0.1, 0.1, chance.uniform(0.6, 1))
            )
        else:
            wing = chance.uniform(4, 10) * picture.width / 1000
            lines = [(x - wing, y - wing / 2), (x, y), (x + wing, y - wing / 2)]
            draw.line(lines, fill=scene.colour(0.0, 0.6, 0.3), width=max(1, picture.width // 600))


def _sun(picture: Image.Image, scene: _Scene) -> None:
    x, y = scene.sun_x * picture.width, scene.sun_y * picture.height
    size = scene.sun_size * min(picture.size)
    shape = Image.new("L", picture.size)
    draw = ImageDraw.Draw(shape)
    draw.ellipse((x - size, y - size, x + size, y + size), fill=255)
    if scene.night:  # a crescent: the disc less another one beside it
        x, y = x + size * 0.45, y - size * 0.15
        draw.ellipse((x - size, y - size, x + size, y + size), fill=0)
    picture.paste(scene.colour(0.13, 0.12, 1.0), mask=shape)


def _ridge(picture: Image.Image, scene: _Scene, chance: random.Random, depth: float) -> None:
    """One line of hills; ``depth`` 0 is the farthest. Far hills take the colour of the air."""
    width, height = picture.size
    base = height * (scene.horizon + depth * (0.97 - scene.horizon))
    waves = [
        (chance.uniform(0.7, 1.6) * 2**octave, chance.random() * math.tau, 0.07 * height / 1.9**octave)
        for octave in range(7)
    ]
    step = max(2, width // 512)
    line = [
        (x, base + sum(high * math.sin(often * math.tau * x / width + phase) for often, phase, high in waves))
        for x in range(0, width + step, step)
    ]
    near = 0.25 + 0.75 * depth
    value = (0.42 if scene.night else 0.85) * (1 - near) + 0.1
    fill = scene.colour(0.1 - 0.12 * depth, 0.25 + 0.45 * near, value)
    ImageDraw.Draw(picture).polygon([(0, height), *line, (width, height)], fill=fill)

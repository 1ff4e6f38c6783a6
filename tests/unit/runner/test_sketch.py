"""The sketch backend: the same picture for the same words and seed, another for any other."""

import hashlib
import itertools

import pytest

from dreamforge.spec import ModelRef, RenderParams
from dreamforge_runner.backends.base import Item, RenderCanceled
from dreamforge_runner.backends.sketch import SketchBackend

MODEL = ModelRef(id="sketch", name="Sketch", kind="sketch", version="1")


def draw(seed: int = 1, **params) -> tuple[str, list[int]]:
    backend = SketchBackend()
    steps: list[int] = []
    backend.load(MODEL)
    notices = backend.begin(RenderParams(**{"prompt": "a castle", "width": 256, "height": 320, **params}))
    assert "not a diffusion model" in notices[0].message

    def on_step(done: int) -> bool:
        steps.append(done)
        return True

    latents = backend.denoise(Item(0, seed), on_step)
    pixels = backend.decode(latents)
    assert len(pixels.rgb) == pixels.width * pixels.height * 3
    assert backend.end() is None
    return hashlib.sha256(pixels.rgb).hexdigest(), steps


def test_the_same_input_draws_the_same_picture():
    assert draw()[0] == draw()[0]


def test_each_part_of_the_input_counts():
    pictures = [
        draw()[0],
        draw(seed=2)[0],
        draw(prompt="a tower")[0],
        draw(negative_prompt="fog")[0],
        draw(width=264)[0],
    ]
    assert all(one != other for one, other in itertools.combinations(pictures, 2))


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 150])
def test_every_step_is_told_and_does_not_change_the_picture(steps: int):
    picture, told = draw(steps=steps)
    assert told == list(range(1, steps + 1))
    assert picture == draw(steps=30)[0]


def test_it_stops_between_two_steps():
    backend = SketchBackend()
    backend.begin(RenderParams(prompt="a castle", width=256, height=256))
    told: list[int] = []

    def on_step(done: int) -> bool:
        told.append(done)
        return done < 3

    with pytest.raises(RenderCanceled):
        backend.denoise(Item(0, 1), on_step)
    assert told == [1, 2, 3]


@pytest.mark.parametrize("size", [(256, 2048), (2048, 256), (2048, 2048)])
def test_every_legal_shape_can_be_drawn(size: tuple[int, int]):
    draw(width=size[0], height=size[1], steps=1)

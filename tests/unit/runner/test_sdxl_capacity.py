"""The size an out-of-memory message names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamforge.spec import RenderParams
from dreamforge_runner.backends.sdxl import capacity, faults
from dreamforge_runner.backends.sdxl.capacity import Measured, Size

GIB = 1 << 30
PROMPT = "xylophone"


def params(width: int = 1024, height: int = 1024, **changes: Any) -> RenderParams:
    return RenderParams.model_validate({"prompt": PROMPT, "width": width, "height": height, **changes})


def measured(room: int, demanded: int = 0, vae_number: int = 2) -> Measured:
    """A device on which the model holds 7 GiB and a picture may have ``room`` bytes."""
    held = 7 * GIB
    return Measured(room // 2, held + room, held + room - room // 2, held, held + demanded, vae_number)


sides = st.integers(32, 256).map(lambda eighths: eighths * 8)
rooms = st.integers(0, 40 * GIB)
anything = st.builds(params, sides, sides, count=st.sampled_from([1, 4]), guidance=st.sampled_from([1.0, 7.0]))
states = st.builds(measured, rooms, rooms, st.sampled_from([2, 4]))


@given(anything, states)
def test_a_named_size_is_valid_smaller_and_fits(asked: RenderParams, state: Measured):
    size = capacity.largest_size(asked, state)
    if size is None:
        return
    RenderParams.model_validate({"prompt": PROMPT, "width": size.width, "height": size.height})
    assert size.pixels < asked.width * asked.height
    assert size.width <= asked.width
    assert size.height <= asked.height
    # Rounding to the grid moves the shorter side by four pixels at most.
    assert abs(size.width * asked.height - size.height * asked.width) <= 4 * max(asked.width, asked.height)
    assert capacity.needed(size, asked, state.vae_number) <= state.room


@given(anything, rooms, rooms)
def test_more_memory_never_names_a_smaller_size(asked: RenderParams, one: int, other: int):
    small, large = (capacity.largest_size(asked, measured(room)) for room in sorted((one, other)))
    if small is not None:
        assert large is not None
        assert large.pixels >= small.pixels


@given(anything, rooms, rooms, rooms)
def test_an_attempt_that_took_more_names_no_larger_size(asked: RenderParams, room: int, one: int, other: int):
    low, high = sorted((one, other))
    modest, hungry = (capacity.largest_size(asked, measured(room, demanded)) for demanded in (low, high))
    if hungry is not None:
        assert modest is not None
        assert modest.pixels >= hungry.pixels


@given(anything, st.integers(1, 40 * GIB))
def test_what_was_measured_beats_an_estimate_that_says_it_fits(asked: RenderParams, extra: int):
    asked_size = Size(asked.width, asked.height)
    room = capacity.needed(asked_size, asked, 2) + extra
    size = capacity.largest_size(asked, measured(room))
    told = capacity.needed(asked_size, asked, 2)
    assert size is None or capacity.needed(size, asked, 2) <= told / capacity.HEADROOM_FACTOR


def test_the_shape_is_kept_either_way_round():
    wide, tall = (capacity.largest_size(params(*sides), measured(2 * GIB)) for sides in ((2048, 1024), (1024, 2048)))
    assert wide is not None
    assert tall is not None
    assert wide == tuple(reversed(tall))
    assert wide.width == 2 * wide.height


def test_decoding_beside_denoising_and_float32_take_more():
    def largest(state: Measured, **changes: Any) -> Size:
        size = capacity.largest_size(params(2048, 2048, **changes), state)
        assert size is not None
        return size

    one = largest(measured(2 * GIB))
    assert largest(measured(2 * GIB), count=2) < one
    assert largest(measured(2 * GIB, vae_number=4)) < one
    assert largest(measured(2 * GIB), count=2, guidance=1.0) > largest(measured(2 * GIB), count=2)


def test_the_message_names_sizes_and_no_prompt():
    text = capacity.explain(params(2048, 2048), measured(3 * GIB))
    assert "too little GPU memory for 2048x2048 pixels: 3072 MiB of 10240 MiB" in text
    assert str(capacity.largest_size(params(2048, 2048), measured(3 * GIB))) in text
    assert PROMPT not in text


@pytest.mark.parametrize("room", [0, 100 << 20, capacity.HEADROOM_BYTES])
def test_when_nothing_fits_it_says_so(room: int):
    assert capacity.largest_size(params(), measured(room)) is None
    assert "no smaller size of this shape fits" in capacity.explain(params(), measured(room))
    assert "no smaller size of this shape fits" in capacity.explain(params(256, 256), measured(40 * GIB))


def test_a_model_that_does_not_fit():
    text = capacity.explain_model(4 * GIB, 6 * GIB)
    assert "4096 MiB of 6144 MiB" in text
    assert text.endswith("no size fits")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 8.00 GiB", 5 * GIB // 2),
        ("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; ...)", 20 << 20),
        ("CUDA out of memory. Tried to allocate 512 bytes", 512),
        ("CUDA error: out of memory", 0),
    ],
)
def test_the_refused_request_is_read_from_the_text(text: str, size: int):
    assert faults.refused_bytes(RuntimeError(text)) == size

"""A prompt that a library repeats does not reach the log."""

import pytest

from dreamforge_runner.redaction import PromptFilter

PROMPT = "A lonely castle on a hill, (masterpiece:1.2), Rembrandt lighting"


@pytest.fixture
def watching() -> PromptFilter:
    prompts = PromptFilter()
    prompts.watch([PROMPT, "fog"])
    return prompts


@pytest.mark.parametrize(
    "line",
    [
        PROMPT,
        "input was truncated: ['castle on a hill , ( masterpiece : 1 . 2 ) ,']",
        "REMBRANDT LIGHTING",
    ],
)
def test_a_line_that_repeats_it_is_replaced(watching: PromptFilter, line: str):
    assert watching.clean(line) == "[a line that repeats the prompt]"


def test_other_lines_stay(watching: PromptFilter):
    line = "Loading pipeline components: 7 of 7"
    assert watching.clean(line) == line


def test_it_forgets_the_last_job(watching: PromptFilter):
    watching.watch([])
    assert watching.clean(PROMPT) == PROMPT


def test_a_short_prompt_is_found_whole():
    prompts = PromptFilter()
    prompts.watch(["castle"])
    assert prompts.clean("drawing: Castle!") == "[a line that repeats the prompt]"
    assert prompts.clean("drawing") == "drawing"

"""Text of others on our terminal."""

from dreamforge_cli.client import Event, Refused
from dreamforge_cli.console import harmless
from dreamforge_cli.watch import describe


def test_terminal_escapes_and_forged_lines_are_defused():
    made = harmless("a\x1b[31mred\x07\n2026 error\r\u2028x\x9b")
    assert not set("\x1b\x07\n\r\u2028\x9b") & set(made)
    assert made.startswith("a\ufffd[31mred")


def test_ordinary_text_stays():
    assert harmless("Grüße, 夜 🌲\tok") == "Grüße, 夜 🌲\tok"


def test_a_loud_log_line_is_shown_without_its_escapes():
    assert describe(Event("log", {"level": "warning", "message": "long\x1b[2J"})) == "warning: long\ufffd[2J"


def test_a_quiet_log_line_and_progress_are_not_shown():
    assert describe(Event("log", {"level": "info", "message": "x"})) is None
    assert describe(Event("progress", {"progress": 0.5})) is None


def test_an_error_names_image_and_class():
    data = {"item_index": 2, "code": "gpu_oom", "message": "too large"}
    assert describe(Event("error", data)) == "error: image 2: gpu_oom: too large"


def test_a_problem_becomes_readable_lines():
    problem = {
        "code": "invalid_input",
        "message": "One field breaks a rule",
        "details": [{"pointer": "/width", "message": "must be a multiple of 8"}],
        "correlation_id": "c-1",
    }
    assert str(Refused(422, problem)).split("\n") == [
        "422 invalid_input: One field breaks a rule",
        "  /width: must be a multiple of 8",
        "  correlation id: c-1",
    ]


def test_an_answer_that_is_no_problem_is_still_said():
    assert str(Refused(502, {})) == "502: no explanation"

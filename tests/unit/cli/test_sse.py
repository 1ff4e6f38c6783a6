"""Frames out of lines."""

from dreamforge_cli.sse import Frame, frames


def test_a_frame_ends_with_a_blank_line():
    lines = ["retry: 2000", "", "id: 1", "event: state", 'data: {"seq":1}', "", "id: 2", "event: log", "data: x"]
    assert list(frames(lines)) == [Frame("state", '{"seq":1}', "1")]


def test_the_last_id_stays_until_a_new_one_comes():
    lines = ["id: 7", "data: a", "", "event: end", "data: {}", ""]
    assert [frame.id for frame in frames(lines)] == ["7", "7"]


def test_an_id_from_before_the_connection_is_kept():
    assert [frame.id for frame in frames(["event: end", "data: {}", ""], last_id="12")] == ["12"]


def test_comments_and_unknown_fields_mean_nothing():
    assert list(frames([": heartbeat", "", "colour: red", "data: a", ""])) == [Frame("message", "a", None)]


def test_several_data_lines_are_one_text_and_only_one_space_goes():
    assert list(frames(["data:  a", "data:b", ""])) == [Frame("message", " a\nb", None)]


def test_an_event_name_does_not_leak_into_the_next_frame():
    assert [f.event for f in frames(["event: log", "", "data: a", ""])] == ["message"]

"""Strangers' names become plain ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from dreamforge.models import InsidePath
from dreamforge_cli.models.sources import names

PLAIN = TypeAdapter(InsidePath)


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("model.safetensors", "model.safetensors"),
        ("a b (v1)+x.safetensors", "a b (v1)+x.safetensors"),
        ("../../etc/passwd.safetensors", "passwd.safetensors"),
        ("..\\..\\x.safetensors", "x.safetensors"),
        ("C:\\x.safetensors", "x.safetensors"),
        ("/abs/x.safetensors", "x.safetensors"),
        ("x\0y.safetensors", "x_y.safetensors"),
        ("x\r\ny.safetensors", "x__y.safetensors"),
        (".hidden.safetensors", "hidden.safetensors"),
        ("..safetensors", "model.safetensors"),
        ("", "model"),
        ("...", "model"),
        ("CON.safetensors", "_CON.safetensors"),
        ("lpt1.x.safetensors", "_lpt1.x.safetensors"),
        ("a..b.safetensors", "a.b.safetensors"),
        ("é.safetensors", "e_.safetensors"),
        ("x" * 300 + ".safetensors", "x" * 100 + ".safetensors"),
        ("\u202etxt.safetensors", "_txt.safetensors"),
    ],
)
def test_file_names(told, name):
    assert names.file_name(told) == name


@given(st.text(max_size=400))
def test_any_name_becomes_one_plain_name(told):
    name = names.file_name(f"{told}.safetensors")
    assert PLAIN.validate_python(name) == name
    assert "/" not in name
    assert name.endswith(".safetensors")


@pytest.mark.parametrize("suffix", ["ckpt", "pt", "pth", "bin", "pkl", "CKPT"])
def test_pickles_are_refused_by_name(suffix):
    assert "run code" in (names.refused_format(f"x.{suffix}") or "")


@pytest.mark.parametrize("path", ["x.zip", "x.tar.gz", "x.py", "x", "x.safetensors.zip", "x.gguf", "x.json"])
def test_nothing_but_safetensors_is_fetched(path):
    assert names.refused_format(path) is not None


def test_words_obey_no_terminal():
    assert names.words("a\x1b[31m\r\nb\u202ec" + "d" * 500, 12) == "a [31m b cdd"

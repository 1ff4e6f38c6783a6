"""Names that a source or the command line gives, before any of them becomes a path."""

from dataclasses import replace

import pytest

from dreamforge.models import FileRole, ModelKind, Provenance
from dreamforge_cli.models.errors import BadReference
from dreamforge_cli.models.install import sound, with_configuration
from dreamforge_cli.models.sources.base import ResolvedFile, ResolvedModel

PROVENANCE = Provenance(source="mine", ref="mine:x")
MODEL = ResolvedModel(
    slug="sdxl-x",
    version="1",
    kind=ModelKind.SDXL_CHECKPOINT,
    name="X",
    source_uri="mine:x",
    provenance=PROVENANCE,
    files=(ResolvedFile("x.safetensors", FileRole.CHECKPOINT, "https://host/x", 1, "0" * 64),),
)


def file(path: str) -> ResolvedFile:
    return replace(MODEL.files[0], path=path)


def test_good_names_pass():
    assert sound(MODEL) is MODEL


@pytest.mark.parametrize("slug", ["", "..", "../x", "a/b", "A", "-x", "x" * 65, "x\n"])
def test_bad_slugs(slug: str):
    with pytest.raises(BadReference):
        sound(replace(MODEL, slug=slug))


@pytest.mark.parametrize("version", ["", "..", "1/2", ".hidden", "x" * 65])
def test_bad_versions(version: str):
    with pytest.raises(BadReference):
        sound(replace(MODEL, version=version))


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".x", "a\0b", "x" * 256, "a/ b", "model.json"]
)
def test_bad_paths(path: str):
    with pytest.raises(BadReference):
        sound(replace(MODEL, files=(*MODEL.files, file(path))))


def test_no_checkpoint_or_one_name_twice():
    with pytest.raises(BadReference, match="checkpoint"):
        sound(replace(MODEL, files=(replace(MODEL.files[0], role=FileRole.CONFIG),)))
    with pytest.raises(BadReference, match="one name"):
        sound(replace(MODEL, files=(*MODEL.files, file("X.safetensors"))))


def test_a_name_must_be_one():
    for name in ("", "x" * 257):
        with pytest.raises(BadReference):
            sound(replace(MODEL, name=name))


def test_the_configurations_source_stands_among_the_ids():
    assert with_configuration(PROVENANCE, None) == PROVENANCE
    assert with_configuration(PROVENANCE, "hf:a/b@c").ids == {"config": "hf:a/b@c"}

"""Which file of a repository is meant, and what it is called."""

import pytest

from dreamforge_cli.models.errors import BadReference, NotAllowed
from dreamforge_cli.models.sources import huggingface
from dreamforge_cli.models.sources.hub import Lfs, Listed, Repository
from tests import pipeline_config

BASE = [
    "sd_xl_base_1.0.safetensors",
    "sd_xl_base_1.0_0.9vae.safetensors",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder_2/model.safetensors",
    "vae_1_0/diffusion_pytorch_model.safetensors",
    "README.md",
    "old.ckpt",
    "tool.py",
]


def repository(*paths: str, name: str = "owner/thing") -> Repository:
    files = [Listed(rfilename=path, size=2**30, lfs=Lfs(size=2**30, sha256="a" * 64)) for path in paths]
    return Repository(id=name, sha="b" * 40, siblings=files)


@pytest.mark.parametrize(
    ("paths", "wanted", "chosen"),
    [
        (["a.safetensors"], None, "a.safetensors"),
        (["a.safetensors", "unet/x.safetensors", "a.ckpt"], None, "a.safetensors"),
        (["sub/a.safetensors"], None, "sub/a.safetensors"),
        (BASE, "sd_xl_base_1.0.safetensors", "sd_xl_base_1.0.safetensors"),
        (BASE, "*0.9vae*", "sd_xl_base_1.0_0.9vae.safetensors"),
        (BASE, "unet/*", "unet/diffusion_pytorch_model.fp16.safetensors"),
        (["a[1].safetensors", "a1.safetensors"], "a[1].safetensors", "a[1].safetensors"),
        (["x/a.safetensors", "y/b.safetensors"], "a.*", "x/a.safetensors"),
        (["a.safetensors", "a.ckpt"], "a.*", "a.safetensors"),
        (["a.safetensors", "unet/a.safetensors"], "*", "a.safetensors"),
    ],
)
def test_one_checkpoint_is_meant(paths, wanted, chosen):
    assert huggingface.choose(repository(*paths), wanted).rfilename == chosen


@pytest.mark.parametrize(
    ("paths", "wanted", "error", "says"),
    [
        (BASE, None, BadReference, "2 checkpoints that fit; add one of these: #sd_xl_base_1.0.safetensors (1.0 GiB)"),
        (BASE, "sd_*", BadReference, "2 checkpoints that fit"),
        (BASE, "*", BadReference, "2 checkpoints that fit"),
        (BASE, "nope*", BadReference, "no checkpoint nope*; there is: #sd_xl_base_1.0.safetensors"),
        (BASE, "README.md", NotAllowed, "README.md is no .safetensors file"),
        (BASE, "tool.py", NotAllowed, "tool.py is no .safetensors file"),
        (BASE, "old.ckpt", NotAllowed, "can run code"),
        (BASE, "*.ckpt", NotAllowed, "can run code"),
        (["old.ckpt", "x.pt"], None, NotAllowed, "can run code"),
        (["pack.zip"], "pack.zip", NotAllowed, "is an archive"),
        (["unet/a.safetensors"], None, BadReference, "no single-file checkpoint"),
        (["README.md"], None, BadReference, "no single-file checkpoint"),
        ([], None, BadReference, "no single-file checkpoint"),
    ],
)
def test_what_is_not_one_checkpoint_is_said(paths, wanted, error, says):
    with pytest.raises(error) as raised:
        huggingface.choose(repository(*paths), wanted)
    assert says in str(raised.value)


def test_a_long_list_is_cut():
    with pytest.raises(BadReference, match=r"and 8 more$"):
        huggingface.choose(repository(*(f"{n:02}.safetensors" for n in range(20))), None)


@pytest.mark.parametrize(
    ("paths", "chosen", "name"),
    [
        (["model.safetensors"], "model.safetensors", "thing"),
        (["model.safetensors", "unet/model.safetensors"], "model.safetensors", "thing"),
        (["a.safetensors", "b.safetensors"], "a.safetensors", "a"),
        (["fp16/a.safetensors", "fp32/a.safetensors"], "fp16/a.safetensors", "thing fp16/a"),
    ],
)
def test_two_files_of_one_commit_have_two_names(paths, chosen, name):
    found = repository(*paths)
    assert huggingface.choose(found, chosen).rfilename == chosen
    assert huggingface.name_of(found, chosen) == name


PARTS = ["model_index.json", *pipeline_config.FILES]


@pytest.mark.parametrize("missing", PARTS)
def test_a_configuration_is_whole_or_none(missing):
    assert huggingface.complete(PARTS)
    assert not huggingface.complete(path for path in PARTS if path != missing)

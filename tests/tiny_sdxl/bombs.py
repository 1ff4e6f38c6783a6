"""Pickles in disguise: each would leave a file behind if anything unpickled it. Needs no library.

A bomb is laid around a good checkpoint with its configuration, in every place where a loader might fall back to a
format that runs code, or fetch code by name.
"""

import gzip
import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from tests.tiny_sdxl import TinySdxl
from tests.tiny_sdxl.broken import Bomb, join, split


@dataclass(frozen=True)
class Disguise:
    """``refused``: nobody may load the model; else it loads, and the bomb is passed by."""

    name: str
    lay: Callable[["Place"], Path]
    refused: bool = True


@dataclass(frozen=True)
class Place:
    """A folder with ``model.safetensors`` and ``config/``, and the file that must never come to be."""

    folder: Path
    canary: Path

    @property
    def model(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def config(self) -> Path:
        return self.folder / "config"

    def bomb(self, protocol: int = 4) -> bytes:
        return pickle.dumps({"state_dict": Bomb(str(self.canary))}, protocol)


def place(folder: Path, good: TinySdxl, canary: Path) -> Place:
    """A good model to hide a bomb in."""
    folder.mkdir()
    made = Place(folder, canary)
    made.model.write_bytes(good.checkpoint.read_bytes())
    shutil.copytree(good.config, made.config)
    return made


def _raw(protocol: int) -> Callable[[Place], Path]:
    def lay(at: Place) -> Path:
        at.model.write_bytes(at.bomb(protocol))
        return at.model

    return lay


def _named(name: str) -> Callable[[Place], Path]:
    """As PyTorch writes them today: a zip with a pickle inside."""

    def lay(at: Place) -> Path:
        buffer = BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", at.bomb(2))
            archive.writestr("archive/version", "3")
        path = at.folder / name
        path.write_bytes(buffer.getvalue())
        return path

    return lay


def _legacy(at: Place) -> Path:
    """As PyTorch wrote them before 1.6: pickles one after the other."""
    at.model.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + at.bomb(2))
    return at.model


def _gzipped(at: Place) -> Path:
    at.model.write_bytes(gzip.compress(at.bomb()))
    return at.model


def _behind_a_length(at: Place) -> Path:
    """Begins as a safetensors file does."""
    bomb = at.bomb()
    at.model.write_bytes(struct.pack("<Q", len(bomb)) + bomb + bytes(64))
    return at.model


def _after_the_tensors(at: Place) -> Path:
    at.model.write_bytes(at.model.read_bytes() + at.bomb())
    return at.model


def _in_the_metadata(at: Place) -> Path:
    header, data = split(at.model.read_bytes())
    header["__metadata__"] = {"format": "pickle", "state_dict": at.bomb(0).decode("ascii")}
    at.model.write_bytes(join(header, data))
    return at.model


def _beside(*names: str) -> Callable[[Place], Path]:
    """Weights that a loader of folders would take, should it ever prefer the old format."""

    def lay(at: Place) -> Path:
        for name in names:
            (at.folder / name).write_bytes(at.bomb(2))
        return at.model

    return lay


def _code_in_the_configuration(at: Place) -> Path:
    """What ``trust_remote_code`` would import."""
    code = f"open({str(at.canary)!r}, 'w')\n"
    for part in ("tokenizer", "text_encoder", "unet", "."):
        (at.config / part / "evil.py").write_text(code)
        (at.config / part / "__init__.py").write_text(code)
    for file in ("tokenizer/tokenizer_config.json", "text_encoder/config.json"):
        given = json.loads((at.config / file).read_text())
        given["auto_map"] = {"AutoTokenizer": ["evil.Tokenizer", None], "AutoModel": "evil.Model"}
        (at.config / file).write_text(json.dumps(given))
    return at.model


def _class_by_name(at: Place) -> Path:
    (at.config / "evil.py").write_text(f"open({str(at.canary)!r}, 'w')\n")
    index = json.loads((at.config / "model_index.json").read_text())
    (at.config / "model_index.json").write_text(json.dumps({**index, "unet": ["evil", "UNet2DConditionModel"]}))
    return at.model


DISGUISES = (
    *(Disguise(f"pickle-protocol-{protocol}", _raw(protocol)) for protocol in range(6)),
    Disguise("torch-zip-renamed", _named("renamed.safetensors")),
    *(
        Disguise(f"torch-zip{suffix}", _named(f"model{suffix}"))
        for suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl")
    ),
    Disguise("torch-legacy-renamed", _legacy),
    Disguise("gzip-renamed", _gzipped),
    Disguise("behind-a-length", _behind_a_length),
    Disguise("after-the-tensors", _after_the_tensors),
    Disguise("class-by-name", _class_by_name),
    Disguise("in-the-metadata", _in_the_metadata, refused=False),
    Disguise("weights-beside", _beside("model.ckpt", "model.bin", "pytorch_model.bin"), refused=False),
    Disguise(
        "weights-in-the-configuration",
        _beside(
            "config/unet/diffusion_pytorch_model.bin",
            "config/vae/diffusion_pytorch_model.bin",
            "config/text_encoder/pytorch_model.bin",
            "config/text_encoder_2/pytorch_model.bin",
        ),
        refused=False,
    ),
    Disguise("code-in-the-configuration", _code_in_the_configuration, refused=False),
)

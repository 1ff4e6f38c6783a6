"""Both sources on loopback, small models to put there, and the command line pointed at them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import pipeline_config, tiny_sdxl
from tests.standins.civitai import CivitAI
from tests.standins.huggingface import HuggingFace, Repo
from tests.tiny_sdxl import broken

#: What a checkpoint without configuration gets; the setting's default names this commit.
BASE = "stabilityai/stable-diffusion-xl-base-1.0"
BASE_COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"
#: A configuration that passes every check; nothing can be rendered with it.
CONFIG = {
    "model_index.json": json.dumps(pipeline_config.INDEX).encode(),
    "scheduler/scheduler_config.json": b"{}",
    **{f"{part}/config.json": b"{}" for part in ("unet", "vae", "text_encoder", "text_encoder_2")},
    **{f"{part}/tokenizer.json": b"{}" for part in ("tokenizer", "tokenizer_2")},
}


def checkpoint(name: str = "one", size: int = 1000) -> bytes:
    """A file that passes for an SDXL checkpoint, of about ``size`` bytes; other names give other bytes."""
    return broken.encode({**broken.MINIMAL, f"told.apart.by.{name}": [size]})


@dataclass(frozen=True)
class Shops:
    """The sources, and how a command finds them."""

    hf: HuggingFace
    civitai: CivitAI

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.hf.url,
            "DF_CIVITAI_ENDPOINT": self.civitai.url,
            "DF_MODEL_ALLOWED_HOSTS": json.dumps(self.hf.authorities + self.civitai.authorities),
        }

    def repository(self, name: str, data: bytes, **more: object) -> Repo:
        """A repository on Hugging Face with one checkpoint and no configuration."""
        return self.hf.add(name, {f"{name.rpartition('/')[2]}.safetensors": data}, **more)

    @property
    def sent_bytes(self) -> int:
        """Of files, from both stores."""
        return self.hf.store.site.sent_bytes + self.civitai.store.site.sent_bytes


@contextmanager
def open_shops(config: dict[str, bytes] | None = None) -> Iterator[Shops]:
    """Both sources, with the repository of the configuration."""
    shops = Shops(HuggingFace(), CivitAI())
    shops.hf.add(BASE, dict(config or CONFIG), commit=BASE_COMMIT)
    try:
        yield shops
    finally:
        shops.hf.close()
        shops.civitai.close()


def tiny() -> tuple[bytes, dict[str, bytes]]:
    """The tiny SDXL checkpoint that renders, and its configuration."""
    made = tiny_sdxl.cached()
    files = [path for path in made.config.rglob("*") if path.is_file()]
    return made.checkpoint.read_bytes(), {_below(path, made.config): path.read_bytes() for path in files}


def other(data: bytes) -> bytes:
    """The same checkpoint with another hash: one bit of its last weight."""
    return data[:-1] + bytes([data[-1] ^ 1])


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()

"""Checkpoints that must be refused, each made from the bytes of a good one; needs no library."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from dreamforge.errors import ErrorCode

Header = dict[str, Any]
UNET_INPUT = "model.diffusion_model.input_blocks.0.0.weight"


@dataclass(frozen=True)
class Broken:
    """What is wrong, and words its message must say."""

    name: str
    words: str
    make: Callable[[bytes], bytes]
    file_name: str = "broken.safetensors"
    code: ErrorCode = ErrorCode.MODEL_INVALID

    def write(self, folder: Path, good: bytes) -> Path:
        path = folder / self.file_name
        path.write_bytes(self.make(good))
        return path


def split(good: bytes) -> tuple[Header, bytes]:
    """Header and data of a well-formed file."""
    (length,) = struct.unpack("<Q", good[:8])
    return json.loads(good[8 : 8 + length]), good[8 + length :]


def join(header: Header | str, data: bytes) -> bytes:
    raw = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def encode(shapes: dict[str, list[int]]) -> bytes:
    """A well-formed file of zero bytes as one-byte tensors."""
    header: Header = {}
    position = 0
    for name, shape in shapes.items():
        size = 1
        for dimension in shape:
            size *= dimension
        header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [position, position + size]}
        position += size
    return join(header, bytes(position))


#: The least that has the looks of an SDXL checkpoint.
MINIMAL = {
    UNET_INPUT: [2, 4, 3, 3],
    "model.diffusion_model.label_emb.0.0.weight": [2, 2],
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": [2, 2],
    "conditioner.embedders.1.model.token_embedding.weight": [2, 2],
    "first_stage_model.decoder.conv_in.weight": [2, 2],
}


def _edited(change: Callable[[Header], None]) -> Callable[[bytes], bytes]:
    def make(good: bytes) -> bytes:
        header, data = split(good)
        change(header)
        return join(header, data)

    return make


def _first(header: Header) -> Header:
    """The entry at offset 0."""
    entry: Header = min((e for n, e in header.items() if n != "__metadata__"), key=lambda e: e["data_offsets"][0])
    return entry


def _field(name: str, value: Any) -> Callable[[bytes], bytes]:
    return _edited(lambda header: _first(header).__setitem__(name, value))


def _shifted(begin: int, end: int) -> Callable[[bytes], bytes]:
    """Move the second tensor by whole intervals, keeping its length right."""

    def change(header: Header) -> None:
        entries = sorted((e for n, e in header.items() if n != "__metadata__"), key=lambda e: e["data_offsets"][0])
        old = entries[1]["data_offsets"]
        entries[1]["data_offsets"] = [old[0] + begin, old[1] + end]

    return _edited(change)


def _without(prefix: str) -> Callable[[bytes], bytes]:
    """The same checkpoint lacking some tensors, still well-formed."""

    def make(good: bytes) -> bytes:
        header, data = split(good)
        kept, chunks, position = {}, [], 0
        for name, entry in header.items():
            if name == "__metadata__" or name.startswith(prefix):
                continue
            chunk = data[slice(*entry["data_offsets"])]
            kept[name] = {**entry, "data_offsets": [position, position + len(chunk)]}
            chunks.append(chunk)
            position += len(chunk)
        return join(kept, b"".join(chunks))

    return make


def _renamed(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(header: Header) -> None:
        for name in [name for name in header if name.startswith(old)]:
            header[new + name.removeprefix(old)] = header.pop(name)

    return _edited(change)


def _only(*names: str) -> Callable[[bytes], bytes]:
    return lambda _: encode({name: [2, 2] for name in names})


class Bomb:
    """Unpickling this would leave a file behind."""

    def __init__(self, canary: str) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.canary, "w")


def pickle_bomb(canary: Path) -> bytes:
    return pickle.dumps({"state_dict": Bomb(str(canary))})


def _zip(_: bytes) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return buffer.getvalue()


def _duplicate_key(good: bytes) -> bytes:
    header, data = split(good)
    name = next(name for name in header if name != "__metadata__")
    raw = json.dumps(header)
    return join("{" + json.dumps(name) + ":" + json.dumps(header[name]) + "," + raw[1:], data)


def _inpainting(good: bytes) -> bytes:
    header, data = split(good)
    entry = header[UNET_INPUT]
    out, _, height, width = entry["shape"]
    entry["shape"] = [out * 2, 2, height, width]  # as many bytes, other channels
    return join(header, data)


def _claiming(length: int) -> Callable[[bytes], bytes]:
    return lambda good: struct.pack("<Q", length) + good[8:]


def _crowd(count: int) -> Callable[[bytes], bytes]:
    """Tensors without a byte."""
    one = '"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return lambda _: join("{" + ",".join(one % number for number in range(count)) + "}", b"")


CORPUS = (
    Broken("empty", "too short", lambda _: b""),
    Broken("seven-bytes", "too short", lambda good: good[:7]),
    Broken("truncated-header", "truncated", lambda good: good[:60]),
    Broken("truncated-data", "truncated", lambda good: good[:-1]),
    Broken("trailing-bytes", "after its last tensor", lambda good: good + b"\0"),
    Broken("ckpt", "only .safetensors", lambda good: good, "model.ckpt"),
    Broken("no-extension", "only .safetensors", lambda good: good, "model"),
    Broken("zip-renamed", "zip", _zip),
    Broken("gguf", "GGUF", lambda _: b"GGUF" + bytes(64)),
    Broken("lfs-pointer", "LFS", lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    Broken("html", "HTML", lambda _: b"<!DOCTYPE html><title>Log in</title>"),
    Broken("header-2^63", "at most", _claiming(2**63)),
    Broken("header-over-16-MiB", "at most", _claiming(16 * 2**20 + 1)),
    Broken("header-past-end", "ends before", _claiming(16 * 2**20)),
    Broken("header-array", "JSON object", lambda _: join("[]", bytes(8))),
    Broken("header-broken-json", "valid JSON", lambda _: join('{"a":', bytes(8))),
    Broken("header-not-utf8", "valid JSON", lambda _: struct.pack("<Q", 4) + b'{"\xff}' + bytes(8)),
    Broken("header-deep", "valid JSON", lambda _: join('{"a":' + "[" * 100_000, b"")),
    Broken("header-long-number", "valid JSON", lambda _: join('{"a":' + "9" * 5_000 + "}", b"")),
    Broken("header-empty", "no tensor", lambda _: join("{}", b"")),
    Broken("tensors-10^5", "more than 65536 tensors", _crowd(10**5)),
    Broken("tensors-10^6", "at most", _crowd(10**6)),
    Broken("duplicate-key", "twice", _duplicate_key),
    Broken("metadata-over-16-MiB", "at most", _edited(lambda h: h.__setitem__("__metadata__", {"a": "x" * 2**24}))),
    Broken("metadata-not-text", "metadata", _edited(lambda header: header.__setitem__("__metadata__", {"a": 1}))),
    Broken("entry-not-object", "without dtype", _edited(lambda header: header.__setitem__("x", 1))),
    Broken("entry-extra-field", "without dtype", _field("extra", 1)),
    Broken("unknown-dtype", "unknown dtype", _field("dtype", "F1024")),
    Broken("dtype-not-text", "unknown dtype", _field("dtype", ["F32"])),
    Broken("shape-negative", "natural numbers", _field("shape", [-1, -36])),
    Broken("shape-boolean", "natural numbers", _field("shape", [True])),
    Broken("shape-huge", "number of bytes", _field("shape", [2**62] * 8)),
    Broken("shape-rank-9", "natural numbers", _field("shape", [1] * 9)),
    Broken("shape-product", "number of bytes", _field("shape", [1])),
    Broken("offset-negative", "interval", _field("data_offsets", [-4, 0])),
    Broken("offset-backwards", "interval", _field("data_offsets", [4, 0])),
    Broken("offset-float", "interval", _field("data_offsets", [0.0, 4.0])),
    Broken("offset-one", "interval", _field("data_offsets", [0])),
    Broken("offsets-overlap", "overlaps", _shifted(-1, -1)),
    Broken("offsets-gap", "gap", _shifted(1, 1)),
    Broken("offsets-past-end", "gap", _shifted(2**40, 2**40)),
    Broken("sd1", "Stable Diffusion 1.x", _renamed("conditioner.embedders.0.", "cond_stage_model.")),
    Broken("sd2", "Stable Diffusion 2.x", _renamed("conditioner.embedders.1.", "cond_stage_model.")),
    Broken("refiner", "refiner", _only("conditioner.embedders.0.model.x", f"{UNET_INPUT}", "first_stage_model.x")),
    Broken("lora", "a LoRA", _only("lora_unet_down_blocks_0.lora_down.weight", "lora_unet_x.alpha")),
    Broken("flux", "Flux", _only("model.diffusion_model.double_blocks.0.img_attn.qkv.weight")),
    Broken("diffusers-unet", "diffusers format", _only("down_blocks.0.resnets.0.conv1.weight")),
    Broken("embedding", "textual inversion", _only("clip_g", "clip_l")),
    Broken("unknown-model", "not an SDXL checkpoint", _only("layer.weight")),
    Broken("no-text-encoder-1", "CLIP-L", _without("conditioner.embedders.0.")),
    Broken("no-text-encoder-2", "OpenCLIP", _without("conditioner.embedders.1.")),
    Broken("no-vae", "the VAE", _without("first_stage_model.")),
    Broken("no-unet", "the UNet", _without("model.diffusion_model.")),
    Broken("no-label-embedding", "size conditioning", _without("model.diffusion_model.label_emb.")),
    Broken("no-unet-input", "first convolution", _without(UNET_INPUT)),
    Broken("inpainting", "inpainting", _inpainting),
)


def _metadata_of_a_gibibyte(path: Path, good: bytes) -> None:
    """The header says so and the file is that long, of holes: nobody may read it to find out."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**30 + 4096) + b'{"__metadata__":{"a":"')
        file.truncate(8 + 2**30 + 4096 + len(good))


def _never_filled(path: Path, good: bytes) -> None:
    """Whole at once by its size, with the beginning there: a download in pieces that was cut off."""
    header, data = split(good)
    kept = {name: entry for name, entry in header.items() if name != "__metadata__"}
    rest = {"dtype": "U8", "shape": [2**26], "data_offsets": [len(data), len(data) + 2**26]}
    head = join({**kept, "model.diffusion_model.rest": rest}, data)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2**26)


def _a_loop(path: Path, _: bytes) -> None:
    path.symlink_to(path)


def _nowhere(path: Path, _: bytes) -> None:
    path.symlink_to(path.parent / "gone.safetensors")


@dataclass(frozen=True)
class BrokenOnDisk:
    """What bytes alone can't say."""

    name: str
    words: str
    lay: Callable[[Path, bytes], None]
    code: ErrorCode = ErrorCode.MODEL_INVALID

    def write(self, folder: Path, good: bytes) -> Path:
        path = folder / "broken.safetensors"
        path.unlink(missing_ok=True)
        self.lay(path, good)
        return path


ON_DISK = (
    BrokenOnDisk("metadata-1-GiB", "at most", _metadata_of_a_gibibyte),
    BrokenOnDisk("sparse", "never written", _never_filled),
    BrokenOnDisk("folder", "not a file", lambda path, _: path.mkdir()),
    BrokenOnDisk("device", "not a file", lambda path, _: path.symlink_to("/dev/zero")),
    BrokenOnDisk("link-to-itself", "can't be reached", _a_loop, ErrorCode.MODEL_MISSING),
    BrokenOnDisk("link-to-nowhere", "no checkpoint", _nowhere, ErrorCode.MODEL_MISSING),
)


def with_weights_that_are_not_numbers(good: bytes, prefix: str) -> bytes:
    """The same file, as long, but for the first tensor of a part, which is all NaN."""
    header, data = split(good)
    begin, end = map(int, next(entry["data_offsets"] for name, entry in header.items() if name.startswith(prefix)))
    start = len(good) - len(data)
    return good[: start + begin] + b"\xff" * (end - begin) + good[start + end :]

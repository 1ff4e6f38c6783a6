"""Read and check the header of a ``.safetensors`` file before any library sees the file. Pure: no torch.

Layout (format documentation of the safetensors project): 8 bytes little-endian header length, that many bytes
of JSON (``name -> {dtype, shape, data_offsets}`` plus ``__metadata__``), then the tensors' bytes without gaps.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

#: SDXL's own header is about 300 KiB; anything near this bound is an attack or an accident.
MAX_HEADER_BYTES = 16 * 2**20
#: SDXL has 2,515 tensors, and twice that with a copy of averaged weights.
MAX_TENSORS = 2**16
_MAX_RANK = 8

_DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

_FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint, which can run code when loaded)",
    b"\x80\x02": "a pickle (which can run code when loaded)",
    b"\x80\x03": "a pickle (which can run code when loaded)",
    b"\x80\x04": "a pickle (which can run code when loaded)",
    b"\x80\x05": "a pickle (which can run code when loaded)",
    b"GGUF": "a GGUF file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<!DOCTYPE": "an HTML page, probably an error page of a download",
    b"<html": "an HTML page, probably an error page of a download",
}


class HeaderError(ValueError):
    """The header breaks a rule; the text completes the sentence "the file ..."."""


@dataclass(frozen=True)
class Tensor:
    """What the header says of one tensor; offsets count from the end of the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read(file: BinaryIO, size: int) -> Mapping[str, Tensor]:
    """All tensors of an open file of ``size`` bytes; raises :class:`HeaderError` where the library might not."""
    start = file.read(32)
    for magic, what in _FOREIGN_MAGIC.items():
        if start.startswith(magic):
            raise HeaderError(f"is {what}")
    if size < 10:
        raise HeaderError(f"is {size} bytes long, too short for any header")
    (length,) = struct.unpack("<Q", start[:8])
    if length > MAX_HEADER_BYTES:
        raise HeaderError(f"says its header has {length} bytes; at most {MAX_HEADER_BYTES} are accepted")
    if 8 + length > size:
        raise HeaderError(f"says its header has {length} bytes, but ends before that (truncated?)")
    file.seek(8)
    tensors = {name: _tensor(name, entry) for name, entry in _parse(file.read(length)).items()}
    _check_layout(tensors, size - 8 - length)
    return tensors


def _parse(raw: bytes) -> dict[str, Any]:
    if not raw.startswith(b"{"):
        raise HeaderError("has a header that is not a JSON object")
    if raw.count(b'"dtype"') > MAX_TENSORS:  # before parsing, which takes more than ten times the header's memory
        raise HeaderError(f"has a header of more than {MAX_TENSORS} tensors")
    try:
        header = json.loads(raw.decode(), object_pairs_hook=_without_duplicates)
    except HeaderError:
        raise
    except (ValueError, RecursionError):
        raise HeaderError("has a header that is not valid JSON") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise HeaderError("has metadata that is not a map of strings")
    if not header:
        raise HeaderError("holds no tensor")
    return dict(header)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise HeaderError("has a header that names one key twice")
    return found


def _tensor(name: str, entry: Any) -> Tensor:
    label = repr(name[:120])
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"has a header entry {label} without dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPE_BYTES:
        raise HeaderError(f"has a tensor {label} of an unknown dtype")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        raise HeaderError(f"has a tensor {label} whose shape is not up to {_MAX_RANK} natural numbers")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise HeaderError(f"has a tensor {label} whose offsets are not an interval")
    if prod(shape) * _DTYPE_BYTES[dtype] != offsets[1] - offsets[0]:
        raise HeaderError(f"has a tensor {label} whose shape and dtype don't give its number of bytes")
    return Tensor(dtype, tuple(shape), offsets[0], offsets[1])


def _naturals(values: Any) -> bool:
    # type() and not isinstance(): JSON's true is an int to Python.
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_layout(tensors: Mapping[str, Tensor], data_bytes: int) -> None:
    """Tensors must tile the data exactly: no overlap, no gap, nothing missing, nothing after."""
    position = 0
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if tensor.end > data_bytes:
            raise HeaderError(f"ends before the bytes of tensor {name[:120]!r} (truncated download?)")
        if tensor.begin != position:
            what = "overlaps another one" if tensor.begin < position else "follows a gap"
            raise HeaderError(f"has a tensor {name[:120]!r} that {what}")
        position = tensor.end
    if position != data_bytes:
        raise HeaderError(f"has {data_bytes - position} bytes after its last tensor")

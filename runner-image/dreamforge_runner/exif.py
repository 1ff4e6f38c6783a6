"""The EXIF block of a JPEG, written by hand: Pillow gives ``UserComment`` a type that the standard forbids there.

A TIFF structure in big-endian order: IFD0 with the tags that EXIF 2.32 requires, and the Exif IFD with the comment.
"""

import struct
from typing import NamedTuple

_SHORT, _LONG, _RATIONAL, _UNDEFINED = 3, 4, 5, 7
_HEADER = b"MM\x00\x2a\x00\x00\x00\x08"
_FIRST_IFD = 8


class _Tag(NamedTuple):
    number: int
    kind: int
    size: int
    value: bytes


def _short(number: int, value: int) -> _Tag:
    return _Tag(number, _SHORT, 1, struct.pack(">H", value))


def _long(number: int, value: int) -> _Tag:
    return _Tag(number, _LONG, 1, struct.pack(">L", value))


def _rational(number: int, value: int) -> _Tag:
    return _Tag(number, _RATIONAL, 1, struct.pack(">LL", value, 1))


def _raw(number: int, value: bytes) -> _Tag:
    return _Tag(number, _UNDEFINED, len(value), value)


def block(comment: str, width: int, height: int) -> bytes:
    """``Exif`` and the TIFF structure, as Pillow's ``exif=`` takes it."""
    inner = [
        _raw(0x9000, b"0232"),  # ExifVersion
        _raw(0x9101, b"\x01\x02\x03\x00"),  # ComponentsConfiguration: Y Cb Cr
        _raw(0x9286, b"UNICODE\0" + comment.encode("utf-16-be")),  # UserComment, in the block's byte order
        _raw(0xA000, b"0100"),  # FlashpixVersion
        _short(0xA001, 1),  # ColorSpace: sRGB
        _long(0xA002, width),
        _long(0xA003, height),
    ]
    outer = [_rational(0x011A, 72), _rational(0x011B, 72), _short(0x0128, 2), _short(0x0213, 1)]
    exif_at = _FIRST_IFD + len(_ifd([*outer, _long(0x8769, 0)], 0))
    first = _ifd([*outer, _long(0x8769, exif_at)], _FIRST_IFD)
    return b"Exif\0\0" + _HEADER + first + _ifd(inner, exif_at)


def _ifd(tags: list[_Tag], at: int) -> bytes:
    """A directory that begins at offset ``at``: entries in tag order, then the values that don't fit in one."""
    values_at = at + 2 + 12 * len(tags) + 4
    entries, values = b"", b""
    for tag in tags:
        value = tag.value
        if len(value) > 4:
            offset = values_at + len(values)
            values += value + b"\0" * (len(value) % 2)
            value = struct.pack(">L", offset)
        entries += struct.pack(">HHL", tag.number, tag.kind, tag.size) + value.ljust(4, b"\0")
    return struct.pack(">H", len(tags)) + entries + b"\0\0\0\0" + values

"""What a finished image says about itself: pixels, and the metadata that galleries and people read."""

import json
import re
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from xml.etree import ElementTree

from PIL import Image

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_SOURCE_TYPE = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType"
_METADATA = "{https://dreamforge.dev/ns/1.0/}metadata"
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286


@dataclass(frozen=True)
class Picture:
    """One image: ``fields`` is the JSON of the contract, ``parameters`` the text of galleries."""

    format: str
    size: tuple[int, int]
    pixels: bytes
    fields: dict[str, Any]
    parameters: str
    source_type: str


def read(data: bytes) -> Picture:
    """Read an image that carries metadata."""
    with Image.open(BytesIO(data)) as image:
        image.load()
        pixels = image.convert("RGB").tobytes()
        if image.format == "PNG":
            text: dict[str, str] = getattr(image, "text", {})
            assert text.keys() == {"dreamforge", "parameters", "XML:com.adobe.xmp"}
            described, source = text["dreamforge"], _xmp(text["XML:com.adobe.xmp"])[_SOURCE_TYPE]
            return Picture("PNG", image.size, pixels, json.loads(described), text["parameters"], source)
        assert image.format == "JPEG"
        packet = _xmp(image.info["xmp"].decode())
        order = {b"MM": "utf-16-be", b"II": "utf-16-le"}[image.info["exif"][6:8]]
        comment = _user_comment(image.getexif().get_ifd(_EXIF_IFD)[_USER_COMMENT], order)
        return Picture("JPEG", image.size, pixels, json.loads(packet[_METADATA]), comment, packet[_SOURCE_TYPE])


def _xmp(packet: str) -> dict[str, str]:
    inner = re.sub(r"<\?xpacket[^>]*\?>", "", packet)
    (description,) = ElementTree.fromstring(inner).iter(f"{_RDF}Description")  # noqa: S314 - our own file
    return {child.tag: child.text or "" for child in description}


def _user_comment(raw: bytes, order: str) -> str:
    assert raw.startswith(b"UNICODE\0"), raw[:8]
    return raw[8:].decode(order)

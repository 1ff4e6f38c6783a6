"""Pixels to file bytes, with or without what the image says about itself."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dreamforge.spec import ImageFormat
from dreamforge_runner import exif
from dreamforge_runner.backends.base import Pixels

#: Measured on a noisy, photo-like 1024x1024: level 1 takes 76 ms for 1.33 MB, 3 takes 117 ms for 1.26 MB, and
#: Pillow's 6 takes 458 ms for 1.15 MB.
PNG_COMPRESS_LEVEL = 1
JPEG_QUALITY = 95


class Embedded:
    """The three texts of one image; ``None`` in their place leaves the file without any."""

    def __init__(self, metadata_json: str, parameters: str, xmp: bytes, xmp_with_json: bytes) -> None:
        self.metadata_json = metadata_json
        self.parameters = parameters
        self.xmp = xmp
        self.xmp_with_json = xmp_with_json


def encode(pixels: Pixels, image_format: ImageFormat, embedded: Embedded | None) -> bytes:
    """A PNG or a JPEG."""
    image = Image.frombytes("RGB", (pixels.width, pixels.height), pixels.rgb)
    out = io.BytesIO()
    if image_format is ImageFormat.PNG:
        image.save(out, "PNG", compress_level=PNG_COMPRESS_LEVEL, pnginfo=_png_texts(embedded))
    else:
        extra = {}
        if embedded is not None:
            comment = exif.block(embedded.parameters, pixels.width, pixels.height)
            extra = {"exif": comment, "xmp": embedded.xmp_with_json}
        image.save(out, "JPEG", quality=JPEG_QUALITY, subsampling=0, **extra)
    return out.getvalue()


def _png_texts(embedded: Embedded | None) -> PngInfo | None:
    if embedded is None:
        return None
    info = PngInfo()
    info.add_itxt("parameters", embedded.parameters)
    info.add_itxt("dreamforge", embedded.metadata_json)
    info.add_itxt("XML:com.adobe.xmp", embedded.xmp.decode())
    return info

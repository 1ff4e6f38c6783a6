"""What an image says about itself survives hostile prompts, and is absent when nobody wants it."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from dreamforge import receipt
from dreamforge.spec import ImageFormat, ModelRef, RenderSpec
from dreamforge_runner import images, metadata
from dreamforge_runner.backends.base import Pixels
from tests.unit.runner.events_kit import make_spec

PIXELS = Pixels(16, 8, bytes(range(128)) * 3)
MODEL = ModelRef(id="m", name="Epic, Real", kind="sdxl-checkpoint", version="1", sha256="ab" * 32)
PROMPTS = [
    "a castle",
    "line one\nline two\r\n\ttabbed",
    'quotes " \\ \' & < > ]]> <?xpacket end="r"?>',
    "castle\nNegative prompt: none\nSteps: 1, Sampler: fake, CFG scale: 1, Seed: 1, Size: 1x1",
    "\u2028\u2029\x85\x7f\ufffe\uffff snow\u2603 \U0001f3f0\U0001f409",
    "العربية 日本語 ไทย",
    "&" * 4000,
    '"' * 4000,
    "\U0001f409" * 4000,
]


def spec_of(prompt: str, **params: object) -> RenderSpec:
    return make_spec(params={"prompt": prompt, "negative_prompt": prompt, "width": 512, **params}, model=MODEL)


def file_of(spec: RenderSpec, backend: str = "sdxl", source: str = "trainedAlgorithmicMedia") -> bytes:
    text = metadata.as_json(receipt.describe(spec, 3, 42, backend, source))
    embedded = images.Embedded(
        metadata_json=text,
        parameters=metadata.as_parameters(spec, 3, 42, backend),
        xmp=metadata.as_xmp(source),
        xmp_with_json=metadata.as_xmp(source, text),
    )
    return images.encode(PIXELS, spec.params.format, embedded if spec.params.embed_metadata else None)


def xmp_fields(packet: bytes | str) -> dict[str, str]:
    text = packet.decode() if isinstance(packet, bytes) else packet
    inner = re.search(r"<x:xmpmeta.*</x:xmpmeta>", text, re.DOTALL)
    assert inner is not None
    root = ET.fromstring(inner[0])  # noqa: S314 - our own packet
    return {node.tag.rpartition("}")[2]: node.text or "" for node in root.iter() if node.text}


def test_guidance_that_was_cut_off_is_told_and_silence_is_not():
    cut, whole = spec_of("x", guidance_cutoff=0.4), spec_of("x")
    assert receipt.describe(cut, 0, 1, "sdxl", "x")["guidance_cutoff"] == 0.4
    assert "guidance_cutoff" not in receipt.describe(whole, 0, 1, "sdxl", "x")
    assert "CFG cutoff: 0.4" in metadata.as_parameters(cut, 0, 1, "sdxl")
    assert "CFG cutoff" not in metadata.as_parameters(whole, 0, 1, "sdxl")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_png_gives_back_what_was_asked_for(prompt: str):
    spec = spec_of(prompt)
    image = Image.open(io.BytesIO(file_of(spec)))
    assert isinstance(image.info["parameters"], str)
    told = json.loads(image.info["dreamforge"])
    assert told == receipt.describe(spec, 3, 42, "sdxl", "trainedAlgorithmicMedia")
    assert (told["prompt"], told["negative_prompt"]) == (prompt, prompt)
    assert xmp_fields(image.info["XML:com.adobe.xmp"])["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert image.tobytes() == PIXELS.rgb


@pytest.mark.parametrize("prompt", PROMPTS)
def test_jpeg_gives_back_what_was_asked_for(prompt: str):
    spec = spec_of(prompt, format=ImageFormat.JPG)
    image = Image.open(io.BytesIO(file_of(spec)))
    assert image.format == "JPEG"
    comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\0"
    assert comment[8:].decode("utf-16-be") == metadata.as_parameters(spec, 3, 42, "sdxl")
    fields = xmp_fields(image.info["xmp"])
    assert json.loads(fields["metadata"])["prompt"] == prompt
    assert fields["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_the_parameters_text_is_what_a1111_tools_read():
    spec = make_spec(
        params={"prompt": "a castle", "negative_prompt": "fog", "scheduler": "dpmpp_2m_karras"}, model=MODEL
    )
    lines = metadata.as_parameters(spec, 0, 7, "sdxl").split("\n")
    assert lines[:2] == ["a castle", "Negative prompt: fog"]
    assert lines[2].startswith("Steps: 30, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 7, Size: 1024x1024, ")
    assert 'Model hash: ababababab, Model: "Epic, Real"' in lines[2]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_no_prompt_can_add_a_line(prompt: str):
    lines = metadata.as_parameters(spec_of(prompt), 0, 7, "sdxl").splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("Negative prompt: ")
    assert lines[2].startswith("Steps: 30, Sampler: Euler, ")


def test_the_sketch_says_that_it_is_no_diffusion_model():
    told = receipt.describe(make_spec(), 0, 1, "sketch", "algorithmicMedia")
    assert "not a diffusion model" in str(told["note"])
    assert "not a diffusion model" in metadata.as_parameters(make_spec(), 0, 1, "sketch")


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_nothing_is_embedded_when_nobody_wants_it(image_format: ImageFormat):
    data = file_of(spec_of("a secret castle", format=image_format, embed_metadata=False))
    for trace in (
        b"castle",
        b"c\0a\0s",
        "castle".encode("utf-16-be"),
        b"dreamforge",
        b"xmp",
        b"xap",
        b"Exif",
        b"iTXt",
    ):
        assert trace not in data


@pytest.mark.parametrize("image_format", list(ImageFormat))
@pytest.mark.parametrize("prompt", PROMPTS)
def test_exiftool_reads_it_without_a_warning(tmp_path: Path, image_format: ImageFormat, prompt: str):
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    spec = spec_of(prompt, format=image_format)
    path = tmp_path / f"image.{image_format.value}"
    path.write_bytes(file_of(spec))
    command = ["exiftool", "-json", "-validate", "-warning", "-a", "-all", str(path)]
    answer = subprocess.run(command, capture_output=True, check=True, timeout=60)
    (read,) = json.loads(answer.stdout)
    assert answer.stderr == b""
    assert "Warning" not in read
    assert read["DigitalSourceType"].endswith("/trainedAlgorithmicMedia")
    text = read["Parameters"] if image_format is ImageFormat.PNG else read["UserComment"]
    assert "Sampler: Euler" in text

"""What an image says about itself: one JSON, the text A1111-compatible tools read, and the mark "machine-made"."""

import json
import re
from typing import Any
from xml.sax.saxutils import escape

import dreamforge
from dreamforge.spec import RenderSpec, Scheduler

NAMESPACE = "https://dreamforge.dev/ns/1.0/"
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"

_SAMPLERS = {
    Scheduler.EULER: "Euler",
    Scheduler.EULER_A: "Euler a",
    Scheduler.DPMPP_2M: "DPM++ 2M",
    Scheduler.DPMPP_2M_KARRAS: "DPM++ 2M Karras",
    Scheduler.DDIM: "DDIM",
    Scheduler.UNIPC: "UniPC",
}
# C0 and C1 controls, the Unicode line separators, and what XML 1.0 can't hold.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]+")


def as_json(metadata: dict[str, object]) -> str:
    """One line of JSON that XML and terminals can hold: controls are written as escapes."""
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
    return _CONTROLS.sub(lambda found: "".join(f"\\u{ord(char):04x}" for char in found[0]), text)


def as_parameters(spec: RenderSpec, item_index: int, seed: int, backend: str) -> str:
    """The text that galleries show. Prompts take one line each, so that none can pose as the settings line."""
    params = spec.params
    lines = [_one_line(params.prompt)]
    if params.negative_prompt:
        lines.append(f"Negative prompt: {_one_line(params.negative_prompt)}")
    settings: dict[str, Any] = {
        "Steps": params.steps,
        "Sampler": _SAMPLERS[params.scheduler],
        "CFG scale": f"{params.guidance:g}",
        "CFG cutoff": params.guidance_cutoff,
        "Seed": seed,
        "Size": f"{params.width}x{params.height}",
        "Model hash": spec.model.sha256[:10] if spec.model.sha256 else None,
        "Model": _quoted(_one_line(spec.model.name)),
        "Batch pos": item_index if params.count > 1 else None,
        "Backend": f"{backend} (not a diffusion model)" if backend == "sketch" else None,
        "Version": f"Dream Forge {dreamforge.__version__}",
    }
    lines.append(", ".join(f"{name}: {value}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)


def as_xmp(source_type: str, embedded_json: str | None = None) -> bytes:
    """An XMP packet with the IPTC digital source type, and the JSON where the format has no better place."""
    inner = f"<Iptc4xmpExt:DigitalSourceType>{_SOURCE_TYPE}{escape(source_type)}</Iptc4xmpExt:DigitalSourceType>"
    if embedded_json is not None:
        inner += f"<dreamforge:metadata>{escape(embedded_json)}</dreamforge:metadata>"
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
        f' xmlns:dreamforge="{NAMESPACE}">{inner}</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def _one_line(text: str) -> str:
    return " ".join(_CONTROLS.sub(" ", text).split())


def _quoted(value: str) -> str:
    """As A1111 does it: a value that holds a separator is written as a JSON string."""
    return json.dumps(value, ensure_ascii=False) if any(mark in value for mark in ',:"') else value

"""An SDXL of random weights, at real size or narrow: a pipeline on the device, or the files that a runner loads.

Weights are drawn as trained ones lie: normal, each layer by the number of its inputs; norms one, biases zero. A
kernel's time does not depend on values, but a card's power draw does, so zeros would flatter. Nothing is downloaded:
sizes are in ``configs/``, and the tokenizer knows bytes only.
"""

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.tiny_sdxl import TinySdxl
from tests.tiny_sdxl.build import save_single_file, tokenizer

d: Any = diffusers  # it has no types
CONFIGS = Path(__file__).parent / "configs"
_SEED = 20


def pipeline(size: str, where: str, dtype: torch.dtype) -> Any:
    """A pipeline of the sizes in ``configs/<size>.json``, made on the device itself."""
    sizes = json.loads((CONFIGS / f"{size}.json").read_text())
    with torch.device(where):
        parts = {
            "unet": d.UNet2DConditionModel(**sizes["unet"]),
            "vae": d.AutoencoderKL(**sizes["vae"]),
            "text_encoder": CLIPTextModel(_text_config(sizes["text_encoder"])),
            "text_encoder_2": CLIPTextModelWithProjection(_text_config(sizes["text_encoder_2"])),
        }
    generator = torch.Generator(where).manual_seed(_SEED)
    for part in parts.values():
        _fill(part, generator)
        part.to(dtype).eval()
    scheduler = d.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    pipe = d.StableDiffusionXLPipeline(
        **parts,
        scheduler=scheduler,
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def files(size: str, where: str, folder: Path, dtype: torch.dtype | None = None) -> TinySdxl:
    """Checkpoint and configuration below ``folder``, written once: 7 GB at real size in half precision."""
    found = TinySdxl.below(folder / size)
    if found.checkpoint.is_file():
        return found
    dtype = dtype or (torch.float16 if where == "cuda" else torch.float32)
    pipe = pipeline(size, where, dtype)
    found.config.mkdir(parents=True, exist_ok=True)
    for part in ("unet", "vae", "scheduler"):
        getattr(pipe, part).save_config(found.config / part)
    for part in ("text_encoder", "text_encoder_2"):
        getattr(pipe, part).config.save_pretrained(found.config / part)
    for part in ("tokenizer", "tokenizer_2"):
        getattr(pipe, part).save_pretrained(found.config / part)
    pipe.save_config(found.config)
    draft = found.checkpoint.with_suffix(".draft")
    save_single_file(pipe.to("cpu"), draft)
    draft.rename(found.checkpoint)
    return found


def _text_config(sizes: dict[str, Any]) -> Any:
    """The tokenizer's 514 words are the first of the table, whatever its size."""
    return CLIPTextConfig(max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513, **sizes)


def _fill(model: torch.nn.Module, generator: torch.Generator) -> None:
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim < 2:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
            else:
                weight.normal_(0.0, float(weight[0].numel() ** -0.5), generator=generator)

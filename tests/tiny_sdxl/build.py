"""Makes the tiny checkpoint: ``python -m tests.tiny_sdxl.build FOLDER``. Imports torch and diffusers."""

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.tiny_sdxl import TinySdxl, names

d: Any = diffusers  # it has no types
_LOUD = {"conv_out.weight": 1.0, "decoder.conv_out.weight": 1.2}

# The two text encoders must differ in width: that is how the loader tells CLIP-L from OpenCLIP.
_WIDTH_1, _WIDTH_2, _PROJECTION, _TIME = 16, 24, 16, 8
_UNET_CHANNELS, _VAE_CHANNELS = (16, 32), (8, 8, 8, 8)


def build(folder: Path) -> TinySdxl:
    """Make checkpoint and configuration in ``folder``."""
    pipe = _pipeline()
    files = TinySdxl.below(folder)
    shutil.rmtree(files.config, ignore_errors=True)
    pipe.save_pretrained(files.config)
    for weights in files.config.rglob("*.safetensors"):
        weights.unlink()
    save_single_file(pipe, files.checkpoint)
    return files


def _pipeline() -> Any:
    def text_config(width: int, activation: str) -> Any:
        return CLIPTextConfig(
            hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=77, vocab_size=514, projection_dim=_PROJECTION, hidden_act=activation,
            bos_token_id=512, eos_token_id=513, pad_token_id=513,
        )  # fmt: skip

    unet = d.UNet2DConditionModel(
        sample_size=32, block_out_channels=_UNET_CHANNELS, layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), transformer_layers_per_block=(1, 2), use_linear_projection=True,
        cross_attention_dim=_WIDTH_1 + _WIDTH_2, addition_embed_type="text_time",
        addition_time_embed_dim=_TIME, projection_class_embeddings_input_dim=_PROJECTION + 6 * _TIME,
    )  # fmt: skip
    vae = d.AutoencoderKL(
        block_out_channels=_VAE_CHANNELS, layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=256,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.13025,
    )  # fmt: skip
    scheduler = d.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="leading"
    )
    text_encoder = CLIPTextModel(text_config(_WIDTH_1, "quick_gelu"))
    text_encoder_2 = CLIPTextModelWithProjection(text_config(_WIDTH_2, "gelu"))
    for model in (unet, vae, text_encoder, text_encoder_2):
        _fill(model)
    return d.StableDiffusionXLPipeline(
        unet=unet, vae=vae, scheduler=scheduler, add_watermarker=False,
        text_encoder=text_encoder, text_encoder_2=text_encoder_2,
        tokenizer=tokenizer("<|endoftext|>"), tokenizer_2=tokenizer("!"),
    )  # fmt: skip


def _fill(model: torch.nn.Module) -> None:
    """Weights of our own: a library that changes its initial values must not change the golden renders."""
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point():
            continue
        if weight.ndim < 2:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        # Random networks whisper; a louder UNet makes prompt and scheduler visible in the picture.
        gain = _LOUD.get(name, 1.0)
        weight.copy_(noise * gain / weight[0].numel() ** 0.5)


def tokenizer(pad: str) -> Any:
    """CLIP's byte alphabet, once plain and once ending a word, and no merges: one token a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = [*alphabet, *(f"{char}</w>" for char in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=[], pad_token=pad, model_max_length=77)


def save_single_file(pipe: Any, path: Path) -> None:
    """Write all weights of a pipeline as one checkpoint."""
    # transformers dropped this prefix; checkpoints have it.
    clip = {f"text_model.{k.removeprefix('text_model.')}": w for k, w in pipe.text_encoder.state_dict().items()}
    parts = {
        "model.diffusion_model.": names.unet(pipe.unet.state_dict(), pipe.unet.config.layers_per_block),
        "first_stage_model.": names.vae(pipe.vae.state_dict()),
        "conditioner.embedders.0.transformer.": clip.items(),
        "conditioner.embedders.1.model.": names.openclip(pipe.text_encoder_2.state_dict()),
    }
    tensors = {f"{prefix}{name}": w.detach().clone().contiguous() for prefix, ws in parts.items() for name, w in ws}
    save_file(tensors, path, metadata={"format": "pt"})


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    build(target)

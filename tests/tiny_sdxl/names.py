"""Tensor names of diffusers to the names that SDXL's single-file checkpoints use."""

import re
from collections.abc import Iterator
from typing import Any

import torch

Weights = dict[str, Any]
Named = Iterator[tuple[str, Any]]


def _renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


_RESNET_RULES = [
    (r"\bnorm1\b", "in_layers.0"), (r"\bconv1\b", "in_layers.2"), (r"\btime_emb_proj\b", "emb_layers.1"),
    (r"\bnorm2\b", "out_layers.0"), (r"\bconv2\b", "out_layers.3"), (r"\bconv_shortcut\b", "skip_connection"),
]  # fmt: skip
_UNET_RULES: Any = [
    (r"^time_embedding\.linear_1", "time_embed.0"), (r"^time_embedding\.linear_2", "time_embed.2"),
    (r"^add_embedding\.linear_1", "label_emb.0.0"), (r"^add_embedding\.linear_2", "label_emb.0.2"),
    (r"^conv_in", "input_blocks.0.0"), (r"^conv_norm_out", "out.0"), (r"^conv_out", "out.2"),
    (r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}"),
    (r"^mid_block\.attentions\.0", "middle_block.1"),
]  # fmt: skip


def _level_rules(weights: Weights, layers: int) -> Any:
    """A level is its layers and a downsampler on the way down, and one layer more on the way up."""
    slots = layers + 1

    def upsampler(found: re.Match[str]) -> str:
        """It stands behind the last layer: third where that has attention, else second."""
        attentive = any(name.startswith(f"up_blocks.{found[1]}.attentions.") for name in weights)
        return f"output_blocks.{slots * int(found[1]) + layers}.{2 if attentive else 1}"

    def place(side: str, offset: int, slot: int) -> Any:
        return lambda found: f"{side}_blocks.{slots * int(found[1]) + int(found[2]) + offset}.{slot}"

    return [
        (r"^down_blocks\.(\d)\.downsamplers\.0\.conv", lambda m: f"input_blocks.{slots * int(m[1]) + slots}.0.op"),
        (r"^down_blocks\.(\d)\.resnets\.(\d)", place("input", 1, 0)),
        (r"^down_blocks\.(\d)\.attentions\.(\d)", place("input", 1, 1)),
        (r"^up_blocks\.(\d)\.upsamplers\.0", upsampler),
        (r"^up_blocks\.(\d)\.resnets\.(\d)", place("output", 0, 0)),
        (r"^up_blocks\.(\d)\.attentions\.(\d)", place("output", 0, 1)),
    ]


def unet(weights: Weights, layers: int) -> Named:
    plain = _UNET_RULES + _level_rules(weights, layers)
    for name, weight in weights.items():
        yield _renamed(name, plain if ".resnets." not in name else plain + _RESNET_RULES), weight


_VAE_RULES: Any = [
    (r"\bconv_shortcut\b", "nin_shortcut"), (r"\bconv_norm_out\b", "norm_out"),
    (r"\bmid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}"),
    (r"\bmid_block\.attentions\.0", "mid.attn_1"),
    (r"\bdown_blocks\.(\d)\.resnets", r"down.\1.block"),
    (r"\bdown_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample"),
    (r"\bup_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block"),
    (r"\bup_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"attn_1\.group_norm", "attn_1.norm"), (r"attn_1\.to_([qkv])", r"attn_1.\1"),
    (r"attn_1\.to_out\.0", "attn_1.proj_out"),
]  # fmt: skip


def vae(weights: Weights) -> Named:
    for name, weight in weights.items():
        # Checkpoints keep the attention's matrices as 1x1 convolutions.
        matrix = ".attentions." in name and weight.ndim == 2
        yield _renamed(name, _VAE_RULES), weight[:, :, None, None] if matrix else weight


_OPENCLIP_RULES = [
    (r"^text_model\.", ""), (r"^embeddings\.token_embedding", "token_embedding"),
    (r"^embeddings\.position_embedding\.weight", "positional_embedding"),
    (r"^final_layer_norm", "ln_final"), (r"^text_projection\.weight", "text_projection"),
    (r"^encoder\.layers", "transformer.resblocks"), (r"\bself_attn\.q_proj\.", "attn.in_proj_"),
    (r"\bself_attn\b", "attn"), (r"\blayer_norm(\d)", r"ln_\1"), (r"\bfc1\b", "mlp.c_fc"), (r"\bfc2\b", "mlp.c_proj"),
    (r"\bmlp\.mlp\b", "mlp"),
]  # fmt: skip


def openclip(weights: Weights) -> Named:
    for name, weight in weights.items():
        if re.search(r"\.[kv]_proj\.", name):
            continue  # Stacked below q, in one matrix.
        if ".q_proj." in name:
            weight = torch.cat([weights[name.replace("q_proj", f"{part}_proj")] for part in "qkv"])
        elif name == "text_projection.weight":
            weight = weight.T
        yield _renamed(name, _OPENCLIP_RULES), weight

"""Settings that change the inference plan: each overrides one field of the table's plan."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import NoDecode

from dreamforge.settings import DfSettings
from dreamforge_runner.backends.sdxl import plan
from dreamforge_runner.backends.sdxl.plan import Attention, Bucket, Compile, MemoryFormat, Number, Plan, Speed

_SIZE = re.compile(r"(\d+)x(\d+)")


def _buckets(value: object) -> object:
    """``1024x1024,832x1216`` as buckets."""
    if not isinstance(value, str):
        return value
    found = [_SIZE.fullmatch(part.strip()) for part in value.split(",") if part.strip()]
    sizes = [Bucket(int(size[1]), int(size[2])) for size in found if size]
    if len(sizes) != len(found) or any(side % 8 or not 256 <= side <= 2048 for size in sizes for side in size):
        raise ValueError("must be sizes such as 1024x1024,832x1216, each side a multiple of 8 from 256 to 2048")
    return tuple(sizes)


class PlanSettings(DfSettings):
    """How SDXL is rendered where the table of plans (``plan.py``) should not decide alone."""

    sdxl_plan: str | None = Field(
        default=None, description=f"A plan by name ({', '.join(plan.PLANS)}); unset: the one of the GPU's class."
    )
    sdxl_dtype: Number | None = Field(default=None, description="Numbers of UNet and text encoders.")
    sdxl_vae_dtype: Number | None = Field(
        default=None,
        description="Numbers of the VAE; a picture that a two-byte VAE spoils is decoded again in float32.",
    )
    sdxl_memory_format: MemoryFormat | None = Field(default=None, description="Memory layout of UNet and VAE.")
    sdxl_compile: Compile | None = Field(
        default=None,
        description="What is compiled before the first job: `off`, `regional` (the UNet's blocks) or `full`.",
    )
    sdxl_buckets: Annotated[tuple[Bucket, ...] | None, NoDecode, BeforeValidator(_buckets)] = Field(
        default=None, description="Sizes that are compiled for, such as 1024x1024,832x1216; all others run eagerly."
    )
    sdxl_attention: Attention | None = Field(
        default=None, description="Which attention kernel is preferred where it can run; `auto`: torch decides."
    )
    sdxl_micro_batch: int | None = Field(
        default=None,
        ge=1,
        le=16,
        description="Items of a job denoised together: more images a second on a large GPU, later first image.",
    )
    sdxl_speed: Speed | None = Field(
        default=None, description="A preset that CHANGES THE PICTURE for speed: `guidance-cutoff@1`; off unless set."
    )
    sdxl_compile_cache_path: Path | None = Field(
        default=Path(".dreamforge/compiled"),
        description="Folder of compiled kernels, shared by the runners of a machine; only files of this user count.",
    )

    @field_validator("sdxl_plan")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in plan.PLANS:
            raise ValueError(f"must be one of {', '.join(plan.PLANS)}")
        return name

    @field_validator("sdxl_compile", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        """It was a switch once: 1 and 0 keep their meaning."""
        switch = {"1": Compile.REGIONAL, "true": Compile.REGIONAL, "0": Compile.OFF, "false": Compile.OFF}
        return switch.get(str(value).lower(), value)

    def choose(self, device: plan.Device) -> Plan:
        """The plan for ``device`` with these settings on top."""
        overrides: dict[str, Any] = {
            name.removeprefix("sdxl_"): value
            for name, value in self
            if value is not None and name not in ("sdxl_plan", "sdxl_compile_cache_path")
        }
        return plan.choose(device, overrides, self.sdxl_plan)

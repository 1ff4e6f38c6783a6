"""The inference plan: every choice that trades speed, memory or the last bits of a picture, as data.

A plan is chosen from the GPU's class by the versioned table below, changed field by field by settings, and told in
each image's metadata (``hopper@1 micro_batch=4``). Nothing here needs torch. The values of the table come from
published figures (``docs/performance.md`` names them); none was measured by this project on a GPU yet. A changed
value is a new version, so that the name in an image keeps meaning what it meant.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple


class Number(StrEnum):
    """How one number is kept; the value is torch's name."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"

    @property
    def size(self) -> int:
        """In bytes."""
        return 4 if self is Number.FLOAT32 else 2


class MemoryFormat(StrEnum):
    """Layout of pictures and convolutions; the value is torch's name."""

    CONTIGUOUS = "contiguous_format"
    CHANNELS_LAST = "channels_last"


class Compile(StrEnum):
    """What torch compiles: nothing; the UNet's repeated blocks; the whole UNet and the VAE's decoder."""

    OFF = "off"
    REGIONAL = "regional"
    FULL = "full"


class Attention(StrEnum):
    """Which attention kernel is preferred, where it can do what is asked; ``auto`` leaves it to torch."""

    AUTO = "auto"
    FLASH = "flash"
    CUDNN = "cudnn"
    EFFICIENT = "efficient"
    MATH = "math"


class Speed(StrEnum):
    """Presets that change the picture for speed. Off unless an operator asks."""

    NONE = "none"
    #: No guidance after the first 40 % of the steps: 1.43 times fewer operations, another picture.
    GUIDANCE_CUTOFF = "guidance-cutoff@1"

    @property
    def guided_share(self) -> float:
        """Share of the steps that run with guidance."""
        return 0.4 if self is Speed.GUIDANCE_CUTOFF else 1.0


class Bucket(NamedTuple):
    """A size, in pixels, that static kernels are compiled for; other sizes run eagerly."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Device(NamedTuple):
    """What a plan is chosen by; compute capability ``(0, 0)`` is the CPU."""

    name: str
    capability: tuple[int, int] = (0, 0)

    @property
    def cuda(self) -> bool:
        return self.capability > (0, 0)


CPU = Device("cpu")
#: The sizes of the presets (``dreamforge.presets``): square, portrait, landscape.
SDXL_BUCKETS = (Bucket(1024, 1024), Bucket(832, 1216), Bucket(1216, 832))


@dataclass(frozen=True)
class Plan:
    """How one runner renders. Equal plans on equal devices and libraries give equal pictures."""

    name: str
    version: int
    #: Of UNet and text encoders.
    dtype: Number = Number.BFLOAT16
    #: In two-byte types, a picture that is not finite is decoded once more in ``float32``, and its metadata say so.
    vae_dtype: Number = Number.BFLOAT16
    memory_format: MemoryFormat = MemoryFormat.CHANNELS_LAST
    compile: Compile = Compile.OFF
    buckets: tuple[Bucket, ...] = SDXL_BUCKETS
    attention: Attention = Attention.AUTO
    #: Items denoised together; one at a time unless an operator asks (FR-045).
    micro_batch: int = 1
    speed: Speed = Speed.NONE

    @property
    def label(self) -> str:
        """``name@version``, and each field that differs from the table's plan of that name."""
        origin = PLANS[self.name]
        changed = [f"{f.name}={_text(getattr(self, f.name))}" for f in fields(self) if _differs(self, origin, f.name)]
        return " ".join([f"{self.name}@{self.version}", *changed])

    @property
    def differs(self) -> Mapping[str, Any]:
        """The fields that an operator's settings changed."""
        origin = PLANS[self.name]
        return {f.name: getattr(self, f.name) for f in fields(self) if _differs(self, origin, f.name)}

    def compiles(self, width: int, height: int) -> bool:
        """Whether pictures of this size run compiled."""
        return self.compile is not Compile.OFF and Bucket(width, height) in self.buckets

    def facts(self) -> dict[str, object]:
        """All fields as plain data: what a compiled kernel depends on."""
        return {name: _text(value) for name, value in asdict(self).items()}


_TABLE = (
    # 9.0 and later: H100, H200, B200.
    Plan("hopper", 1, compile=Compile.REGIONAL),
    # 8.x: A100, A10, RTX 30 and 40, L4, L40.
    Plan("ampere", 1, compile=Compile.REGIONAL),
    # Before 8.0 bfloat16 is emulated, and SDXL's VAE overflows in float16.
    Plan("turing", 1, dtype=Number.FLOAT16, vae_dtype=Number.FLOAT32),
    Plan("cpu", 1, dtype=Number.FLOAT32, vae_dtype=Number.FLOAT32, memory_format=MemoryFormat.CONTIGUOUS, buckets=()),
)
PLANS: Mapping[str, Plan] = MappingProxyType({plan.name: plan for plan in _TABLE})


def gpu_class(device: Device) -> str:
    """The name of the plan that the table has for a device."""
    if not device.cuda:
        return "cpu"
    if device.capability >= (9, 0):
        return "hopper"
    return "ampere" if device.capability >= (8, 0) else "turing"


def choose(device: Device, overrides: Mapping[str, Any] = MappingProxyType({}), name: str | None = None) -> Plan:
    """The table's plan for ``device`` (or the one called ``name``), with ``overrides`` of single fields."""
    return replace(PLANS[name or gpu_class(device)], **overrides)


def _differs(plan: Plan, origin: Plan, field: str) -> bool:
    return bool(getattr(plan, field) != getattr(origin, field))


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)

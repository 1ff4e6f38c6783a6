"""The part of CivitAI's answers that is read, checked: nothing in them is believed to be in form. Pure."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dreamforge_cli.models.sources.names import SAFETENSORS, words

#: Base models of SDXL's architecture; the header of the file is looked at as well before anything is installed.
_SDXL = ("sdxl", "pony", "illustrious", "noobai")
_NOT_SDXL = ("pony v7",)
_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_CHECKPOINTS = ("Model", "Pruned Model")


def _aware(value: Any) -> Any:
    """Their times are UTC, with or without the letter that says so."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _sha256(value: Any) -> Any:
    """The one hash that counts, of all that are told; what is not in form counts as not told."""
    told = value.get("SHA256") if isinstance(value, dict) else None
    return told.lower() if isinstance(told, str) and _HEX.fullmatch(told) else None


class _Told(BaseModel):
    model_config = ConfigDict(populate_by_name=True, frozen=True)


class Metadata(_Told):
    """What sort of file it is."""

    format: str | None = None
    size: str | None = None
    fp: str | None = None


class File(_Told):
    """A file of a version. ``sha256`` is ``None`` when none in form was told."""

    id: int = Field(gt=0)
    name: str = Field(min_length=1, max_length=512)
    type: str = ""
    size_kib: float | None = Field(None, alias="sizeKB", ge=0, le=2**31)
    metadata: Metadata = Metadata()
    sha256: Annotated[str | None, BeforeValidator(_sha256)] = Field(None, alias="hashes")
    pickle_scan: str | None = Field(None, alias="pickleScanResult")
    virus_scan: str | None = Field(None, alias="virusScanResult")
    primary: bool | None = None

    @property
    def format(self) -> str:
        """SafeTensor, PickleTensor, ..."""
        return self.metadata.format or "an unknown format"

    @property
    def is_checkpoint(self) -> bool:
        """Whether it is whole weights in the one format that is fetched, by its kind, format and name."""
        named = self.name.lower().endswith(SAFETENSORS)
        return self.type in _CHECKPOINTS and self.format == "SafeTensor" and named

    @property
    def size_bytes(self) -> int | None:
        """Exact, or unknown: some sizes were rounded to whole numbers of something else when they were stored."""
        size = (self.size_kib or 0) * 1024
        return round(size) if size and abs(size - round(size)) < 1e-3 else None

    @property
    def shown(self) -> str:
        """For a list to choose from."""
        facts = [self.metadata.size, self.metadata.fp, f"{(self.size_kib or 0) / 2**20:.1f} GiB"]
        return f"#{self.id} ({words(self.name, 80)}, {' '.join(words(fact, 20) for fact in facts if fact)})"


class Version(_Told):
    """A version of a model, in the model's answer or alone."""

    id: int = Field(gt=0)
    name: str = ""
    model_id: int | None = Field(None, alias="modelId")
    base_model: str | None = Field(None, alias="baseModel")
    usage_control: str | None = Field(None, alias="usageControl")
    early_access_ends: Annotated[datetime | None, BeforeValidator(_aware)] = Field(None, alias="earlyAccessEndsAt")
    files: tuple[File, ...] = ()

    @property
    def is_sdxl(self) -> bool:
        """Whether it is made on SDXL or on a model of the same architecture."""
        base = (self.base_model or "").lower()
        return base.startswith(_SDXL) and not base.startswith(_NOT_SDXL)


class Model(_Told):
    """A model with its public versions, newest first."""

    id: int = Field(gt=0)
    name: str = Field(min_length=1, max_length=512)
    type: str = ""
    mode: str | None = None
    versions: tuple[Version, ...] = Field((), alias="modelVersions")
    commercial: Any = Field(None, alias="allowCommercialUse")
    no_credit: bool | None = Field(None, alias="allowNoCredit")
    derivatives: bool | None = Field(None, alias="allowDerivatives")

    @property
    def shown(self) -> str:
        """For messages."""
        return f"{words(self.name, 60)} (civitai:{self.id})"

    @property
    def license(self) -> str | None:
        """What its creator allows, in one line; CivitAI names no licence."""
        if self.commercial is None:
            return None
        uses = self.commercial if isinstance(self.commercial, list) else [self.commercial]
        told = [f"commercial use: {words(', '.join(map(str, uses)) or 'None', 80)}"]
        if self.no_credit is not None:
            told.append("credit not required" if self.no_credit else "credit required")
        if self.derivatives is not None:
            told.append("derivatives allowed" if self.derivatives else "no derivatives")
        return "; ".join(told)


class Found(_Told):
    """A model in the search's answer."""

    id: int = Field(gt=0)
    name: str = ""


class Search(_Told):
    """The answer of the search."""

    items: tuple[Found, ...] = ()

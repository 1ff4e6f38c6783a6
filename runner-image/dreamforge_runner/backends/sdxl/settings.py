"""Settings of the SDXL backend."""

from pathlib import Path

from pydantic import Field

from dreamforge.settings import DfSettings


class SdxlSettings(DfSettings):
    """Where the backend finds and keeps files beside the checkpoint, and what it trades for speed."""

    sdxl_config_path: Path | None = Field(
        default=None,
        description="Folder with SDXL's model_index.json and tokenizers; unset means beside the checkpoint.",
    )
    models_root: Path | None = Field(default=None, description="Folder that holds model files.")
    hash_cache_path: Path | None = Field(
        default=Path(".dreamforge/hashes"),
        description="Folder that remembers the sha256 of model files, so that each is read once.",
    )
    sdxl_compile: bool = Field(
        default=False,
        description="1 compiles the UNet's blocks on CUDA: faster images, but the first one waits for the compiler.",
    )

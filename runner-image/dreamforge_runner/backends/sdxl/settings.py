"""Settings of the SDXL backend."""

from pathlib import Path

from pydantic import Field

from dreamforge.settings import DfSettings


class SdxlSettings(DfSettings):
    """Where the backend finds and keeps files beside the checkpoint."""

    sdxl_config_path: Path | None = Field(
        default=None,
        description="Folder with SDXL's model_index.json and tokenizers; unset means beside the checkpoint.",
    )
    models_root: Path | None = Field(default=None, description="Folder that holds model files.")
    hash_cache_path: Path | None = Field(
        default=Path(".dreamforge/hashes"),
        description="Folder that remembers the sha256 of model files, so that each is read once.",
    )

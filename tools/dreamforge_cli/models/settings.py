"""What the `model` commands read from the environment and `.env`."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from dreamforge.settings import DfSettings

#: The small files that a single-file checkpoint lacks, at one commit of the repository that SDXL comes from.
SDXL_CONFIG = "hf:stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b"
_HOST = r"^[A-Za-z0-9.-]+:\d{1,5}$|^\[[0-9A-Fa-f:.]+\]:\d{1,5}$"
_PROXY = r"^https?://([^\s/?#@]+@)?([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}/?$"
_ENDPOINT = r"^https?://[^\s?#@]+$"


class ModelSettings(DfSettings):
    """Where models lie, where they come from, and what may be reached for them."""

    models_root: Path | None = Field(default=None, description="Folder that holds model files.")
    database_url: str | None = Field(
        default=None,
        pattern=r"^postgres(ql)?(\+psycopg)?://",
        description="PostgreSQL that holds the registry of models; unset: the one of `dreamforge up`.",
    )
    sdxl_config_ref: str = Field(
        default=SDXL_CONFIG,
        description="Reference whose configuration and tokenizers are installed with a checkpoint that has none.",
    )
    model_allowed_hosts: list[Annotated[str, Field(pattern=_HOST)]] = Field(
        default_factory=list,
        description='JSON list of "host:port" that downloads may reach over plain http and at private addresses: '
        "mirrors inside a company, and tests.",
    )
    model_convert: bool = Field(
        default=False,
        description="1: each checkpoint is converted right after it was installed, so that runners start sooner; "
        "needs SDXL's libraries.",
    )
    model_keep_original: bool = Field(
        default=True, description="0: a checkpoint is removed once its converted files are verified."
    )
    model_proxy_url: str | None = Field(
        default=None,
        pattern=_PROXY,
        description="HTTP proxy for downloads, as http://user:password@host:port; it then looks up names, see "
        "docs/models.md. HTTPS_PROXY is not read.",
    )
    hf_endpoint: str = Field(
        default="https://huggingface.co",
        pattern=_ENDPOINT,
        validation_alias="HF_ENDPOINT",
        description="Where `hf:` references lead: Hugging Face, or a mirror of it.",
    )
    civitai_endpoint: str = Field(
        default="https://civitai.com", pattern=_ENDPOINT, description="Where `civitai:` references lead."
    )
    hf_token: SecretStr | None = Field(
        default=None, validation_alias="HF_TOKEN", description="Token of Hugging Face, for gated repositories."
    )
    civitai_token: SecretStr | None = Field(
        default=None, validation_alias="CIVITAI_TOKEN", description="Token of CivitAI, for files that need a login."
    )

    @property
    def tokens(self) -> dict[str, SecretStr]:
        """By the name users know."""
        given = {"HF_TOKEN": self.hf_token, "CIVITAI_TOKEN": self.civitai_token}
        return {name: token for name, token in given.items() if token is not None}

    @property
    def endpoints(self) -> dict[str, str]:
        """Base URLs by scheme."""
        return {"hf": self.hf_endpoint.rstrip("/"), "civitai": self.civitai_endpoint.rstrip("/")}

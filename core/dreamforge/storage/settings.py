"""Settings of the object store, shared by every process that reads or writes objects."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from dreamforge.settings import DfSettings
from dreamforge.storage.checks import LONGEST_TTL_SECONDS

_URL = r"^https?://[^\s/?#@]+/?$"


class StorageSettings(DfSettings):
    """Which store holds the image bytes and how to reach it."""

    store: Literal["filesystem", "s3"] = Field(
        default="filesystem", description="Where image bytes live: a folder, or an S3-compatible service."
    )
    store_root: Path = Field(
        default=Path(".dreamforge/objects"), description="Folder of the filesystem store; made when missing."
    )
    s3_endpoint: str | None = Field(
        default=None, pattern=_URL, description="URL of the S3 service as this process reaches it; unset means AWS."
    )
    s3_public_endpoint: str | None = Field(
        default=None,
        pattern=_URL,
        description="URL that clients reach the S3 service by: the host in presigned links. Default: DF_S3_ENDPOINT.",
    )
    s3_region: str = Field(default="us-east-1", min_length=1, description="Region that S3 requests are signed for.")
    s3_bucket: str = Field(
        default="dreamforge",
        pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
        description="Private bucket of this installation; made at first use when missing.",
    )
    s3_access_key_id: SecretStr | None = Field(
        default=None, min_length=1, description="S3 access key; unset means the AWS default chain (role, profile)."
    )
    s3_secret_access_key: SecretStr | None = Field(
        default=None, min_length=1, description="Secret of DF_S3_ACCESS_KEY_ID."
    )
    presign_ttl_seconds: int = Field(
        default=900, ge=1, le=LONGEST_TTL_SECONDS, description="How long a link to an image works, in seconds."
    )
    signing_key: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Secret that signs links of the filesystem store: 16 characters or more, the same in every API.",
    )

    @model_validator(mode="after")
    def _keys_come_in_pairs(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("DF_S3_ACCESS_KEY_ID and DF_S3_SECRET_ACCESS_KEY: set both or neither")
        return self

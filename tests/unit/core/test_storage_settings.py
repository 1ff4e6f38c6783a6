"""Storage settings: what is refused, in which words, and which store comes out."""

import os
from pathlib import Path

import pytest

from dreamforge.errors import ConfigurationError
from dreamforge.settings import load
from dreamforge.storage.factory import open_storage
from dreamforge.storage.filesystem import FilesystemStore
from dreamforge.storage.s3 import S3Store
from dreamforge.storage.settings import StorageSettings


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in os.environ:
        if variable.upper().startswith(("DF_", "AWS_")):
            monkeypatch.delenv(variable)


def test_defaults() -> None:
    settings = load(StorageSettings)
    assert (settings.store, settings.store_root) == ("filesystem", Path(".dreamforge/objects"))
    assert (settings.s3_region, settings.s3_bucket, settings.presign_ttl_seconds) == ("us-east-1", "dreamforge", 900)


def test_every_field_is_documented() -> None:
    assert [name for name, field in StorageSettings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("DF_STORE", "minio", "DF_STORE: must be one of filesystem, s3 (got 'minio')"),
        ("DF_PRESIGN_TTL_SECONDS", "0", "DF_PRESIGN_TTL_SECONDS: must be greater than or equal to 1 (got '0')"),
        (
            "DF_PRESIGN_TTL_SECONDS",
            "604801",
            "DF_PRESIGN_TTL_SECONDS: must be less than or equal to 604800 (got '604801')",
        ),
        ("DF_SIGNING_KEY", "hunter2", "DF_SIGNING_KEY: must have at least 16 characters"),
        (
            "DF_S3_ACCESS_KEY_ID",
            "someone",
            "DF_S3_ACCESS_KEY_ID and DF_S3_SECRET_ACCESS_KEY: set both or neither",
        ),
    ],
)
def test_a_wrong_value_is_one_line(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load(StorageSettings)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "s3://x", "http://user:hunter2@s3", "http://s3/path", "http://"]
)
def test_an_endpoint_is_a_bare_origin(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("DF_S3_ENDPOINT", endpoint)
    with pytest.raises(ConfigurationError, match=r"^DF_S3_ENDPOINT: ") as caught:
        load(StorageSettings)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("bucket", ["a", "Upper", "a/b", "a_b", "-ab"])
def test_a_bucket_has_a_name_that_every_service_takes(monkeypatch: pytest.MonkeyPatch, bucket: str) -> None:
    monkeypatch.setenv("DF_S3_BUCKET", bucket)
    with pytest.raises(ConfigurationError, match=r"^DF_S3_BUCKET: "):
        load(StorageSettings)


def test_secrets_are_not_in_the_settings_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DF_SIGNING_KEY", "DF_S3_ACCESS_KEY_ID", "DF_S3_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "hunter2-hunter2-hunter2")
    assert "hunter2" not in repr(load(StorageSettings))


def test_the_filesystem_store_needs_a_key_only_where_it_signs(tmp_path: Path) -> None:
    settings = load(StorageSettings, store_root=tmp_path / "objects")
    assert isinstance(open_storage(settings), FilesystemStore)
    with pytest.raises(ConfigurationError, match=r"^DF_SIGNING_KEY: is required"):
        open_storage(settings, signs=True)
    assert not (tmp_path / "objects").exists()
    signing = load(StorageSettings, signing_key="a signing key of the tests")
    url = open_storage(signing, signs=True).sign_get(
        "a/b.png", ttl_seconds=60, filename="b.png", content_type="image/png"
    )
    assert url.url.startswith("/v1/objects/a/b.png?")


def test_the_s3_store_opens_without_a_call_and_signs_for_the_public_host() -> None:
    settings = load(
        StorageSettings,
        store="s3",
        s3_endpoint="http://s3.internal:7070",
        s3_public_endpoint="https://images.example.org",
        s3_access_key_id="someone",
        s3_secret_access_key="a secret of someone",
    )
    store = open_storage(settings, signs=True)
    assert isinstance(store, S3Store)
    url = store.sign_get("a/b.png", ttl_seconds=60, filename="b.png", content_type="image/png").url
    assert url.startswith("https://images.example.org/dreamforge/a/b.png?")
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert "a secret" not in url
    store.close()

"""A wrong setting is one readable line that names the variable and never repeats a secret."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import AliasChoices, Field, SecretStr

from dreamforge.errors import ConfigurationError
from dreamforge.settings import DfSettings, load, variable_of


class Sample(DfSettings):
    store: Literal["filesystem", "s3"] = "filesystem"
    ttl_seconds: int = Field(default=900, ge=1, le=604_800)
    signing_key: SecretStr | None = Field(default=None, min_length=16)
    database_url: str = Field(default="postgresql://", pattern="^postgresql://")
    tags: dict[str, str] = Field(default_factory=dict)
    hf_token: SecretStr | None = Field(default=None, validation_alias="HF_TOKEN", min_length=4)
    backend: Literal["auto", "sketch"] = Field(
        default="auto", validation_alias=AliasChoices("DF_RUNNER_BACKEND", "DF_BACKEND")
    )


class Needy(DfSettings):
    needed: str


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("DF_STORE", "DF_TTL_SECONDS", "DF_SIGNING_KEY", "DF_DATABASE_URL", "DF_TAGS", "HF_TOKEN"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("DF_STORE", "minio", "DF_STORE: must be one of filesystem, s3 (got 'minio')"),
        ("DF_TTL_SECONDS", "soon", "DF_TTL_SECONDS: must be a whole number (got 'soon')"),
        ("DF_TTL_SECONDS", "0", "DF_TTL_SECONDS: must be greater than or equal to 1 (got '0')"),
        ("DF_SIGNING_KEY", "hunter2", "DF_SIGNING_KEY: must have at least 16 characters"),
        ("DF_TAGS", "hunter2", "DF_TAGS: must be JSON"),
        ("HF_TOKEN", "abc", "HF_TOKEN: must have at least 4 characters"),
        ("DF_RUNNER_BACKEND", "x\ny", "DF_RUNNER_BACKEND: must be one of auto, sketch (got 'x\\ny')"),
    ],
)
def test_one_line_names_the_variable_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, line: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as caught:
        load(Sample)
    assert str(caught.value) == line


def test_a_url_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_DATABASE_URL", "mysql://root:hunter2@db/x")
    with pytest.raises(ConfigurationError, match=r"^DF_DATABASE_URL: ") as caught:
        load(Sample)
    assert "hunter2" not in str(caught.value)


def test_a_missing_value_is_said_plainly() -> None:
    with pytest.raises(ConfigurationError, match=r"^DF_NEEDED: is required and not set$"):
        load(Needy)


def test_several_wrong_values_share_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_STORE", "minio")
    monkeypatch.setenv("DF_TTL_SECONDS", "0")
    with pytest.raises(ConfigurationError) as caught:
        load(Sample)
    assert "DF_STORE" in str(caught.value)
    assert "DF_TTL_SECONDS" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dotenv_is_read_and_the_environment_and_overrides_win(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("DF_STORE=s3\nDF_TTL_SECONDS=5\nUNRELATED=1\n")
    assert load(Sample).store == "s3"
    monkeypatch.setenv("DF_TTL_SECONDS", "6")
    assert load(Sample).ttl_seconds == 6
    assert load(Sample, ttl_seconds=7).ttl_seconds == 7


def test_an_empty_value_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_STORE", "")
    assert load(Sample).store == "filesystem"


def test_a_dotenv_that_is_not_text_is_named() -> None:
    Path(".env").write_bytes(b"DF_STORE=\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"^\.env: can't be read"):
        load(Sample)


def test_variable_names() -> None:
    assert variable_of(Sample, "ttl_seconds") == "DF_TTL_SECONDS"
    assert variable_of(Sample, "hf_token") == "HF_TOKEN"
    assert variable_of(Sample, "backend") == "DF_RUNNER_BACKEND"

"""The API's settings: a wrong one is named, a secret is never told, the seeds' flag means sketch."""

from pathlib import Path

import pytest

from dreamforge.errors import ConfigurationError
from dreamforge.models import BackendMode
from dreamforge.settings import load
from dreamforge_api.settings import ApiSettings


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DF_RUNNER_BACKEND", "DF_FAKE_RUNNER", "DF_API_PUBLIC_URL", "DF_MAX_QUEUED", "DF_REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DF_DATABASE_URL", "postgresql://u@127.0.0.1/x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DF_API_PORT", "http"),
        ("DF_API_PORT", "70000"),
        ("DF_API_PUBLIC_URL", "forge.example"),
        ("DF_DATABASE_URL", "mysql://user:hunter2@x/y"),
        ("DF_REDIS_URL", "http://:hunter2@x"),
        ("DF_MAX_QUEUED", "0"),
        ("DF_RUNNER_BACKEND", "fast"),
        ("DF_EXECUTOR", "docker"),
        ("DF_LOG_LEVEL", "LOUD"),
        ("DF_SSE_MAX_STREAMS", "0"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as wrong:
        load(ApiSettings)
    text = str(wrong.value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert "hunter2" not in text


def test_the_database_has_no_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DF_DATABASE_URL")
    with pytest.raises(ConfigurationError, match="DF_DATABASE_URL"):
        load(ApiSettings)


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DF_DATABASE_URL", "postgresql://u:hunter2@127.0.0.1/x")
    assert "hunter2" not in repr(load(ApiSettings))


def test_the_fake_runner_of_the_seeds_means_sketch(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(ApiSettings).backend is BackendMode.AUTO
    monkeypatch.setenv("DF_RUNNER_BACKEND", "sdxl")
    assert load(ApiSettings).backend is BackendMode.SDXL
    monkeypatch.setenv("DF_FAKE_RUNNER", "1")
    assert load(ApiSettings).backend is BackendMode.SKETCH


def test_every_setting_says_what_it_is_for() -> None:
    assert all(field.description for field in ApiSettings.model_fields.values())

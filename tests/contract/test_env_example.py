"""``.env.example`` documents every setting of every process, no other, and tells true defaults."""

import re
from pathlib import Path
from types import ModuleType

import pytest

from dreamforge.settings import DfSettings, load
from tests.contract.project import ROOT, load_script

env_example: ModuleType = load_script("env_example")
LINES = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
TOLD = [line.removeprefix("#") for line in LINES if re.match(r"^#[A-Z]\w*=", line)]


def test_the_file_is_what_the_settings_say():
    assert "\n".join(LINES) + "\n" == env_example.text(), "run: make env-example"


def test_every_setting_is_told_once_and_nothing_else():
    names = [line.partition("=")[0] for line in TOLD]
    assert sorted(names) == sorted({variable.name for variable in env_example.variables()})


def test_every_setting_says_what_it_does():
    for variable in env_example.variables():
        assert variable.field.description, f"{variable.owner}: {variable.name}"


def test_a_copy_that_is_never_edited_changes_nothing():
    """Every line is a comment, and no secret has a value."""
    assert [line for line in LINES if line and not line.startswith("#")] == []
    secret = re.compile(r"^(HF_TOKEN|CIVITAI_TOKEN|\w*(SECRET|SIGNING_KEY|ACCESS_KEY)\w*)=")
    assert [line for line in TOLD if secret.match(line) and not line.endswith("=")] == []


def test_the_told_defaults_are_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Uncomment everything that has a value: every class reads what it would have had anyway."""
    for line in TOLD:
        monkeypatch.delenv(line.partition("=")[0], raising=False)
    (tmp_path / ".env").write_text("\n".join(line for line in TOLD if not line.endswith("=")))
    monkeypatch.chdir(tmp_path)
    owners = {variable.name: variable.owner for variable in reversed(list(env_example.variables()))}
    for cls in env_example.settings_classes():
        given = _load(cls)
        for variable in env_example.variables():
            if owners[variable.name] == variable.owner == cls.__name__ and not variable.field.is_required():
                name = next(n for n, field in cls.model_fields.items() if field is variable.field)
                expected = variable.field.get_default(call_default_factory=True, validated_data={})
                assert getattr(given, name) == expected, variable.name


def _load(cls: type[DfSettings]) -> DfSettings:
    required = {name for name, field in cls.model_fields.items() if field.is_required()}
    urls = {name: "postgresql://u@127.0.0.1/x" if "database" in name else "redis://127.0.0.1" for name in required}
    return load(cls, **urls)

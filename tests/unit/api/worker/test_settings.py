"""The worker's settings: what would stop every job on a cluster stops the worker at its start instead."""

from pathlib import Path

import pytest

from dreamforge.errors import ConfigurationError
from dreamforge.settings import load
from dreamforge_api.worker import __main__ as worker
from dreamforge_api.worker.settings import WorkerSettings


@pytest.fixture(autouse=True)
def only_these(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DF_DATABASE_URL", "postgresql://u@127.0.0.1/x")
    monkeypatch.setenv("DF_REDIS_URL", "redis://127.0.0.1")


@pytest.mark.parametrize("queue", ["Team-A", "team_a", "team.a", "-team", "team-", "team a", "a" * 64])
def test_a_queue_that_no_renderjob_may_name_is_told_at_the_start(
    queue: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DF_KUEUE_QUEUE", queue)
    with pytest.raises(ConfigurationError, match=r"^DF_KUEUE_QUEUE: "):
        load(WorkerSettings)
    assert worker.main() == 2
    assert capsys.readouterr().err.startswith("DF_KUEUE_QUEUE: ")


def test_a_queue_is_named_or_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, read in (("team-a", "team-a"), ("", None)):
        monkeypatch.setenv("DF_KUEUE_QUEUE", given)
        assert load(WorkerSettings).kueue_queue == read

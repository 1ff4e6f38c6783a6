"""Every wrong answer of a source, met by the whole command: its exit status, and nothing left that could be a model.

What the fetcher alone says to each is in ``test_fetch_refused``; here a reference goes in at one end, and at the
other the disk and the registry are looked at.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from dreamforge_cli.main import app
from dreamforge_cli.model import download
from dreamforge_cli.models.fetch.limits import Limits
from tests.model_kit import Shops, checkpoint, open_shops, other
from tests.standins.faults import Fault, Place

OK, USAGE, NETWORK, INTEGRITY, NOT_ALLOWED = 0, 2, 3, 4, 5
DATA = checkpoint("row", 300_000)
SIZE = len(DATA)
HUGGINGFACE_TOKEN, CIVITAI_TOKEN = "hf_canary-0123456789", "civitai-canary-0123456789"
_NUMBERS = count(1000)


@dataclass(frozen=True)
class Row:
    """A fault, the exit status that it has, and whether what came so far is kept for another try."""

    name: str
    fault: Fault
    status: int
    place: Place = Place.STORE
    kept: bool = False


FRONT = Place.FRONT
ROWS = [
    Row("401", Fault(status=401), NOT_ALLOWED, FRONT),
    Row("403 early access", Fault(status=403, body=b'{"error":"Early Access"}'), NOT_ALLOWED, FRONT),
    Row("403 of the store", Fault(status=403), NOT_ALLOWED),
    Row("404", Fault(status=404), USAGE, FRONT),
    Row("404 of the store", Fault(status=404), USAGE),
    Row("416", Fault(status=416), NETWORK),
    Row("416 on the way", Fault(status=416, after=2), NETWORK),
    Row("429 for 31 years", Fault(status=429, headers={"Retry-After": "1000000000"}), NETWORK, FRONT),
    Row("429 of the store", Fault(status=429, headers={"Retry-After": "1000000000"}), NETWORK),
    Row("500", Fault(status=500), NETWORK, FRONT),
    Row("500 of the store", Fault(status=500), NETWORK),
    Row("500 on the way", Fault(status=500, after=2), NETWORK, kept=True),
    Row("418", Fault(status=418), NETWORK, FRONT),
    Row("login page", Fault(login_page=True), NOT_ALLOWED),
    Row("page as bytes", Fault(replaced_by=b"<!DOCTYPE html>".ljust(SIZE)), NOT_ALLOWED),
    Row("gzip bomb", Fault(gzip_zeros=10**10), INTEGRITY),
    Row("longer file", Fault(replaced_by=bytes(SIZE + 1)), INTEGRITY),
    Row("shorter file", Fault(replaced_by=bytes(SIZE - 1)), INTEGRITY),
    Row("empty file", Fault(replaced_by=b""), INTEGRITY),
    Row("Content-Length too long", Fault(length_off_by=7, ignores_range=True), INTEGRITY),
    Row("Content-Length too short", Fault(length_off_by=-7, ignores_range=True), INTEGRITY),
    Row("206 of another range", Fault(range_off_by=1), INTEGRITY),
    Row("206 without a range", Fault(status=206, body=bytes(1000)), INTEGRITY),
    Row("one bit", Fault(flipped_at=SIZE // 2), INTEGRITY),
    Row("other bytes of the same size, from the middle on", Fault(after=2, replaced_by=bytes(SIZE)), INTEGRITY),
    Row("stall at 99 %", Fault(stall_at=0.99), NETWORK, kept=True),
    Row("cut", Fault(cut_at=0.5), NETWORK, kept=True),
    Row("redirect loop", Fault(location="{self}"), NETWORK),
    Row("redirect to nowhere", Fault(location=""), NETWORK),
    Row("redirect to garbage", Fault(location="https://[::1/"), NETWORK),
    Row("redirect to http", Fault(location="http://models.example/x"), NOT_ALLOWED),
    Row("redirect to a private address", Fault(location="https://10.0.0.1/x"), NOT_ALLOWED),
    Row("redirect to this machine", Fault(location="https://localhost/x"), NOT_ALLOWED),
    Row("redirect to the metadata", Fault(location="https://169.254.169.254/latest"), NOT_ALLOWED),
    Row("redirect to a mapped address", Fault(location="https://[::ffff:127.0.0.1]/x"), NOT_ALLOWED),
    Row("redirect to a file", Fault(location="file:///etc/passwd"), NOT_ALLOWED),
    Row("redirect with a user", Fault(location="https://me:pass@models.example/"), NOT_ALLOWED),
]  # fmt: skip
#: A file of the model comes all the same: what is wrong is ignored, or passes.
HARMLESS = [
    Row("no Content-Length", Fault(ignores_range=True, no_length=True), OK),
    Row("no ranges", Fault(ignores_range=True), OK),
    Row("500 once", Fault(status=500, times=1), OK),
    Row("429 once", Fault(status=429, headers={"Retry-After": "0"}, times=1), OK, FRONT),
    Row("cut once", Fault(cut_at=0.5, times=1), OK),
    Row("weak ETag", Fault(extra={"ETag": 'W/"x"'}), OK),
    *(
        Row(f"named {name[:20]!r}", Fault(extra={"Content-Disposition": f'attachment; filename="{name}"'}), OK)
        for name in ("../../evil", "/etc/cron.d/evil", "a%00b", "x" * 300, "CON", "..\\evil", "model.json")
    ),
]


@dataclass(frozen=True)
class Stage:
    """Both sources, a models root, and the registry's database."""

    shops: Shops
    root: Path
    engine: Engine

    def put(self, source: str, data: bytes) -> tuple[str, Callable[[Place, Fault], None]]:
        """A new model at a source: its reference, and how to make its file's answers wrong."""
        number = next(_NUMBERS)
        if source == "hf":
            name = f"owner/m{number}"
            self.shops.repository(name, data)
            return f"hf:{name}", lambda place, fault: self.shops.hf.fault(
                place, name, f"m{number}.safetensors", fault
            )
        self.shops.civitai.add_checkpoint(number, number, f"M{number}", data)
        return f"civitai:{number}", lambda place, fault: self.shops.civitai.fault(place, number, number, fault)

    def download(self, ref: str) -> tuple[int, str]:
        """Exit status and everything that was said."""
        done = CliRunner().invoke(app, ["model", "download", ref, "--root", str(self.root)], catch_exceptions=False)
        return done.exit_code, done.stdout + done.stderr

    def files(self) -> list[str]:
        """What lies below the root, without locks and remembered hashes; configuration waits in staging."""
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        kept = (name for name in found if not name.startswith(".hashes/") and not name.endswith(".lock"))
        return sorted(name for name in kept if not (name.startswith(".staging/") and "/config/" in name))

    def rows(self) -> int:
        """Models in the registry."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT count(*) FROM models")).scalar_one())


@pytest.fixture(scope="module")
def shops() -> Iterator[Shops]:
    with open_shops() as opened:
        opened.hf.tokens.add(HUGGINGFACE_TOKEN)
        opened.civitai.tokens.add(CIVITAI_TOKEN)
        yield opened


@pytest.fixture
def stage(
    shops: Shops, tmp_path: Path, database_url: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stage]:
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    tokens = {"HF_TOKEN": HUGGINGFACE_TOKEN, "CIVITAI_TOKEN": CIVITAI_TOKEN}
    for name, value in {**shops.environment, **tokens, "DF_DATABASE_URL": database_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    fast = Limits(
        segment_bytes=50_000, stall_seconds=0.8, tries=2, pause_seconds=0.01, longest_pause_seconds=0.02,
        longest_retry_after_seconds=2,
    )  # fmt: skip
    monkeypatch.setattr(download, "Limits", partial(replace, fast))
    yield Stage(shops, tmp_path / "models", engine)
    shops.hf.faults.clear()
    shops.civitai.faults.clear()


@pytest.mark.parametrize("source", ["hf", "civitai"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_wrong_answer_has_its_status_and_leaves_no_model(stage: Stage, source: str, row: Row):
    before = stage.rows()
    ref, fault = stage.put(source, DATA)
    fault(row.place, replace(row.fault))
    status, said = stage.download(ref)
    assert status == row.status, said
    assert "dreamforge: " in said
    assert HUGGINGFACE_TOKEN not in said
    assert CIVITAI_TOKEN not in said
    left = stage.files()
    assert all(name.startswith(".staging/") and name.endswith((".part", ".part.json")) for name in left), left
    assert bool(left) == row.kept, left
    assert stage.rows() == before


@pytest.mark.parametrize("source", ["hf", "civitai"])
@pytest.mark.parametrize("row", HARMLESS, ids=lambda row: row.name)
def test_what_does_not_matter_changes_nothing(stage: Stage, source: str, row: Row):
    before = stage.rows()
    ref, fault = stage.put(source, DATA)
    fault(row.place, replace(row.fault))
    status, said = stage.download(ref)
    assert status == OK, said
    (path,) = [stage.root / name for name in stage.files() if name.endswith(".safetensors")]
    assert path.read_bytes() == DATA
    assert path.parent.parent == stage.root / "sdxl-checkpoint"
    assert stage.rows() == before + 1


@pytest.mark.parametrize("source", ["hf", "civitai"])
@pytest.mark.parametrize("row", [row for row in ROWS if row.kept], ids=lambda row: row.name)
def test_what_was_kept_is_gone_on_from_once_the_answers_are_right(stage: Stage, source: str, row: Row):
    ref, fault = stage.put(source, DATA)
    fault(row.place, replace(row.fault))
    assert stage.download(ref)[0] == row.status
    fault(row.place, Fault())
    assert stage.download(ref)[0] == OK
    assert not any(name.startswith(".staging/") for name in stage.files())


@pytest.mark.parametrize("source", ["hf", "civitai"])
def test_a_file_that_changed_between_two_commands_starts_over_and_is_not_what_was_vouched_for(
    stage: Stage, source: str
):
    ref, fault = stage.put(source, DATA)
    fault(Place.STORE, Fault(status=500, after=3))
    assert stage.download(ref)[0] == NETWORK
    before = stage.rows()
    fault(Place.STORE, Fault(replaced_by=other(DATA)))
    status, said = stage.download(ref)
    assert (status, stage.files(), stage.rows()) == (INTEGRITY, [], before), said


def test_no_token_ever_reached_the_stores(stage: Stage):
    for source in ("hf", "civitai"):
        ref, _ = stage.put(source, DATA)
        assert stage.download(ref)[0] == OK
    for shop, token in ((stage.shops.hf, HUGGINGFACE_TOKEN), (stage.shops.civitai, CIVITAI_TOKEN)):
        assert shop.site.saw(token)
        for site in (stage.shops.hf.store.site, stage.shops.civitai.store.site):
            assert not site.saw(token)
            assert not any("authorization" in asked.headers for asked in site.requests())

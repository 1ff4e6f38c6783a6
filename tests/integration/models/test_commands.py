"""`dreamforge model` without a server: what lies on the disk afterwards, what is said, and the exit status."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dreamforge import models_root
from dreamforge_cli.main import app
from tests.model_kit import BASE, BASE_COMMIT, CONFIG, Shops, checkpoint, open_shops
from tests.standins.civitai import File, Model, Version
from tests.standins.faults import Fault, Place
from tests.standins.store import Content
from tests.tiny_sdxl import broken

OK, FOUND_WRONG, USAGE, NETWORK, INTEGRITY, NOT_ALLOWED, DISK = 0, 1, 2, 3, 4, 5, 6


@dataclass
class Command:
    """The command line in this process, on a models root of its own."""

    root: Path

    def __call__(self, *arguments: str | Path, status: int = OK) -> str:
        """Run `dreamforge model`; its stdout, or its stderr when it fails."""
        line = ["model", *map(str, arguments), "--root", str(self.root)]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        assert done.exit_code == status, done.stdout + done.stderr
        return done.stdout if status in (OK, FOUND_WRONG) else done.stderr

    def told(self, *arguments: str | Path, status: int = OK) -> dict[str, Any]:
        """The last line of NDJSON."""
        return dict(json.loads(self(*arguments, "--json", status=status).splitlines()[-1]))

    def told_whole(self, *arguments: str | Path, status: int = OK) -> dict[str, Any]:
        """The one JSON document."""
        return dict(json.loads(self(*arguments, "--json", status=status)))

    def files(self) -> set[str]:
        """Everything below the root but the memory of hashes and the locks."""
        found = {path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if not path.is_dir()}
        return {name for name in found if not name.startswith(".hashes/") and not name.endswith(".lock")}

    def models(self) -> list[models_root.Found]:
        return list(models_root.scan(self.root))


@pytest.fixture(scope="module")
def shops() -> Iterator[Shops]:
    with open_shops() as opened:
        yield opened


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shops: Shops) -> Command:
    for name in [name for name in os.environ if name.startswith("DF_")]:
        monkeypatch.delenv(name)
    for name, value in shops.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path / "models")


@pytest.fixture
def lying(tmp_path: Path) -> Path:
    """A checkpoint on this disk, with its configuration beside it."""
    folder = tmp_path / "elsewhere"
    for name, content in CONFIG.items():
        (folder / "config" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "config" / name).write_bytes(content)
    path = folder / "My Model_v2.safetensors"
    path.write_bytes(checkpoint("lying"))
    return path


def below(command: Command) -> Path:
    """The folder of the only model."""
    (found,) = command.models()
    return found.folder


def test_a_checkpoint_without_configuration_gets_the_one_of_sdxl(command, shops):
    shops.repository("acme/plain", checkpoint("plain"))
    told = command.told("download", "hf:acme/plain")
    assert (told["event"], told["id"], told["registered"]) == ("installed", told["id"], False)
    (found,) = command.models()
    assert (found.problem, found.model.id) == (None, told["id"])
    inside = {"model.json", "plain.safetensors", *(f"config/{name}" for name in CONFIG)}
    assert command.files() == {f"sdxl-checkpoint/{told['id']}/{name}" for name in inside}
    assert (found.folder / "plain.safetensors").read_bytes() == checkpoint("plain")


def test_a_scheduler_that_is_not_known_gives_way_to_the_default_one(command, shops):
    index = json.loads(CONFIG["model_index.json"]) | {"scheduler": ["diffusers", "SchedulerOfTomorrow"]}
    files = {**CONFIG, "model_index.json": json.dumps(index).encode(), "scheduler/scheduler_config.json": b'{"x": 1}'}
    shops.hf.add("a/tomorrow", {**files, "tomorrow.safetensors": checkpoint("tomorrow")})
    said = command("download", "hf:a/tomorrow", "--json")
    default = f"hf:{BASE}@{BASE_COMMIT}"
    assert "diffusers.SchedulerOfTomorrow is not known here" in said
    (found,) = [found for found in command.models() if found.model and found.model.slug == "sdxl-tomorrow"]
    assert found.model is not None
    assert found.model.provenance.ids["scheduler"] == default
    for path in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert (found.folder / "config" / path).read_bytes() == CONFIG[path]
    command("verify", found.folder.name)
    assert command.told("download", "hf:a/tomorrow")["event"] == "already_installed"


def test_an_unknown_scheduler_excuses_nothing_else(command, shops):
    strange = {"scheduler": ["diffusers", "SchedulerOfTomorrow"], "unet": ["my_code", "UNet"]}
    index = json.dumps(json.loads(CONFIG["model_index.json"]) | strange).encode()
    shops.hf.add("a/strange", {**CONFIG, "model_index.json": index, "strange.safetensors": checkpoint("strange")})
    assert "unexpected class for" in command("download", "hf:a/strange", status=INTEGRITY)
    assert command.models() == []


def test_people_read_what_came_and_what_to_do_next(command, shops):
    shops.repository("acme/words", checkpoint("words"))
    said = command("download", "hf:acme/words", "--id", "my-words", "--name", "Words of Mine")
    assert "my-words@" in said
    assert "Words of Mine" in said
    assert "no server has run here yet" in said
    assert "dreamforge jobs create" in said


def test_programs_read_one_json_line_after_the_other(command, shops):
    shops.repository("acme/lines", checkpoint("lines"))
    lines = [json.loads(line) for line in command("download", "hf:acme/lines", "--json").splitlines()]
    assert {line["event"] for line in lines[:-1]} <= {"remark", "progress"}
    (last, *_) = [line for line in reversed(lines) if line["event"] == "progress"]
    assert last["bytes_done"] == last["bytes_total"] == lines[-1]["fetched"]


def test_a_reference_that_names_nothing_is_wrong_usage(command, shops):
    for ref in ("nothing", "ftp:x", "hf:", "civitai:", "file:/etc/passwd"):
        command("download", ref, status=USAGE)
    assert command.files() == set()


def test_another_file_may_not_take_an_id(command, shops):
    shops.repository("acme/first", checkpoint("first"), commit="a" * 40)
    shops.repository("acme/second", checkpoint("second"), commit="a" * 40)
    command("download", "hf:acme/first", "--id", "mine")
    before = command.files()
    assert "--id" in command("download", "hf:acme/second", "--id", "mine", status=USAGE)
    assert command.files() == before
    command("download", "hf:acme/second", "--id", "Not A Slug", status=USAGE)


@pytest.mark.parametrize("name", ["sd1", "pickle", "lora"])
def test_what_is_no_sdxl_checkpoint_is_thrown_away(command, shops, name, tmp_path):
    bad = {one.name: one for one in broken.CORPUS}
    data = broken.pickle_bomb(tmp_path / "canary") if name == "pickle" else bad[name].make(checkpoint())
    shops.repository(f"acme/{name}", data)
    assert "nothing was installed" in command("download", f"hf:acme/{name}", status=INTEGRITY)
    assert command.files() == set()
    assert not (tmp_path / "canary").exists()


def test_one_wrong_bit_is_refused(command, shops):
    shops.repository("acme/bit", checkpoint("bit"))
    shops.hf.fault(Place.STORE, "acme/bit", "bit.safetensors", Fault(flipped_at=900))
    command("download", "hf:acme/bit", status=INTEGRITY)
    assert command.models() == []
    assert not any("safetensors" in name for name in command.files())


def test_a_scan_that_civitai_did_not_make(command, shops):
    file = File(11, "unscanned.safetensors", Content(checkpoint("unscanned")), primary=True, virus_scan="Pending")
    shops.civitai.add(Model(10, "Unscanned", [Version(11, "v1", [file])]))
    assert "--allow-unscanned" in command("download", "civitai:10", status=NOT_ALLOWED)
    assert command.files() == set()
    loud = command("download", "civitai:10", "--allow-unscanned", "--json")
    assert any(line["event"] == "remark" and "scan" in line["message"] for line in map(json.loads, loud.splitlines()))


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "little"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"can't mount a small disk here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(command, shops, little_disk, lying):
    shops.repository("acme/large", checkpoint("large", 8 * 2**20))
    command.root = little_disk / "models"
    assert "space" in command("download", "hf:acme/large", status=DISK)
    lying.write_bytes(checkpoint("lying", 8 * 2**20))
    assert "no space left" in command("adopt", lying, status=DISK)
    assert command.models() == []
    assert lying.stat().st_size > 8 * 2**20


def test_a_root_that_is_a_file(command, shops):
    command.root.write_text("")
    shops.repository("acme/nowhere", checkpoint("nowhere"))
    assert str(command.root) in command("download", "hf:acme/nowhere", status=DISK)


@pytest.mark.parametrize("link", [".staging", "sdxl-checkpoint", ".staging/sdxl-checkpoint"])
def test_links_below_the_root_are_not_followed(command, shops, tmp_path, link):
    shops.repository("acme/links", checkpoint("links"))
    outside = tmp_path / "outside"
    outside.mkdir()
    (command.root / link).parent.mkdir(parents=True, exist_ok=True)
    (command.root / link).symlink_to(outside)
    assert "symbolic link" in command("download", "hf:acme/links", status=NOT_ALLOWED)
    assert list(outside.iterdir()) == []


def test_verify_reads_every_byte(command, shops):
    shops.repository("acme/verified", checkpoint("verified"))
    command("download", "hf:acme/verified")
    (before,) = command.models()
    assert command.told_whole("verify")["items"][0]["ok"] is True
    (after,) = command.models()
    assert after.model.verified_at > before.model.verified_at
    path = after.folder / "verified.safetensors"
    status = path.stat()
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # nothing but its bytes tells
    (item,) = command.told_whole("verify", after.model.id, status=FOUND_WRONG)["items"]
    (wrong,) = [file for file in item["files"] if file["problem"]]
    assert wrong["path"] == "verified.safetensors"
    assert "sha256" in wrong["problem"]
    said = command("verify", status=FOUND_WRONG)
    assert f"dreamforge model download {after.model.source_uri}" in said
    command("verify", "nope", status=USAGE)


def test_verify_finds_what_is_gone_or_cut(command, shops):
    shops.repository("acme/cut", checkpoint("cut"))
    command("download", "hf:acme/cut")
    folder = below(command)
    (folder / "config/vae/config.json").unlink()
    os.truncate(folder / "cut.safetensors", 100)
    (item,) = command.told_whole("verify", status=FOUND_WRONG)["items"]
    assert {file["path"] for file in item["files"] if file["problem"]} == {
        "config/vae/config.json",
        "cut.safetensors",
    }
    command("download", "hf:acme/cut")
    command("verify")


def test_remove(command, shops):
    shops.repository("acme/gone", checkpoint("gone"))
    told = command.told("download", "hf:acme/gone")
    command("remove", "nope", status=USAGE)
    assert "removed" in command("remove", told["id"].partition("@")[0])
    assert command.files() == set()


def test_remove_wants_one_version(command, shops):
    for number in "12":
        shops.repository("acme/many", checkpoint(number), commit=number * 40)
        command("download", "hf:acme/many")
    assert "several versions" in command("remove", "sdxl-many", status=USAGE)
    assert len(command.models()) == 2


def test_adopted_bytes_are_shared_or_copied_and_the_file_stays(command, lying):
    told = command.told("adopt", lying)
    path = below(command) / lying.name
    assert path.stat().st_ino == lying.stat().st_ino
    assert told["id"].startswith("sdxl-my-model-v2@")
    assert told["sha256"].startswith(told["id"].partition("@")[2])
    assert command.told("adopt", lying)["event"] == "already_installed"
    command("remove", told["id"])
    command("adopt", lying, "--copy", "--id", "copied", "--name", "Copied")
    assert (below(command) / lying.name).stat().st_ino != lying.stat().st_ino
    command("verify")
    assert lying.read_bytes() == checkpoint("lying")


def test_where_an_adopted_file_came_from_is_looked_up_beside_it(command, lying):
    sha256 = command.told("adopt", lying)["sha256"]
    command("remove", "sdxl-my-model-v2")
    info = {
        "id": 22,
        "modelId": 7,
        "name": "v2",
        "model": {"name": "My Model"},
        "files": [{"id": 33, "hashes": {"SHA256": sha256.upper()}}],
    }
    lying.with_suffix(".civitai.info").write_text(json.dumps(info))
    told = command.told("adopt", lying)
    (found,) = command.models()
    assert (told["id"], found.model.provenance.ids) == (
        "sdxl-my-model@22",
        {"model": "7", "version": "22", "file": "33"},
    )


def test_a_folder_of_another_machine_keeps_its_name(command, shops, tmp_path):
    shops.repository("acme/moved", checkpoint("moved"))
    told = command.told("download", "hf:acme/moved")
    folder = below(command)
    here = Command(tmp_path / "here")
    assert here.told("adopt", folder / "moved.safetensors")["id"] == told["id"]
    assert below(here).name == folder.name
    (folder / "moved.safetensors").write_bytes(checkpoint("other"))
    Command(tmp_path / "third")("adopt", folder / "moved.safetensors", status=INTEGRITY)


def test_what_may_not_be_adopted(command, lying, tmp_path):
    command("adopt", tmp_path / "none.safetensors", status=USAGE)
    bomb = tmp_path / "bomb.safetensors"
    bomb.write_bytes(broken.pickle_bomb(tmp_path / "canary"))
    command("adopt", bomb, "--config", lying.parent / "config", status=NOT_ALLOWED)
    assert command.files() == set()
    assert not (tmp_path / "canary").exists()


def test_a_checkpoint_alone_gets_the_configuration_of_sdxl(command, shops, tmp_path, monkeypatch):
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(checkpoint("alone"))
    command("adopt", alone, "--config", tmp_path / "none", status=NOT_ALLOWED)
    command("adopt", alone)
    (found,) = command.models()
    assert found.model.provenance.ids["config"] == f"hf:{BASE}@{BASE_COMMIT}"
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")  # what is installed serves the next one
    another = tmp_path / "another.safetensors"
    another.write_bytes(checkpoint("another"))
    command("adopt", another)
    assert len(command.models()) == 2


@pytest.mark.parametrize("strange", [{"prediction_type": "v_prediction"}, {"rescale_betas_zero_snr": True}], ids=str)
def test_the_configuration_of_a_model_of_its_own_kind_is_nobody_elses(command, shops, tmp_path, monkeypatch, strange):
    own = {**CONFIG, "scheduler/scheduler_config.json": json.dumps(strange).encode()}
    shops.hf.add("a/aaa", {**own, "aaa.safetensors": checkpoint("aaa")})
    command("download", "hf:a/aaa")
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(checkpoint("alone"))
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("HF_ENDPOINT", "https://127.0.0.1:1")
        command("adopt", alone, status=NOT_ALLOWED)  # it is asked for, and may not be
    told = command.told("adopt", alone)
    folder = Path(told["folder"])
    assert (folder / "config/scheduler/scheduler_config.json").read_bytes() == b"{}"
    assert models_root.read(folder).provenance.ids["config"] == f"hf:{BASE}@{BASE_COMMIT}"
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:1")  # the second that is installed serves the next one
    alone.write_bytes(checkpoint("another"))
    folder = Path(command.told("adopt", alone)["folder"])
    assert (folder / "config/scheduler/scheduler_config.json").read_bytes() == b"{}"


@pytest.mark.parametrize("damage", [b"{}", b"[" * 40])
def test_a_configuration_that_is_not_whole_is_passed_over(command, shops, tmp_path, damage):
    shops.repository("a/aab", checkpoint("aab"))
    index = Path(command.told("download", "hf:a/aab")["folder"]) / "config/model_index.json"
    index.write_bytes(damage.ljust(index.stat().st_size))
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(checkpoint("alone"))
    folder = Path(command.told("adopt", alone)["folder"])
    assert (folder / "config/model_index.json").read_bytes() == CONFIG["model_index.json"]


def test_the_disk_is_listed_when_no_server_answers(command, shops):
    shops.repository("acme/listed", checkpoint("listed"))
    told = command.told("download", "hf:acme/listed")
    (command.root / "sdxl-checkpoint" / "broken@1").mkdir()
    (command.root / "sdxl-checkpoint" / "broken@1" / "model.json").write_text("{")
    listed = command.told_whole("list")
    assert listed["source"] == "disk"
    assert {item["id"]: item["installed"] for item in listed["items"]} == {told["id"]: True, "broken@1": False}
    said = command("list")
    assert told["id"] in said
    assert "model.json" in said

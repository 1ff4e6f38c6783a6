"""SDXL through the whole system: real diffusers code on a checkpoint with random weights."""

from datetime import datetime
from typing import Any

from dreamforge.spec import Scheduler
from tests.e2e import checks, pictures
from tests.e2e.client import events_of
from tests.e2e.system import System, sha256

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def one_picture(system: System, **fields: Any) -> tuple[dict[str, Any], pictures.Picture]:
    """Render one image; the job and the image."""
    job = system.client.render(**fields)
    (artifact,) = system.client.artifacts(job["id"])
    return job, pictures.read(system.client.download(artifact))


def test_post_stream_image_metadata(sdxl, checkpoint):
    job = sdxl.client.post(prompt="a lighthouse", steps=150, seed=11, negative_prompt="blurry")
    assert job["warnings"] == []
    live = list(sdxl.client.stream(job["id"]))
    assert live[-1].event == "end"
    stages = [frame.data["stage"] for frame in events_of(live, "progress")]
    assert stages[0] == "loading"
    assert "denoising" in stages
    checks.whole(sdxl, sdxl.client.job(job["id"]))
    (artifact,) = sdxl.client.artifacts(job["id"])
    picture = pictures.read(sdxl.client.download(artifact))
    assert (picture.format, picture.size, picture.source_type) == ("PNG", (256, 256), TRAINED)
    expected = {
        "prompt": "a lighthouse",
        "negative_prompt": "blurry",
        "seed": 11,
        "scheduler": "euler",
        "steps": 150,
        "guidance": 7.0,
        "width": 256,
        "height": 256,
        "backend": "sdxl",
        "model_id": "sdxl-tiny-sdxl",
        "job_id": job["id"],
        "item_index": 0,
        "checkpoint_hash": sha256(checkpoint.read_bytes()),
    }
    assert {name: picture.fields[name] for name in expected} == expected
    assert artifact["metadata"] == picture.fields
    assert picture.parameters.splitlines()[:2] == ["a lighthouse", "Negative prompt: blurry"]
    assert "Seed: 11," in picture.parameters


def test_the_same_seed_gives_the_same_pixels(sdxl):
    first, second, other = (one_picture(sdxl, seed=seed)[1] for seed in (5, 5, 6))
    assert first.pixels == second.pixels
    assert first.pixels != other.pixels


def test_a_batch_has_a_seed_for_each_image_recorded_everywhere(sdxl):
    job = sdxl.client.render(count=5, seed=5)
    assert any("seed" in warning for warning in job["warnings"])
    checks.whole(sdxl, job)
    artifacts = sdxl.client.artifacts(job["id"])
    found = [pictures.read(sdxl.client.download(artifact)) for artifact in artifacts]
    seeds = [artifact["seed"] for artifact in artifacts]
    assert len(set(seeds)) == 5
    assert [picture.fields["seed"] for picture in found] == seeds
    assert [picture.fields["item_index"] for picture in found] == list(range(5))
    assert [item["seed"] for item in sdxl.client.progress(job["id"])["items"]] == seeds
    assert len({picture.pixels for picture in found}) == 5


def test_jpeg(sdxl):
    job, picture = one_picture(sdxl, format="jpg", seed=3)
    assert (picture.format, picture.size, picture.source_type) == ("JPEG", (256, 256), TRAINED)
    assert (picture.fields["seed"], picture.fields["job_id"]) == (3, job["id"])
    assert picture.parameters.splitlines()[0] == "a lighthouse"


def test_all_schedulers(sdxl):
    found = {}
    for scheduler in Scheduler:
        _, picture = one_picture(sdxl, scheduler=scheduler.value, seed=7, steps=4)
        assert picture.fields["scheduler"] == scheduler.value
        found[scheduler] = picture.pixels
    # Euler and DDIM are one method in two notations.
    assert len(set(found.values())) >= len(found) - 1


def test_without_metadata_the_file_says_nothing(sdxl):
    job = sdxl.client.render(embed_metadata=False, prompt="xyzzy")
    (artifact,) = sdxl.client.artifacts(job["id"])
    data = sdxl.client.download(artifact)
    for word in (b"xyzzy", b"dreamforge", b"parameters", b"xmp", b"Steps", job["id"].encode()):
        assert word not in data


def test_a_prompt_too_long_for_the_model_is_warned_of(sdxl):
    job = sdxl.client.render(prompt="a lighthouse in a storm, " * 40)
    (warning,) = [entry for entry in sdxl.client.logs(job["id"]) if entry["code"] == "prompt.truncated"]
    assert warning["level"] == "warning"
    assert "lighthouse" not in warning["message"]


def test_the_second_job_finds_everything_warm(sdxl):
    sdxl.client.render()
    child = sdxl.process("child").pid
    job = sdxl.client.render(steps=150)
    codes = sdxl.client.codes(job["id"])
    assert "model.reused" in codes
    assert "model.loaded" not in codes
    assert sdxl.process("child").pid == child
    step = next(f for f in sdxl.client.stream(job["id"]) if f.event == "progress" and f.data["stage"] == "denoising")
    started = datetime.fromisoformat(job["started_at"])
    waited = datetime.fromisoformat(step.data["ts"]) - started
    print(f"warm start to first denoising: {waited.total_seconds():.3f} s")


def test_a_child_killed_while_denoising_changes_no_byte(sdxl):
    fields = {"seed": 9, "steps": 150, "embed_metadata": False}
    job = sdxl.client.post(**fields)
    told = (frame.data for frame in sdxl.client.stream(job["id"]) if frame.event == "progress")
    assert any(progress["stage"] == "denoising" and progress["step_index"] > 0 for progress in told)
    sdxl.process("child").kill()
    ended = sdxl.client.wait(job["id"])
    checks.whole(sdxl, ended)
    first, *_, last = checks.attempts(sdxl, ended)
    assert (first["status"], last["status"]) == ("failed", "succeeded")
    undisturbed = sdxl.client.render(**fields)
    (killed,), (whole,) = (sdxl.client.artifacts(one["id"]) for one in (ended, undisturbed))
    assert killed["sha256"] == whole["sha256"]

"""The whole on a real cluster, from ``kubectl apply -k`` to an image by its link; all real but the silicon."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamforge.renderjob import names
from tests.cluster.cluster import GPU
from tests.cluster.foreign import AnyCluster
from tests.cluster.installed import ROOT, RUNNERS, Installed, install, watched
from tests.cluster.kubectl import Object, condition, eventually
from tests.e2e import pictures
from tests.e2e.client import events_of

SAMPLES = ROOT / "manifests" / "samples"
CANARY = "qzxcanary"


@pytest.fixture(scope="module")
def installed(
    cluster: AnyCluster, api_image: str, operator_image: str, runner_image: str, data_images: None
) -> Iterator[Installed]:
    with install(cluster.kubectl) as made:
        yield made


def sample(file: str, name: str, **spec: Any) -> Object:
    """A sample under a name of its own, with some of its spec changed."""
    body: Object = yaml.safe_load((SAMPLES / file).read_text())
    body["metadata"]["name"] = name
    for key, value in spec.items():
        body["spec"][key] = {**body["spec"].get(key, {}), **value}
    return body


def long_job(name: str) -> Object:
    """Minutes of work on any machine: its status tells progress every ten seconds, so it must not end before."""
    return sample("batch.yaml", name, batch={"count": 100}, input={"width": 2048, "height": 2048, "steps": 150})


def whole(installed: Installed, job_id: str, count: int) -> list[dict[str, Any]]:
    """Every item has its one image, told by events, listed, and fetched by its link; the artifacts."""
    job = installed.client.wait(job_id)
    assert (job["completed"], job["count"], job["progress"]) == (count, count, 1)
    frames = installed.client.follow(job_id)
    assert [frame.id for frame in frames[:-1]] == list(range(1, len(frames)))
    told = [frame.data["item_index"] for frame in events_of(frames, "artifact")]
    assert sorted(told) == list(range(count))
    artifacts = installed.client.artifacts(job_id)
    assert [one["item_index"] for one in artifacts] == list(range(count))
    for one in artifacts:
        assert pictures.read(installed.picture(one)).fields == one["metadata"]
    assert installed.client.logs(job_id)
    return artifacts


def test_everything_starts_and_nothing_had_to_be_started_again(installed: Installed):
    assert set(installed.restarts().values()) == {0}, installed.restarts()
    assert installed.client.http.get("/readyz").status_code == 200


def test_a_sample_applied_by_a_person(installed: Installed, tmp_path: Path):
    """``apply``, ``get -w``, ``wait``, then everything the API offers of a job."""
    watch = tmp_path / "watch"
    installed.runners.apply(SAMPLES / "batch.yaml")
    with watched(installed.runners, "batch", watch):
        installed.runners.wait_condition("rj", "batch", "Complete", timeout=120)
        eventually("the watch shows the end", lambda: "Succeeded" in watch.read_text())
    phases = [line.split()[1] for line in watch.read_text().splitlines()[1:]]
    order = ["Pending", "Starting", "Rendering", "Succeeded"]
    assert phases == sorted(phases, key=order.index), "no step back"
    job_id = installed.job_id("batch")
    for artifact in whole(installed, job_id, 4):
        assert (artifact["format"], artifact["width"]) == ("png", 512)
    listed = {job["id"]: job for job in installed.client.http.get("/v1/jobs").json()["items"]}
    assert listed[job_id]["executor"] == {"kind": "kubernetes", "ref": f"{RUNNERS}/batch"}
    status = installed.status("batch")
    assert (status["attempt"], status["artifacts"]["count"], status["items"]["succeeded"]) == (1, 4, "0-3")
    assert len(status["artifacts"]["manifestSha256"]) == 64


def test_a_job_over_rest(installed: Installed):
    """Its Secret, RenderJob and pod, which has the GPU; and the prompt is where it must be and nowhere else."""
    words = {"prompt": f"{CANARY} a lighthouse", "negative_prompt": f"{CANARY} rain"}
    job = installed.client.post(count=6, width=1536, height=1536, steps=40, **words)
    name = names.resource_name(job["id"])
    order = eventually("the RenderJob", lambda: installed.runners.find("renderjob", name))
    assert order["spec"]["inputSecretRef"]["name"] == name
    (pod,) = eventually("its pod", lambda: installed.pods(job["id"]))
    assert installed.runners.find("secret", name)
    container, spec = pod["spec"]["containers"][0], pod["spec"]
    assert container["resources"]["limits"][GPU] == container["resources"]["requests"][GPU] == "1"
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == ("dreamforge-runner", False)
    for artifact in whole(installed, job["id"], 6):
        assert artifact["metadata"]["prompt"] == words["prompt"]
    eventually("the Secret is gone", lambda: installed.runners.find("secret", name) is None)
    installed.runners.wait_condition("rj", name, "Complete")
    found = [place for place, text in installed.texts().items() if CANARY in text]
    assert found == []


def test_deleted_while_it_renders(installed: Installed):
    installed.runners.apply(long_job("deleted"))
    job_id = installed.rendering("deleted")
    installed.runners.delete("rj", "deleted")
    eventually("its pod is gone", lambda: not installed.pods(job_id))
    installed.client.wait(job_id, "canceled")


def test_canceled_over_rest_once_progress_shows(installed: Installed):
    installed.runners.apply(long_job("canceled"))
    job_id = installed.rendering("canceled")
    shown = eventually("progress", lambda: installed.status("canceled").get("progress", {}).get("itemsDone"))
    assert 1 <= shown < 100
    assert installed.client.cancel(job_id).status_code == 202
    eventually("its pod is gone", lambda: not installed.pods(job_id))
    installed.runners.wait_condition("rj", "canceled", "Canceled")
    installed.client.wait(job_id, "canceled")
    ready = condition(installed.runners.get("rj", "canceled"), "Ready")
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("True", "Canceled")


def test_shards_take_turns_on_one_gpu(installed: Installed):
    installed.runners.apply(
        sample("sharded.yaml", "shards", batch={"shards": 2}, input={"width": 512, "height": 512})
    )
    job_id = installed.job_id("shards")
    whole(installed, job_id, 12)
    installed.runners.wait_condition("rj", "shards", "Complete", timeout=120)
    assert sorted(pod["metadata"]["annotations"][_INDEX] for pod in installed.pods(job_id)) == ["0", "1"]


_INDEX = "batch.kubernetes.io/job-completion-index"


def test_the_operator_dies_while_a_job_renders(installed: Installed):
    """The job goes on without it, and the next operator finds it and makes no second pod."""
    installed.runners.apply(sample("batch.yaml", "orphan", batch={"count": 60}, input={"width": 1536, "steps": 40}))
    job_id = installed.rendering("orphan")
    old = installed.platform.list("pods", "app.kubernetes.io/name=dreamforge-operator")[0]["metadata"]["name"]
    installed.platform("delete", "pod", old, "--force", "--grace-period=0")
    installed.runners.wait_condition("rj", "orphan", "Complete", timeout=180)
    whole(installed, job_id, 60)
    assert len(installed.pods(job_id)) == 1
    assert installed.status("orphan")["attempt"] == 1


def test_redis_refused_nobody_so_far_and_refuses_runners_what_they_need_not(installed: Installed):
    """After all the others: a runner sends events and reads its ack; it can't read what others sent."""
    assert installed.redis("ACL", "LOG").strip() == ""
    for command in (
        "LRANGE rq:queue:events 0 -1",
        "HGETALL rq:job:x",
        "SET dreamforge:ack:x 1",
        "GET dreamforge:lease:x",
        "PUBLISH dreamforge:events x",
        "KEYS *",
    ):
        assert installed.redis(*command.split(), user="runner").startswith("NOPERM"), command

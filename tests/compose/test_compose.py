"""`make up` for real: containers, health gates, a job over REST, crashes, restarts, volumes."""

import json
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import pipeline_config
from tests.compose.system import CHECKED, ONE_SHOT, SERVICES, Composition, fetched
from tests.e2e import pictures
from tests.e2e.system import sha256
from tests.tiny_sdxl import broken

pytestmark = pytest.mark.timeout(900)  # the first test builds images


def test_up_returns_when_everything_is_healthy(composition: Composition):
    containers = composition.containers()
    assert set(containers) == SERVICES | {ONE_SHOT}
    states = {service: composition.state(service) for service in containers}
    assert {service for service, state in states.items() if state["Running"]} == SERVICES
    assert {s for s, state in states.items() if (state.get("Health") or {}).get("Status") == "healthy"} == CHECKED
    assert states[ONE_SHOT]["ExitCode"] == 0
    assert composition.client.http.get("/readyz").status_code == 200


def test_a_job_is_rendered_and_its_images_come_by_presigned_links(composition: Composition):
    client = composition.client
    job = client.post(count=2)
    frames = client.follow(job["id"])
    assert [frame.data["status"] for frame in frames if frame.event == "state"] == ["running", "succeeded"]
    found = fetched(client, job["id"])
    assert len(found) == 2
    for artifact, content in found:
        assert artifact["url"].startswith(f"http://127.0.0.1:{composition.ports['s3']}/dreamforge/")
        assert sha256(content) == artifact["sha256"]
        assert pictures.read(content).size == (256, 256)


def test_ports_are_open_on_this_machine_alone(composition: Composition):
    published = {
        (publisher["URL"], publisher["PublishedPort"])
        for container in composition.containers().values()
        for publisher in container["Publishers"] or []
        if publisher["PublishedPort"]
    }
    assert published == {("127.0.0.1", port) for port in composition.ports.values()}
    own = [a.address for nic in psutil.net_if_addrs().values() for a in nic if a.family == socket.AF_INET]
    for address in set(own) - {"127.0.0.1"}:
        for port in composition.ports.values():
            with socket.socket() as probe:
                probe.settimeout(2)
                assert probe.connect_ex((address, port)) != 0, f"{address}:{port}"


def test_up_again_changes_nothing(composition: Composition):
    before = {service: (composition.identity(service), composition.state(service)["Pid"]) for service in SERVICES}
    # Podman 4 tells the name of a network where its identity is asked for, so Compose takes it for another network.
    composition.make("up", *(["--no-recreate"] if composition.engine.name == "podman" else []))
    assert {s: (composition.identity(s), composition.state(s)["Pid"]) for s in SERVICES} == before
    assert composition.state(ONE_SHOT)["ExitCode"] == 0


@pytest.mark.parametrize("service", ["worker", "runner", "api", "redis", "postgres"])
def test_a_crashed_container_comes_back_and_jobs_end(composition: Composition, service: str):
    job = composition.client.post(count=40)
    composition.kill(service)
    composition.client.wait(job["id"])
    composition.client.until_ready()
    composition.client.render()


def test_nobody_runs_as_root_and_no_root_is_writable(composition: Composition):
    for service in ("api", "worker", "runner"):
        container = composition.engine.container(composition.identity(service))
        assert container["Config"]["User"] == "65532:65532"
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        status = f"/proc/{container['State']['Pid']}/status"
        with open(status, encoding="utf-8") as lines:
            fields = dict(line.rstrip().split(":\t", 1) for line in lines if ":\t" in line)
        assert (fields["CapEff"], fields["NoNewPrivs"]) == ("0" * 16, "1")


def test_logs_are_ndjson_without_the_password(composition: Composition):
    for service in ("api", "worker", "runner"):
        lines = composition.logs(service)
        assert lines
        assert [line for line in lines if not isinstance(json.loads(line), dict)] == []
        assert [line for line in lines if composition.password in line] == []


def test_a_model_is_installed_verified_and_removed(composition: Composition, tmp_path: Path):
    """Into a new volume, by nobody, and known to the API at once; the worker and the runner only read it."""
    pipeline_config.write(tmp_path / "config")
    (tmp_path / "sdxl-x.safetensors").write_bytes(broken.encode(broken.MINIMAL))
    tmp_path.chmod(0o755)
    before = {service: composition.identity(service) for service in SERVICES}
    composition.models("adopt", "/here/sdxl-x.safetensors", "--id", "sdxl-x", mounted=tmp_path)
    assert {service: composition.identity(service) for service in SERVICES} == before  # nothing is made anew
    (model,) = listed(composition)
    assert model["installed"]
    composition.models("verify", model["id"])
    for service in ("worker", "runner"):
        folder = f"/models/sdxl-checkpoint/{model['id']}"
        script = f"import os; print(sorted(os.listdir({folder!r})), os.access({folder!r}, os.W_OK))"
        assert composition.inside(service, "python", "-c", script).strip() == (
            "['config', 'model.json', 'sdxl-x.safetensors'] False"
        )
    composition.models("remove", model["id"])
    assert listed(composition) == []


def listed(composition: Composition) -> list[dict[str, Any]]:
    items = composition.client.http.get("/v1/models").raise_for_status().json()["items"]
    return [one for one in items if one["slug"] == "sdxl-x"]


def test_down_and_up_keeps_jobs_and_images(composition: Composition):
    job = composition.client.render()
    ((artifact, content),) = fetched(composition.client, job["id"])
    composition.make("down")
    assert composition.containers() == {}
    composition.make("up")
    assert composition.client.job(job["id"]) == job
    assert fetched(composition.client, job["id"])[0][1] == content
    assert sha256(content) == artifact["sha256"]
    composition.client.render()


def test_down_with_volumes_leaves_nothing(composition: Composition):
    assert composition.left()
    composition.make("down", "--volumes")
    assert composition.left() == []

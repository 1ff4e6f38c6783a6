"""The Compose files: valid as Compose reads them, closed to other machines, and with settings that exist."""

import json
import os
import re
import subprocess
from typing import Any

import pytest
import yaml

from tests.compose import engine
from tests.contract.project import ROOT

FILES = {"compose.yaml": ["compose/compose.yaml"], "gpu.yaml": ["compose/compose.yaml", "compose/gpu.yaml"]}
GPU = {"DF_MODELS_ROOT": "/srv/models", "DF_GENERATE_MODEL_PATH": "/models/one.safetensors"}
#: Named by others.
FOREIGN = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "REDISCLI_AUTH", "ROOT_ACCESS_KEY", "ROOT_SECRET_KEY"}
FOREIGN |= {"HF_TOKEN", "CIVITAI_TOKEN", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}


def config(name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What Compose makes of the files, as JSON."""
    if (compose := engine.compose()) is None:
        pytest.skip("Docker Compose is not installed (tests/compose/build.sh builds it)")
    files = [option for file in FILES[name] for option in ("-f", str(ROOT / file))]
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DF_", "COMPOSE_"))}
    command = [*compose, "--env-file", os.devnull, *files, "config", "--format", "json"]
    return subprocess.run(command, env={**kept, **variables}, capture_output=True, text=True, check=False, timeout=60)


def services(name: str, **variables: str) -> dict[str, Any]:
    done = config(name, **variables)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


def models(service: dict[str, Any]) -> tuple[str, str, bool]:
    """Kind and source of what is mounted for models, and whether it may be written."""
    (volume,) = (volume for volume in service["volumes"] if volume["target"] == "/models")
    return volume["type"], volume["source"], not volume.get("read_only", False)


def test_a_gpu_is_asked_for_by_cdi_and_a_checkpoint_may_be_placed_by_hand():
    found = services("gpu.yaml", **GPU)
    (device,) = found["runner"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"]) == ("cdi", ["nvidia.com/gpu=all"])
    assert found["runner"]["image"] == "dreamforge-runner:dev-sdxl"
    for service in ("api", "worker", "runner"):
        assert found[service]["environment"]["DF_GENERATE_MODEL_PATH"] == GPU["DF_GENERATE_MODEL_PATH"]
    assert services("gpu.yaml")["runner"]["environment"]["DF_GENERATE_MODEL_PATH"] == ""


def test_what_torch_compiles_lies_where_programs_may_be_loaded_from():
    runner = services("gpu.yaml")["runner"]
    state = {volume["target"] for volume in runner["volumes"] if not volume.get("read_only")}
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        assert any(runner["environment"][name].startswith(f"{folder}/") for folder in state), name


@pytest.mark.parametrize(
    ("variables", "source"), [({}, ("volume", "models")), (GPU, ("bind", GPU["DF_MODELS_ROOT"]))]
)
def test_models_are_one_place_that_only_the_fetching_command_writes(
    variables: dict[str, str], source: tuple[str, str]
):
    found = services("compose.yaml", COMPOSE_PROFILES="models", **variables)
    for service in ("api", "worker", "runner"):
        assert models(found[service]) == (*source, False)
    assert models(found["models"]) == (*source, True)


def test_fetching_models_is_a_command_and_no_service():
    assert "models" not in services("compose.yaml")
    found = services("compose.yaml", COMPOSE_PROFILES="models", HF_TOKEN="hf_x")["models"]
    assert (found["restart"], found["entrypoint"][-2:]) == ("no", ["dreamforge_cli", "model"])
    assert found["environment"]["HF_TOKEN"] == "hf_x"
    assert {"read_only": True, "cap_drop": ["ALL"]}.items() <= found.items()


@pytest.mark.parametrize("name", FILES)
def test_every_port_is_this_machines(name: str):
    ports = [port for service in services(name, **GPU).values() for port in service.get("ports", [])]
    assert len(ports) == 4
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}


def test_own_containers_are_hardened_and_long_lived_ones_are_started_again():
    found = services("compose.yaml")
    own = {name: service for name, service in found.items() if service["image"].startswith("dreamforge-")}
    assert set(own) == {"migrate", "api", "worker", "runner"}
    for service in own.values():
        assert service["pull_policy"] == "never", "whoever took the name in a registry would be run here"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert {name: service["restart"] for name, service in found.items()} == {
        name: "on-failure" if name == "migrate" else "unless-stopped" for name in found
    }


def test_every_setting_is_a_setting():
    document = yaml.safe_load((ROOT / "compose/compose.yaml").read_text(encoding="utf-8"))
    overlay = yaml.safe_load((ROOT / "compose/gpu.yaml").read_text(encoding="utf-8"))
    known = set(re.findall(r"^#?(DF_[A-Z0-9_]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.M))
    used = {
        name
        for part in (*document["services"].values(), *overlay["services"].values())
        for name in part.get("environment", {})
    }
    assert used - FOREIGN
    assert used - FOREIGN - known == set()


def test_checks_have_no_blank_in_a_word():
    """Podman 4 cuts the words of a check at each blank."""
    document = yaml.safe_load((ROOT / "compose/compose.yaml").read_text(encoding="utf-8"))
    checks = {
        name: part["healthcheck"]["test"] for name, part in document["services"].items() if "healthcheck" in part
    }
    assert set(checks) == {"postgres", "redis", "s3", "api", "worker"}
    assert [word for words in checks.values() for word in words if " " in word] == []


def test_the_page_names_every_variable():
    files = (ROOT / "compose/compose.yaml").read_text(encoding="utf-8") + (ROOT / "compose/gpu.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)[:}]", files))
    page = (ROOT / "docs/install/compose.md").read_text(encoding="utf-8")
    assert asked == set(re.findall(r"^\| `([A-Z0-9_]+)`", page, re.M))

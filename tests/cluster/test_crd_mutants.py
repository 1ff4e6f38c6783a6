"""Mutants of RenderJobs: an API server takes or refuses each, and what it takes, the models read without loss.

The operator relies on this: no object that is stored may stop it.
"""

import json
import ssl
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dreamforge.renderjob.resource import RenderJob
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl
from tests.cluster.renderjob_cases import BASE, FULL
from tests.cluster.renderjob_status_cases import FULL_STATUS

CRD = Path(__file__).resolve().parents[2] / "crds/renderjobs.yaml"
(_VERSION,) = yaml.safe_load(CRD.read_text(encoding="utf-8"))["spec"]["versions"]
SCHEMA = _VERSION["schema"]["openAPIV3Schema"]["properties"]

Node = dict[str, Any]
Where = tuple[str | int, ...]

MUTANTS = settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)

#: Values that break programs which never met them, whatever the field.
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63), 1e308, 5e-324, 1.5, 1024.0),
    *(
        "",
        " ",
        "0",
        "true",
        "null",
        "\0",
        "\x1b[31m",
        "\ud800",
        "\u2028",
        "\U0001f98a",
        "a" * 5000,
        "../../etc/passwd",
    ),
    *("${HOME}", "{{.}}", "2026-02-30T00:00:00Z", "2026-01-01T00:00:00", "NaN", "1-0", "9-3,0-99", "\u00a0\u3000"),
    *([], [None], {}, {"": ""}, {"a": {"b": {"c": []}}}, [[[]]], [{"type": "Ready"}]),
)


#: Times, of which Kubernetes' own check takes some that no program can read.
TIMES = (
    *("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789Z", "9999-12-31T23:59:59Z", "1000-01-01T00:00:00Z"),
    *("2026-01-01t00:00:00z", "0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", "2026-01-01T00:00:00x5Z"),
    *("2026-12-31T23:59:60Z", "9999-12-31T23:59:59-23:59", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00"),
)


class Change(NamedTuple):
    """One thing done to a document: a value set, or with ``drop`` a key taken away."""

    where: Where
    value: Any
    drop: bool


def nodes(schema: Node, where: Where = ()) -> Iterator[tuple[Where, Node]]:
    """Every field below ``schema``; lists by their first entry."""
    for name, field in schema.get("properties", {}).items():
        yield (*where, name), field
        yield from nodes(field, (*where, name))
    if "items" in schema:
        yield (*where, 0), schema["items"]
        yield from nodes(schema["items"], (*where, 0))


def values(node: Node) -> st.SearchStrategy[Any]:
    """Values near a field's bounds, just beyond them, and far away."""
    near: list[Any] = [*node.get("enum", ()), *([node["default"]] if "default" in node else [])]
    for word, beyond in (("minimum", -1), ("maximum", 1)):
        if word in node:
            near += [node[word], node[word] + beyond, float(node[word]), node[word] - beyond, node[word] - beyond / 2]
    if "maxLength" in node:
        near += ["a" * node["maxLength"], "a" * (node["maxLength"] + 1), "\u72d0" * min(node["maxLength"], 64)]
    choices = [st.sampled_from(HOSTILE)]
    if near:
        choices += [st.sampled_from(near)] * 2
    if "pattern" in node:
        choices += [st.from_regex(node["pattern"])] * 2
    if (node.get("minLength"), node.get("maxLength")) == (20, 30):
        choices += [st.sampled_from(TIMES)] * 2
    if node["type"] == "string":
        choices.append(st.text(max_size=40))
    if node["type"] in {"integer", "number"}:
        choices += [st.integers(-10, 5000), st.floats(allow_nan=False, allow_infinity=False)]
    return st.one_of(choices)


def changes(schema: Node) -> st.SearchStrategy[list[Change]]:
    """One to four changes anywhere below ``schema``."""
    fields = list(nodes(schema))

    def change(field: tuple[Where, Node]) -> st.SearchStrategy[Change]:
        where, node = field
        stranger = st.just(Change((*where[:-1], "stranger"), {"x": 1}, False))
        return st.one_of(
            st.builds(Change, st.just(where), values(node), st.just(False)),
            st.builds(Change, st.just(where), values(node), st.just(False)),
            st.just(Change(where, None, True)),
            stranger,
        )

    return st.lists(st.sampled_from(fields).flatmap(change), min_size=1, max_size=4)


def mutant(document: Node, done: list[Change]) -> Node:
    """``document`` with the changes made that still find their place."""
    made = deepcopy(document)
    for where, value, drop in done:
        parent: Any = made
        for key in where[:-1]:
            if isinstance(parent, dict) and isinstance(key, str):
                parent = parent.setdefault(key, {})
            elif isinstance(parent, list) and key == 0 and parent:
                parent = parent[0]
        if isinstance(parent, dict) and isinstance(where[-1], str):
            if drop:
                parent.pop(where[-1], None)
            else:
                parent[where[-1]] = deepcopy(value)
        elif isinstance(parent, list) and not drop:
            parent.append(deepcopy(value))
    return made


@pytest.fixture(scope="module")
def server(api_server: ControlPlane) -> Iterator[httpx.Client]:
    """The API server without kubectl in between, which would refuse much by itself."""
    kubectl = Kubectl(api_server.kubeconfig)
    kubectl.apply(CRD)
    kubectl.wait_condition("crd", "renderjobs.dreamforge.dev", "Established")
    config = json.loads(api_server.kubeconfig.read_text())
    headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
    trusted = ssl.create_default_context(cafile=config["clusters"][0]["cluster"]["certificate-authority"])
    with httpx.Client(
        base_url=api_server.at.api, headers=headers, verify=trusted, trust_env=False, timeout=30
    ) as client:
        yield client


def judged(answer: httpx.Response) -> RenderJob | None:
    """What was taken, as the model reads it; ``None`` when it was refused in words."""
    if answer.status_code in {400, 422}:
        assert answer.json()["message"]
        return None
    assert answer.status_code in {200, 201}, answer.text
    return RenderJob.model_validate(answer.json())


def send(call: Callable[..., httpx.Response], path: str, body: Node, **headers: str) -> httpx.Response:
    """A dry run: all is checked and filled in, nothing is stored."""
    # Lone surrogates leave as escapes, which is how a hostile client would send them.
    return call(path, params={"dryRun": "All"}, content=json.dumps(body).encode(), headers=headers)


PATH = "/apis/dreamforge.dev/v1alpha1/namespaces/default/renderjobs"
SECRET = {"inputSecretRef": {"name": "one"}, "queue": {"name": "gpu"}}


def test_of_mutated_specs_each_is_refused_or_read(server: httpx.Client):
    taken: list[bool] = []

    @MUTANTS
    @given(base=st.sampled_from([BASE, FULL, SECRET]), done=changes(SCHEMA["spec"]))
    def check(base: Node, done: list[Change]) -> None:
        body = {
            "apiVersion": "dreamforge.dev/v1alpha1",
            "kind": "RenderJob",
            "metadata": {"name": "mutant"},
            "spec": mutant(base, done),
        }
        answer = send(server.post, PATH, body, **{"Content-Type": "application/json"})
        job = judged(answer)
        taken.append(job is not None)
        if job is not None:
            assert job.spec.manifest() == answer.json()["spec"]
            assert (job.spec.params() is None) == (job.spec.input is None)

    check()
    assert 0.1 < sum(taken) / len(taken) < 0.9


def test_of_mutated_statuses_each_is_refused_or_read(server: httpx.Client):
    body = {
        "apiVersion": "dreamforge.dev/v1alpha1",
        "kind": "RenderJob",
        "metadata": {"generateName": "mutant-"},
        "spec": BASE,
    }
    made = server.post(PATH, json=body).raise_for_status().json()
    taken: list[bool] = []

    @MUTANTS
    @given(base=st.sampled_from([{}, FULL_STATUS]), done=changes(SCHEMA["status"]))
    def check(base: Node, done: list[Change]) -> None:
        path = f"{PATH}/{made['metadata']['name']}/status"
        answer = send(
            server.put, path, {**made, "status": mutant(base, done)}, **{"Content-Type": "application/json"}
        )
        job = judged(answer)
        taken.append(job is not None)
        if job is not None:
            again = RenderJob.model_validate({"spec": BASE, "status": job.status.manifest()})
            assert again.status == job.status

    check()
    assert 0.1 < sum(taken) / len(taken) < 0.9

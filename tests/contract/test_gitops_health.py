"""What Argo CD and Flux make of a RenderJob: the shipped checks are run, in their own languages, over every state."""

from pathlib import Path
from typing import Any

import celpy
import celpy.adapter
import pytest
import yaml
from lupa.lua54 import LuaRuntime

from tests.contract.project import ROOT

Json = dict[str, Any]
GITOPS = ROOT / "manifests" / "gitops"


def renderjob(status: Json | None, generation: int = 2) -> Json:
    item = {"apiVersion": "dreamforge.dev/v1alpha1", "kind": "RenderJob", "metadata": {"generation": generation}}
    return item if status is None else item | {"status": status}


def seen(phase: str, *true: str, generation: int = 2) -> Json:
    """A status as the operator writes it: Ready always, with the phase as its reason; these conditions True."""
    kinds = ["Ready", "Reconciling", "Stalled", "Suspended"]
    conditions = [
        {"type": kind, "status": str(kind in true), "reason": phase, "message": f"about {kind}"} for kind in kinds
    ]
    return {"phase": phase, "observedGeneration": generation, "conditions": conditions}


STATES = {
    "new": (None, "Progressing", "inProgress"),
    "defaulted": ({"observedGeneration": -1}, "Progressing", "inProgress"),
    "out of date": (seen("Succeeded", "Ready", generation=1), "Progressing", "inProgress"),
    "rendering": (seen("Rendering", "Reconciling"), "Progressing", "inProgress"),
    "failed": (seen("Failed", "Stalled"), "Degraded", "failed"),
    "suspended": (seen("Suspended", "Suspended"), "Suspended", "current"),
    "succeeded": (seen("Succeeded", "Ready"), "Healthy", "current"),
    "canceled": (seen("Canceled", "Ready"), "Healthy", "current"),
}


@pytest.mark.parametrize("state", STATES)
def test_argo_cd_sees_the_state(state):
    status, expected, _ = STATES[state]

    health = _lua(GITOPS / "argocd-health.lua", renderjob(status))

    assert health["status"] == expected
    assert health["message"]


@pytest.mark.parametrize("state", STATES)
def test_flux_sees_the_state(state):
    status, _, expected = STATES[state]
    checks = yaml.safe_load((GITOPS / "flux-renderjobs.yaml").read_text())["spec"]["healthCheckExprs"][0]

    assert _flux(checks, renderjob(status)) == expected


def _flux(checks: Json, item: Json) -> str:
    """In the order of the controller, which calls an object without any status unknown and waits on too."""
    return next(verdict for verdict in ("inProgress", "failed", "current") if _cel(checks[verdict], item))


def _cel(expression: str, item: Json) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    return bool(program.evaluate({name: celpy.adapter.json_to_cel(value) for name, value in item.items()}))


def _lua(script: Path, item: Json) -> Json:
    """The script as Argo CD runs it: a chunk with the global ``obj``."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = _table(lua, item)
    return dict(lua.execute(script.read_text()))


def _table(lua: LuaRuntime, value: object) -> object:
    if isinstance(value, dict):
        return lua.table_from({key: _table(lua, item) for key, item in value.items()})
    if isinstance(value, list):
        return lua.table_from([_table(lua, item) for item in value])
    return value

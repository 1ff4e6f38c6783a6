"""Write ``crds/renderjobs.yaml`` from the models and rules in ``dreamforge.renderjob``.

    python scripts/crds.py            write the file
    python scripts/crds.py --check    exit 1 when it differs (a contract test does the same)

pydantic's JSON Schema becomes what Kubernetes calls structural: no references, no ``anyOf`` with null, no
``additionalProperties`` beside properties. Bounds and defaults are added to the descriptions, because
``kubectl explain`` shows nothing else of them.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from dreamforge.renderjob import names
from dreamforge.renderjob.conditions import Phase
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.rules import RULES, Rule
from dreamforge.renderjob.spec import RenderJobSpec
from dreamforge.renderjob.status import UNSEEN, RenderJobStatus

FILE = Path(__file__).resolve().parent.parent / "crds/renderjobs.yaml"
HEADER = "# Written by `make crds` from core/dreamforge/renderjob/: change it there.\n"

LABELS = {"app.kubernetes.io/name": "dreamforge", "app.kubernetes.io/part-of": "dreamforge"}
#: Taking the CRD out of Git must not delete every RenderJob there is.
KEPT_BY_GITOPS = {
    "kustomize.toolkit.fluxcd.io/prune": "disabled",
    "argocd.argoproj.io/sync-options": "Prune=false",
}

Schema = dict[str, Any]
Place = tuple[str, ...]

_KEPT = (
    "type",
    "format",
    "enum",
    "pattern",
    "minimum",
    "maximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "default",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)
_LIMIT_WORDS = {
    "maxLength": "at most {} characters",
    "maxItems": "at most {} entries",
}


def column(name: str, kind: str, path: str, description: str, *, wide: bool = False) -> Schema:
    """One column of ``kubectl get rj``; ``wide`` ones show with ``-o wide`` only."""
    made: Schema = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return made | {"priority": 1} if wide else made


COLUMNS = [
    column("Phase", "string", ".status.phase", "Where the job is."),
    column("Progress", "integer", ".status.progress.percent", "Share of the work that is done, in percent."),
    column("Done", "integer", ".status.progress.itemsDone", "Images that are stored."),
    column("Items", "integer", ".spec.batch.count", "Images to render."),
    column("Model", "string", ".spec.modelRef.id", "The model to render with."),
    column("GPU", "integer", ".spec.gpu.count", "GPUs of each pod."),
    column("Attempt", "integer", ".status.attempt", "Runners started so far."),
    column("Age", "date", ".metadata.creationTimestamp", "Time since the RenderJob was made."),
    column("Reason", "string", '.status.conditions[?(@.type=="Ready")].reason', "Why it is (not) ready.", wide=True),
    column("Message", "string", '.status.conditions[?(@.type=="Ready")].message', "The same for people.", wide=True),
    column("Failure", "string", ".status.failure.class", "Error class of a failed job.", wide=True),
    column("ETA", "integer", ".status.progress.etaSeconds", "Seconds until it is expected to be done.", wide=True),
    column("Queue", "string", ".spec.queue.name", "Kueue queue.", wide=True),
    column("Device", "string", ".status.gpu.product", "The GPU of the last runner.", wide=True),
    column("VRAM-Peak", "integer", ".status.gpu.vramPeakMiB", "The most GPU memory in use, in MiB.", wide=True),
    column("Job-ID", "string", ".status.jobId", "Id in the REST API.", wide=True),
]

SELECTABLE = (
    ".spec.provider",
    ".spec.modelRef.id",
    ".spec.jobId",
    ".spec.queue.name",
    ".status.phase",
    ".status.failure.class",
)


def structural(node: Schema, definitions: Schema, path: Place, *, told: bool) -> Schema:
    """One node of pydantic's schema as Kubernetes wants it; ``told`` adds bounds and defaults to descriptions."""
    node = _resolved(node, definitions)
    made = {key: node[key] for key in _KEPT if key in node}
    if made.get("default", "") is None:
        del made["default"]
    if "const" in node:
        made["enum"] = [node["const"]]
    if made["type"] == "integer":
        made["format"] = "int32" if made.get("maximum", 2**31) < 2**31 else "int64"
    if made["type"] == "number":
        made["format"] = "double"
    if made["type"] == "array":
        made["items"] = structural(node["items"], definitions, (*path, "*"), told=told)
    if "properties" in node:
        made["properties"] = _properties(node, definitions, path, told=told)
        if node.get("required"):
            made["required"] = node["required"]
    if path in RULES:
        made["x-kubernetes-validations"] = [_validation(rule) for rule in RULES[path]]
        # A rule's message tells a person more than a pattern does.
        made.pop("pattern", None)
    return {"description": _description(node, made if told else {}), **made}


def _properties(node: Schema, definitions: Schema, path: Place, *, told: bool) -> Schema:
    made = {}
    for name, field in node["properties"].items():
        made[name] = structural(field, definitions, (*path, name), told=told)
        optional, required = "anyOf" in field, name in node.get("required", ())
        if made[name]["type"] == "object" and not optional and not required:
            # Neither may it be missing nor must it be given, so it is made of its own fields' defaults.
            made[name] = {"description": made[name]["description"], "default": {}, **made[name]}
    return made


def _resolved(node: Schema, definitions: Schema) -> Schema:
    """``node`` without references and without the null that stands for an absent field."""
    if "anyOf" in node:
        (other,) = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
        node = {**other, **{key: value for key, value in node.items() if key != "anyOf"}}
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def _validation(rule: Rule) -> Schema:
    made = {"rule": rule.rule, "message": rule.message}
    return {**made, "fieldPath": rule.field} if rule.field else made


def _description(node: Schema, limits: Schema) -> str:
    """The description on one line, then the bounds that ``kubectl explain`` does not show."""
    text = " ".join(node["description"].replace("``", "").split())
    words = [form.format(limits[key]) for key, form in _LIMIT_WORDS.items() if key in limits]
    if "minLength" in limits and limits["minLength"] == limits["maxLength"]:
        words = []
    if "minimum" in limits and "maximum" in limits:
        words.insert(0, f"{limits['minimum']} to {limits['maximum']}")
    if (default := limits.get("default", {})) != {}:
        words.append(f"default {default if isinstance(default, str) else json.dumps(default).removesuffix('.0')}")
    told = "; ".join(words)
    return f"{text} {told[0].upper()}{told[1:]}." if told else text


def open_api() -> Schema:
    """The schema of the whole object."""
    spec, status = RenderJobSpec.model_json_schema(), RenderJobStatus.model_json_schema()
    made: Schema = {
        "description": " ".join((RenderJob.__doc__ or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"Always {names.API_VERSION}."},
            "kind": {"type": "string", "description": f"Always {names.KIND}."},
            "metadata": {"type": "object"},
            "spec": structural(spec, spec["$defs"], ("spec",), told=True),
            "status": structural(status, status["$defs"], ("status",), told=False),
        },
        "x-kubernetes-validations": [_validation(rule) for rule in RULES[()]],
    }
    # An object no operator has seen must not look finished to Flux and Argo CD, not even for a moment.
    made["properties"]["status"]["default"] = {"observedGeneration": UNSEEN, "phase": Phase.PENDING.value}
    return made


def definition() -> Schema:
    """The CustomResourceDefinition."""
    version = {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": COLUMNS,
        "selectableFields": [{"jsonPath": path} for path in SELECTABLE],
        "schema": {"openAPIV3Schema": open_api()},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": names.CRD_NAME, "labels": LABELS, "annotations": KEPT_BY_GITOPS},
        "spec": {
            "group": names.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": names.KIND,
                "listKind": names.LIST_KIND,
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": [names.CATEGORY],
            },
            "versions": [version],
        },
    }


def rendered() -> str:
    """The file's text."""
    return HEADER + yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """No anchors: what stands twice is written twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> int:
    """Exit 1 when ``--check`` finds a difference."""
    text = rendered()
    if "--check" in sys.argv[1:]:
        if FILE.exists() and FILE.read_text("utf-8") == text:
            return 0
        sys.stderr.write("crds/renderjobs.yaml is not what the models say; run make crds\n")
        return 1
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

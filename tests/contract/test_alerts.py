"""Every alert asks for metrics that exist, and has a page that says what to do; no page is without its alert."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.project import ROOT

RULES = ROOT / "docs/alerts/dreamforge.rules.yml"
COMPONENT = ROOT / "kustomize/components/monitoring/rules.yaml"
PAGES = ROOT / "docs/runbooks"
ALERTS: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
NAMES = [alert["alert"] for alert in ALERTS]
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("",), "gauge": ("",)}


def metrics() -> dict[str, set[str]]:
    """Series and their labels, from docs/metrics.md, which ``test_docs.py`` holds against the code."""
    row = re.compile(r"^\| `(dreamforge_[a-z_]+)` \| (\w+) \|([^|]*)\|", re.M)
    found = row.findall((ROOT / "docs/metrics.md").read_text(encoding="utf-8"))
    return {
        name + suffix: set(re.findall(r"`(\w+)`", labels))
        for name, kind, labels in found
        for suffix in SUFFIXES[kind]
    }


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_asks_for_series_and_labels_that_exist(alert: dict[str, Any]):
    known = metrics()
    asked = re.findall(r"(dreamforge_[a-z_]+)(?:\{([^}]*)\})?", alert["expr"])
    assert asked
    for name, selector in asked:
        assert name in known
        assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= known[name]
    grouped = {word.strip() for labels in re.findall(r"by \(([^)]*)\)", alert["expr"]) for word in labels.split(",")}
    assert grouped <= set().union(*(known[name] for name, _ in asked))


@pytest.mark.parametrize("alert", ALERTS, ids=NAMES)
def test_an_alert_has_all_its_parts_and_its_page(alert: dict[str, Any]):
    assert alert.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", alert["for"])
    assert alert["labels"]["severity"] in {"info", "warning", "critical"}
    page = (ROOT / alert["annotations"]["runbook"]).read_text(encoding="utf-8")
    assert page.startswith(f"# {alert['alert']}\n")
    assert alert["annotations"]["summary"] in page
    assert re.findall(r"^## (.+)$", page, re.M) == ["Symptom", "Meaning", "What to look at", "How to mend it"]


def test_every_page_belongs_to_an_alert_and_stands_in_the_index():
    pages = {str(path.relative_to(ROOT)) for path in PAGES.glob("*.md")} - {"docs/runbooks/README.md"}
    assert pages == {alert["annotations"]["runbook"] for alert in ALERTS}
    index = (PAGES / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(([\w-]+\.md)\) \| (\w+) \| (.+) \|$", index, re.M)
    expected = [
        (a["alert"], Path(a["annotations"]["runbook"]).name, a["labels"]["severity"], a["annotations"]["summary"])
        for a in ALERTS
    ]
    assert listed == expected


def test_names_are_unique():
    assert len(set(NAMES)) == len(NAMES)


def test_clusters_get_the_same_rules():
    rule = yaml.safe_load(COMPONENT.read_text(encoding="utf-8"))
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    told = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    assert rule["spec"] == told, "the head of the component's file says how it is made"

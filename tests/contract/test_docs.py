"""The pages tell the truth: links lead somewhere, lists are complete, and what is quoted is what is there."""

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dreamforge.errors import FACTS, ErrorCode, Facts
from tests.contract.project import ROOT, pyproject

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
ADRS = sorted((ROOT / "docs/adr").glob("0*.md"))
TREE = (
    "core/",
    "api/",
    "runner-image/",
    "tools/",
    "migrations/",
    "scripts/",
    "tests/",
    "docs/",
    "locks/",
    ".github/",
)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def slugs(text: str) -> set[str]:
    """Anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        resolved = (path.parent / file).resolve() if file else path
        assert resolved.exists(), target
        if anchor:
            assert anchor in slugs(resolved.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(path: Path):
    for name in re.findall(r"`([\w./-]+/[\w./-]+\.\w+)`", path.read_text(encoding="utf-8")):
        if name.startswith(TREE):
            assert (ROOT / name).exists(), name


def test_every_code_package_has_its_row_among_the_concepts():
    table = page("docs/architecture.md").partition("## Where to find it")[2]
    for folder in ("core/dreamforge", "api/dreamforge_api", "runner-image/dreamforge_runner", "tools/dreamforge_cli"):
        inner = {path.parent for path in (ROOT / folder).glob("*/__init__.py")}
        named = {ROOT / name for name in re.findall(r"`([\w./-]+\.py)`", table)}
        lonely = {str(package.relative_to(ROOT)) for package in inner if not any(package in n.parents for n in named)}
        assert lonely == set()


def test_the_import_contracts_have_the_same_names_in_the_architecture_page():
    told = re.findall(r"^- \*\*(.+?)\.\*\*", page("docs/architecture.md"), re.M)
    assert told == [contract["name"] for contract in pyproject()["tool"]["importlinter"]["contracts"]]


def fact_line(facts: Facts) -> str:
    """What the errors page says of a code in its first line."""
    parts = [f"HTTP {facts.http_status}"] if facts.http_status else []
    parts += [f"runner exit {facts.exit_code}"] if facts.exit_code is not None else []
    line = ", ".join([*parts, f"retry: {'yes' if facts.retryable else 'no'}"])
    return f"**{facts.title}.** {line[0].upper()}{line[1:]}."


@pytest.mark.parametrize("code", ErrorCode)
def test_every_error_is_explained_under_its_own_anchor(code: ErrorCode):
    section = re.search(rf"^### {code}\n\n(.+)\n\n(\S.+)$", page("docs/errors.md"), re.M)
    assert section is not None
    assert section[1] == fact_line(FACTS[code])


def test_no_error_is_explained_that_does_not_exist():
    assert set(re.findall(r"^### (\w+)$", page("docs/errors.md"), re.M)) == {code.value for code in ErrorCode}


def test_every_metric_is_told_and_no_other():
    sources = [path for part in ("api", "core", "operator", "runner-image") for path in (ROOT / part).rglob("*.py")]
    quoted = re.compile(r'"(dreamforge_(?!(?:api|operator|runner|cli)")[a-z_]+)"')
    defined = {name for path in sources for name in quoted.findall(path.read_text(encoding="utf-8"))}
    assert set(re.findall(r"^\| `(dreamforge_[a-z_]+)`", page("docs/metrics.md"), re.M)) == defined


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.stem)
def test_a_decision_page_has_its_four_parts_and_its_place_in_the_index(path: Path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.M) == ["Context", "Decision", "Consequences", "Check"]
    assert re.match(rf"# {path.stem[:4] if path.stem[:4] != '0000' else 'NNNN'}\. \S", text)
    assert len(text.splitlines()) <= 60
    assert f"({path.name})" in page("docs/adr/README.md")


def test_decision_pages_are_numbered_without_a_gap():
    assert [int(path.name[:4]) for path in ADRS] == list(range(len(ADRS)))


def test_every_dependency_is_argued_for():
    """Each name in pyproject.toml stands in the table of ADR 0012, or is covered by a word there."""
    project = pyproject()["project"]
    lines = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    table = page("docs/adr/0012-dependencies.md").partition("## Decision")[2].lower()
    covered = {"pytest": "pytest and plugins", "types": "stubs", "boto3-stubs": "stubs"}
    for name in {Requirement(line).name.lower() for line in lines} - {"dreamforge"}:
        word = covered.get(name) or covered.get(name.partition("-")[0]) or name
        assert word in table, name


def test_the_readme_keeps_its_order():
    text = page("README.md")
    marks = ["(docs/images/", "$ make demo", "$ make test", "curl -sS http", "```mermaid", "## Where to read on"]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_documented_paths_are_in_the_openapi_document():
    document = page("docs/openapi/openapi.v1.json")
    for name in ("README.md", "docs/api.md", "docs/events.md"):
        for path in re.findall(r"(?<![\w.])/v1/[a-zA-Z0-9/{}$_-]+", page(name)):
            generic = re.sub(r"/\$?\{?ID\}?|/\$\{id\}|/\{id\}", "/{job_id}", path).rstrip("/")
            generic = generic.replace("/models/sketch", "/models/{model_id}")
            assert f'"{generic}"' in document, path

"""House rules hold over the whole tree, and each rule finds a breach planted in a small one."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.contract.project import ROOT, load_script

guards: ModuleType = load_script("guards")

# rule, file, content: written so that this very file breaches nothing
BREACHES = [
    ("no_registry_host", "docs/install.md", "pip install -i https://" + "py" + "pi.org/simple x\n"),
    ("no_registry_host", "locks/base.txt", "a @ https" + "://mirror.example/a.whl\n"),
    ("no_machine_path", "core/paths.py", '"""Doc."""\nDATA = "' + "/ro" + 'ot/data"\n'),
    ("no_machine_path", "docs/design.md", "see ../sha" + "red/design/architecture.md\n"),
    ("nothing_unfinished", "api/a.py", '"""Doc."""\n# TO' + "DO: later\n"),
    ("ignores_say_why", "api/a.py", '"""Doc."""\nx = 1  # no' + "qa\n"),
    ("ignores_say_why", "api/a.py", '"""Doc."""\nx = 1  # no' + "qa: BLE001\n"),
    ("ignores_say_why", "api/a.py", '"""Doc."""\nx = 1  # type: ig' + "nore\n"),
    ("no_big_file", "docs/film.bin", "x" * (2 * 1024 * 1024 + 1)),
    ("roots_are_no_packages", "operator/__init__.py", ""),
    ("tests_are_packages", "tests/unit/operator/test_plan.py", '"""Doc."""\n'),
    ("no_grab_bag", "api/utils.py", '"""Doc."""\n'),
    ("tests_do_not_sleep", "tests/test_a.py", '"""Doc."""\nimport time\ntime.sleep' + "(0.5)\n"),
    ("tests_share_kits", "tests/test_a.py", '"""Doc."""\nfrom tests.unit.test_b import made\n'),
    ("modules_say_what_they_are", "api/a.py", "x = 1\n"),
    ("environment_is_read_in_settings", "api/a.py", '"""Doc."""\nimport os\nx = os.environ.get("DF_X")\n'),
    ("environment_is_read_in_settings", "api/a.py", '"""Doc."""\nimport os\nx = os.environ["DF_X"]\n'),
    ("environment_is_read_in_settings", "api/a.py", '"""Doc."""\nimport os\nx = os.getenv("DF_X")\n'),
    ("nothing_too_long", "api/a.py", '"""Doc."""\n\n\ndef f():\n' + "    x = 1\n" * 60),
    ("nothing_too_long", "api/a.py", '"""Doc."""\n' + "x = 1\n" * 500),
    ("one_version", "core/dreamforge/__init__.py", '__version__ = "0.0.9"\n'),
]


@pytest.mark.parametrize("rule", guards.GUARDS, ids=lambda rule: rule.__name__)
def test_the_tree_keeps_the_rule(rule):
    assert rule(guards.Tree.of(ROOT)) == []


@pytest.mark.parametrize(("rule", "file", "content"), BREACHES, ids=lambda value: str(value)[:40])
def test_the_rule_finds_a_breach(clean_tree: Path, rule: str, file: str, content: str):
    guard = getattr(guards, rule)
    assert guard(guards.Tree.of(clean_tree)) == []
    (clean_tree / file).parent.mkdir(parents=True, exist_ok=True)
    (clean_tree / file).write_text(content)
    assert guard(guards.Tree.of(clean_tree)) != []


def test_every_rule_has_a_planted_breach():
    assert {rule for rule, _, _ in BREACHES} == {guard.__name__ for guard in guards.GUARDS}


def test_long_things_are_reported_before_they_are_refused(clean_tree: Path):
    (clean_tree / "api").mkdir()
    (clean_tree / "api/a.py").write_text('"""Doc."""\n\n\ndef f():\n' + "    x = 1\n" * 45)
    tree = guards.Tree.of(clean_tree)
    assert [found.where for found in guards.longer_than_liked(tree)] == ["api/a.py:f"]
    assert guards.nothing_too_long(tree) == []


@pytest.fixture
def clean_tree(tmp_path: Path) -> Path:
    """A git tree that keeps every rule."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "core/dreamforge").mkdir(parents=True)
    (tmp_path / "core/dreamforge/__init__.py").write_text('"""Doc."""\n\n__version__ = "1.2.3"\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2026-01-01\n")
    return tmp_path


def test_the_script_says_how_many_rules_it_checked():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/guards.py")], capture_output=True, text=True, check=False, timeout=60
    )
    assert f"guards: {len(guards.GUARDS)} rules over" in done.stdout

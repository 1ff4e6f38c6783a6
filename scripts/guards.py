"""House rules that no linter knows, checked over every file git would carry.

Each guard is a function from a tree to a list of findings, so that ``tests/contract/test_guards.py`` can plant a
breach and see it found. Run as a script, it prints the findings, then what is longer than we like but not too long.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("core", "api", "operator", "runner-image", "tools")

MAX_FILE_BYTES = 2 * 1024 * 1024
MAX_FUNCTION_LINES, LIKED_FUNCTION_LINES = 60, 40
MAX_MODULE_LINES, LIKED_MODULE_LINES = 500, 300

# Brackets keep these patterns from finding themselves.
_HOSTS = re.compile(r"p[y]pi\.org|python[h]osted\.org|proxy\.gola[n]g|registry\.np[m]js|deb\.debia[n]|mave[n]\.org")
_MACHINE_PATHS = re.compile(r"(?<![\w.$}{-])/(?:wor[k]|far[m]|roo[t]|Use[r]s)/\w")
_LEANS_ON = re.compile(r"\bshare[d]/(?:design|reference|seeds|cluster)")
_UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b")
_BARE_IGNORE = re.compile(
    r"#\s*(?:noq[a](?!:\s*[A-Z]+\d)|noq[a]:\s*BLE001(?!\s+[-–]\s+\w)|type:\s*igno[r]e(?!\[[\w, -]+\]))"
)
_LONG_SLEEP = re.compile(r"\bsleep\((?:[1-9]|0?\.[5-9])")


class Tree(NamedTuple):
    """The files git carries or would carry, relative to ``root``."""

    root: Path
    files: tuple[Path, ...]

    @classmethod
    def of(cls, root: Path) -> "Tree":
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        named = (Path(name) for name in listing.split("\0") if name)
        return cls(root, tuple(sorted(path for path in named if (root / path).is_file())))

    def python(self, *below: str) -> Iterator[tuple[Path, str]]:
        """Path and text of each module; only those in the top-level folders ``below``, if any are named."""
        for path in self.files:
            if path.suffix == ".py" and (not below or path.parts[0] in below):
                yield path, (self.root / path).read_text(encoding="utf-8")

    def lines(self) -> Iterator[tuple[Path, int, str]]:
        """Every line of every text file that people write (the locks are written by uv)."""
        for path in self.files:
            data = (self.root / path).read_bytes()
            if b"\0" in data or path.parts[0] == "locks":
                continue
            for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
                yield path, number, line


def _matches(tree: Tree, pattern: re.Pattern[str], what: str, suffixes: tuple[str, ...] = ()) -> list[str]:
    return [
        f"{path}:{number}: {what}: {found.group()}"
        for path, number, line in tree.lines()
        if (not suffixes or path.suffix in suffixes) and (found := pattern.search(line))
    ]


def no_registry_host(tree: Tree) -> list[str]:
    """A mirror must be able to serve every install."""
    return _matches(tree, _HOSTS, "names a package registry") + [
        f"{path}: holds a URL"
        for path in tree.files
        if path.parts[0] == "locks" and "://" in (tree.root / path).read_text(encoding="utf-8")
    ]


def no_machine_path(tree: Tree) -> list[str]:
    """The project stands alone on any machine."""
    return _matches(tree, _MACHINE_PATHS, "absolute path of one machine") + _matches(
        tree, _LEANS_ON, "leans on files outside the project"
    )


def nothing_unfinished(tree: Tree) -> list[str]:
    """What is left to do is an issue, not a comment."""
    return _matches(tree, _UNFINISHED, "unfinished", (".py", ".sh", ".toml", ".mako", ".yml", ".yaml"))


def ignores_say_why(tree: Tree) -> list[str]:
    """An ignore names its code, and a broad ``except`` also its reason."""
    return _matches(tree, _BARE_IGNORE, "ignore without code or reason", (".py",))


def no_big_file(tree: Tree) -> list[str]:
    """Git is no place for weights or videos."""
    sizes = ((path, (tree.root / path).stat().st_size) for path in tree.files)
    return [f"{path}: {size} bytes" for path, size in sizes if size > MAX_FILE_BYTES]


def roots_are_no_packages(tree: Tree) -> list[str]:
    """``operator/__init__.py`` would shadow the standard library's ``operator`` (docs/adr/0004)."""
    return [f"{root}/__init__.py" for root in SOURCE_ROOTS if (tree.root / root / "__init__.py").exists()]


def tests_are_packages(tree: Tree) -> list[str]:
    """All the way down, or two files of one name collide."""
    folders = {folder for path, _ in tree.python("tests") for folder in path.parents if folder != Path()}
    return [
        f"{folder}/__init__.py is missing" for folder in sorted(folders) if folder / "__init__.py" not in tree.files
    ]


def no_grab_bag(tree: Tree) -> list[str]:
    """A module is named after its job."""
    bags = {"utils.py", "util.py", "helpers.py", "common.py", "misc.py"}
    return [f"{path}: name it after what it does" for path in tree.files if path.name in bags]


def tests_do_not_sleep(tree: Tree) -> list[str]:
    """Poll with a deadline instead."""
    return [
        f"{path}:{number}: {line.strip()}"
        for path, text in tree.python("tests")
        for number, line in enumerate(text.splitlines(), 1)
        if _LONG_SLEEP.search(line)
    ]


def tests_share_kits(tree: Tree) -> list[str]:
    """What two test modules need is a module of its own."""
    return [
        f"{path}:{node.lineno}: imports from a test module"
        for path, text in tree.python("tests", "benchmarks")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").rpartition(".")[2].startswith("test_")
    ]


def modules_say_what_they_are(tree: Tree) -> list[str]:
    """Every module begins with a docstring; only an empty ``__init__.py`` has nothing to say."""
    return [str(path) for path, text in tree.python() if text.strip() and ast.get_docstring(ast.parse(text)) is None]


def environment_is_read_in_settings(tree: Tree) -> list[str]:
    """Only settings classes read variables; handing the environment to a child process is fine."""
    return [
        f"{path}:{node.lineno}: reads a variable"
        for path, text in tree.python(*SOURCE_ROOTS)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.expr) and _reads_environment(node)
    ]


def _reads_environment(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="os"), attr="getenv")):
            return True
        case ast.Call(func=ast.Attribute(value=ast.Attribute(value=ast.Name(id="os"), attr="environ"), attr="get")):
            return True
        case ast.Subscript(value=ast.Attribute(value=ast.Name(id="os"), attr="environ"), ctx=ast.Load()):
            return True
    return False


class Length(NamedTuple):
    """How many lines a function or a module has."""

    where: str
    lines: int
    kind: str


def lengths(tree: Tree) -> list[Length]:
    """Of every module and function; migrations are exempt, since a baseline is one long statement list."""
    found: list[Length] = []
    for path, text in tree.python():
        if path.parts[0] == "migrations":
            continue
        found.append(Length(str(path), len(text.splitlines()), "module"))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append(Length(f"{path}:{node.name}", (node.end_lineno or 0) - node.lineno + 1, "function"))
    return found


def nothing_too_long(tree: Tree) -> list[str]:
    """The hard limits; the liked ones are only reported."""
    limit = {"function": MAX_FUNCTION_LINES, "module": MAX_MODULE_LINES}
    return [f"{x.where}: {x.lines} lines in one {x.kind}" for x in lengths(tree) if x.lines > limit[x.kind]]


def longer_than_liked(tree: Tree) -> list[Length]:
    """What a reader should look at first when there is time to simplify."""
    liked = {"function": LIKED_FUNCTION_LINES, "module": LIKED_MODULE_LINES}
    return sorted((x for x in lengths(tree) if x.lines > liked[x.kind]), key=lambda x: -x.lines)


def one_version(tree: Tree) -> list[str]:
    """CHANGELOG, pyproject and the package name the same version."""
    project = tomllib.loads((tree.root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    package = re.search(r'^__version__ = "([^"]+)"', (tree.root / "core/dreamforge/__init__.py").read_text(), re.M)
    changelog = re.search(r"^## \[?(\d[^\]\s]*)", (tree.root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    told = {
        "pyproject.toml": project,
        "dreamforge.__version__": package and package[1],
        "CHANGELOG.md": changelog and changelog[1],
    }
    return [f"{told}"] if len(set(told.values())) > 1 else []


GUARDS: tuple[Callable[[Tree], list[str]], ...] = (
    no_registry_host,
    no_machine_path,
    nothing_unfinished,
    ignores_say_why,
    no_big_file,
    roots_are_no_packages,
    tests_are_packages,
    no_grab_bag,
    tests_do_not_sleep,
    tests_share_kits,
    modules_say_what_they_are,
    environment_is_read_in_settings,
    nothing_too_long,
    one_version,
)


def main() -> int:
    tree = Tree.of(ROOT)
    findings = [f"{guard.__name__}: {finding}" for guard in GUARDS for finding in guard(tree)]
    for length in longer_than_liked(tree):
        print(f"guards: longer than liked: {length.where} ({length.lines} lines)")
    for finding in findings:
        print(f"guards: {finding}")
    print(f"guards: {len(GUARDS)} rules over {len(tree.files)} files, {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())

"""Write ``.env.example`` from the settings classes, so that it can't fall behind them.

    python scripts/env_example.py            write the file
    python scripts/env_example.py --check    exit 1 when it differs (a contract test does the same)

Every line is commented out: a copy named ``.env`` changes nothing until a value is filled in.
"""

import importlib
import pkgutil
import sys
import textwrap
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dreamforge.settings import DfSettings, variable_of

FILE = Path(__file__).resolve().parent.parent / ".env.example"
PACKAGES = ("dreamforge", "dreamforge_api", "dreamforge_operator", "dreamforge_runner", "dreamforge_cli")
# Imports torch, and reads no settings.
HEAVY = "dreamforge_runner.backends.sdxl.engine"

#: A variable stands in the section of the first class that declares it; classes not named here come last, by name.
SECTIONS = {
    "ApiSettings": "API (python -m dreamforge_api)",
    "StorageSettings": "Object store (API, worker, runner)",
    "WorkerSettings": "Worker (python -m dreamforge_api.worker)",
    "MigrateSettings": "Schema (python -m dreamforge_api.migrate)",
    "RunnerSettings": "Runner (python -m dreamforge_runner)",
    "OperatorSettings": "Operator (kopf run -m dreamforge_operator.handlers)",
    "SdxlSettings": "SDXL backend (render child of the runner)",
    "PlanSettings": "SDXL: how fast, and how (docs/performance.md)",
    "UpSettings": "Command line (dreamforge up)",
    "CliSettings": "Command line (dreamforge jobs, dreamforge demo)",
    "ModelSettings": "Models (dreamforge model)",
    "CrashSettings": "Fault tests (never in an installation)",
}

HEADER = """\
# Every setting of every process, written by `make env-example`. Copy to `.env` and fill in what should differ;
# a variable of the environment wins over the file. `dreamforge up` and `make demo` need none of them.
"""


class Variable(NamedTuple):
    """One variable as one settings class declares it."""

    name: str
    owner: str
    field: FieldInfo

    @property
    def default(self) -> str:
        """The default as it would be typed; empty when there is none."""
        value: Any = self.field.default
        if self.field.default_factory is not None:
            value = self.field.get_default(call_default_factory=True, validated_data={})
        if value is None or value is PydanticUndefined:
            return ""
        if isinstance(value, SecretStr):
            return value.get_secret_value()
        if isinstance(value, Enum):
            return str(value.value)
        if isinstance(value, bool):
            return str(value).lower()
        return str(value)


def settings_classes() -> list[type[DfSettings]]:
    """Every settings class of the project, by importing all of it."""
    for package in PACKAGES:
        _import_all(package)
    found: list[type[DfSettings]] = []
    queue = list(DfSettings.__subclasses__())
    while queue:
        cls = queue.pop()
        queue.extend(cls.__subclasses__())
        if cls.__module__.partition(".")[0] in PACKAGES and cls not in found:
            found.append(cls)
    order = list(SECTIONS)
    return sorted(found, key=lambda c: (order.index(c.__name__) if c.__name__ in order else len(order), c.__name__))


def _import_all(package: str) -> None:
    module = importlib.import_module(package)
    for inner in pkgutil.iter_modules(module.__path__, package + "."):
        if inner.name == HEAVY or inner.name.endswith("__main__"):
            continue
        if inner.ispkg:
            _import_all(inner.name)
        else:
            importlib.import_module(inner.name)


def variables() -> Iterator[Variable]:
    """Every field of every class, in the file's order; a name may come more than once."""
    for cls in settings_classes():
        for name, field in cls.model_fields.items():
            yield Variable(variable_of(cls, name), cls.__name__, field)


def text() -> str:
    """The whole file."""
    lines = [HEADER]
    section, seen = None, set()
    for variable in variables():
        if variable.name in seen:
            continue
        seen.add(variable.name)
        title = SECTIONS.get(variable.owner, variable.owner)
        if title != section:
            section = title
            lines.append(f"\n# ---- {title}\n")
        required = " Required." if variable.field.is_required() else ""
        lines += textwrap.wrap(
            f"{variable.field.description}{required}", 112, initial_indent="# ", subsequent_indent="# "
        )
        lines.append(f"#{variable.name}={variable.default}\n")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        same = FILE.exists() and FILE.read_text(encoding="utf-8") == text()
        print(f"{FILE.name}: {'up to date' if same else 'differs from the settings: make env-example'}")
        return 0 if same else 1
    FILE.write_text(text(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Check the settings of every process before any of them starts.

The parts of this project never import each other, so their settings classes are found by module name; a part
that is not installed has no settings to check.
"""

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from types import ModuleType

from dreamforge.settings import DfSettings, load, variable_of

_MODULES = (
    "dreamforge.crashpoints",
    "dreamforge_api.settings",
    "dreamforge_api.worker.settings",
    "dreamforge_runner.settings",
    "dreamforge_runner.backends.sdxl.settings",
)


def check_every_setting(environment: Mapping[str, str]) -> None:
    """Read all settings as the children will; raises ``ConfigurationError`` naming the first wrong variable."""
    for module in _installed():
        for settings in _classes(module):
            fields = {name: environment.get(variable_of(settings, name), "") for name in settings.model_fields}
            load(settings, **{name: value for name, value in fields.items() if value})


def _installed() -> Iterator[ModuleType]:
    for name in _MODULES:
        try:
            found = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        if found:
            yield importlib.import_module(name)


def _classes(module: ModuleType) -> list[type[DfSettings]]:
    found = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, DfSettings)]
    return [value for value in found if value.__module__ == module.__name__]

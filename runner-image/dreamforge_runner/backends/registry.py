"""Which backend renders which kind of model, by dotted name: nothing is imported until a render child needs it.

``DF_RUNNER_PLUGINS`` adds kinds of your own (see ``docs/backends.md``): a JSON object from model kind to
``module:Class``, where the class is a :class:`~dreamforge_runner.backends.base.Backend` that takes no arguments.
"""

import importlib
from collections.abc import Mapping
from typing import cast

from dreamforge.errors import ErrorCode, JobError
from dreamforge.models import ModelKind
from dreamforge_runner.backends.base import Backend

SKETCH_TARGET = "dreamforge_runner.backends.sketch:SketchBackend"
SDXL_TARGET = "dreamforge_runner.backends.sdxl:SdxlBackend"

_BUILT_IN: Mapping[str, str] = {ModelKind.SKETCH.value: SKETCH_TARGET, ModelKind.SDXL_CHECKPOINT.value: SDXL_TARGET}


def target_of(kind: str, plugins: Mapping[str, str]) -> str:
    """The ``module:Class`` that renders models of this kind; built-in kinds can't be taken over."""
    target = _BUILT_IN.get(kind) or plugins.get(kind)
    if target is None:
        raise JobError(ErrorCode.INVALID_INPUT, f"No backend of this runner renders models of kind {kind!r}")
    return target


def name_of(kind: str) -> str:
    """The short name that events carry before the backend itself is imported."""
    return "sdxl" if kind == ModelKind.SDXL_CHECKPOINT.value else kind


def load(target: str) -> Backend:
    """Import and make a backend. Only the render child calls this: the supervisor stays free of torch."""
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
        return cast(Backend, getattr(module, class_name)())
    except (ImportError, AttributeError) as error:
        raise JobError(
            ErrorCode.PROVIDER_ERROR,
            f"The backend {target} can't be imported ({type(error).__name__}); is its extra installed?",
        ) from error

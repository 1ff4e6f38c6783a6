"""torch and diffusers: the one package that imports them, inside the render child only."""

from dreamforge_runner.backends.sdxl.engine.session import Engine

__all__ = ["Engine"]

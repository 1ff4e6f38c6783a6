"""The SDXL backend. ``engine`` is the only package of the project that imports torch and diffusers."""

from dreamforge_runner.backends.sdxl.backend import SdxlBackend

__all__ = ["SdxlBackend"]

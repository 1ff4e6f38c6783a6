"""The function that RQ calls by name (``names.RENDER_FUNCTION``), and who it hands the work to."""

from collections.abc import Callable

_handlers: list[Callable[[str], None]] = []


def install(handler: Callable[[str], None]) -> None:
    """Say who renders in this process; RQ imports functions by name and can't be given an object."""
    _handlers[:] = [handler]


def render(spec_text: str) -> None:
    """Render one :class:`~dreamforge.spec.RenderSpec` given as JSON text."""
    _handlers[0](spec_text)

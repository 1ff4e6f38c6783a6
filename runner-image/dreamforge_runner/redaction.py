"""Keeps prompts out of the log when a library prints a part of one (tokenizers do, on long prompts)."""

from collections.abc import Iterable

_WINDOW = 12


def _plain(text: str) -> str:
    """Letters and digits only, lower case: tokenizers change case and spacing."""
    return "".join(char for char in text.lower() if char.isalnum())


class PromptFilter:
    """Knows the job's texts and recognises a line that repeats a part of them."""

    def __init__(self) -> None:
        self._pieces: frozenset[str] = frozenset()

    def watch(self, texts: Iterable[str]) -> None:
        """The texts that no line may repeat from now on."""
        pieces: set[str] = set()
        for text in map(_plain, texts):
            pieces.update(text[at : at + _WINDOW] for at in range(max(1, len(text) - _WINDOW + 1)) if text)
        self._pieces = frozenset(pieces)

    def clean(self, line: str) -> str:
        """The line itself, or a note in its place."""
        plain, pieces = _plain(line), self._pieces
        if any(plain[at : at + _WINDOW] in pieces for at in range(len(plain) - _WINDOW + 1)):
            return "[a line that repeats the prompt]"
        short = (piece for piece in pieces if 3 < len(piece) < _WINDOW)
        if any(piece in plain for piece in short):
            return "[a line that repeats the prompt]"
        return line

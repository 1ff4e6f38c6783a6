"""What every source of models offers: a reference resolves to files with their hashes, and to nothing else.

Third parties add a source as an entry point of the group ``dreamforge.model_sources``: its name is the scheme
(``hf`` for ``hf:repo``), its value a callable that takes a :class:`SourceContext` and gives a :class:`Source`.
"""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import httpx
from pydantic import SecretStr

from dreamforge.models import FileRole, InsidePath, ModelKind, Provenance
from dreamforge_cli.models.fetch.limits import Limits

ENTRY_POINTS = "dreamforge.model_sources"


@dataclass(frozen=True)
class Credential:
    """A token, and the one origin (``https://host[:port]``) it may be sent to, in the Authorization header."""

    origin: str
    token: SecretStr


@dataclass(frozen=True)
class ResolvedFile:
    """One file to fetch.

    ``url`` is the source's lasting address: it may redirect to a signed one, and is asked again when that expired.
    One of ``sha256`` and ``git_blob`` (SHA-1 of git's blob header and the content, which is all that Hugging Face
    tells of small files) is always there: what nobody vouches for is not fetched.
    """

    path: InsidePath
    role: FileRole
    url: str
    size_bytes: int | None
    sha256: str | None = None
    git_blob: str | None = None
    credential: Credential | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ResolvedModel:
    """What a reference means right now; ``source_uri`` is the reference that gives exactly this again."""

    slug: str
    version: str
    kind: ModelKind
    name: str
    source_uri: str
    provenance: Provenance
    files: tuple[ResolvedFile, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """The small files that tell a pipeline's parts apart, for a checkpoint that comes without them."""

    source_uri: str
    files: tuple[ResolvedFile, ...]


@dataclass(frozen=True)
class SourceContext:
    """What a source is given. ``http`` reaches public hosts only, follows no redirect by itself, and has timeouts."""

    http: httpx.Client
    tokens: dict[str, SecretStr]
    """By the name users know: ``HF_TOKEN``, ``CIVITAI_TOKEN``."""
    endpoints: dict[str, str]
    """Base URLs by scheme: ``hf`` (``HF_ENDPOINT``), ``civitai``."""
    allow_unscanned: bool = False
    limits: Limits = field(default_factory=Limits)
    """How patient to be with a source that doesn't answer."""


class Source(Protocol):
    """An adapter; finding it is all that the scheme is for."""

    def resolve(self, rest: str) -> ResolvedModel:
        """``rest`` is the reference without its scheme. Raises the errors of ``dreamforge_cli.models.errors``."""
        ...


@runtime_checkable
class WithConfiguration(Protocol):
    """A source that also gives a pipeline's configuration without its weights."""

    def configuration(self, rest: str) -> Configuration:
        """Paths are below ``config/``; raises as :meth:`Source.resolve` does."""
        ...

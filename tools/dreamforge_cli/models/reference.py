"""References to models: ``scheme:rest``, and the adapter that knows the scheme.

Adapters are entry points, so that another package adds a source by being installed. A page's address from a browser
is understood where it means exactly one thing.
"""

import re
from collections.abc import Callable
from importlib import metadata
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from dreamforge_cli.models.errors import BadReference, ModelError
from dreamforge_cli.models.sources.base import (
    ENTRY_POINTS,
    Configuration,
    ResolvedModel,
    Source,
    SourceContext,
    WithConfiguration,
)
from dreamforge_cli.models.sources.names import words

_LONGEST = 512
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")
_FORMS = "hf:owner/repository[@revision][#file] or civitai:model[@version]"
_HUGGINGFACE = {"huggingface.co", "www.huggingface.co", "hf.co"}
_CIVITAI = {"civitai.com", "www.civitai.com", "civitai.red"}


def resolve(text: str, context: SourceContext) -> ResolvedModel:
    """What a reference means right now. Raises the errors of ``dreamforge_cli.models.errors``."""
    scheme, rest = split(text)
    return _source(scheme, context).resolve(rest)


def configuration(text: str, context: SourceContext) -> Configuration:
    """The configuration and tokenizers of the pipeline that a reference names, without any weights."""
    scheme, rest = split(text)
    source = _source(scheme, context)
    if not isinstance(source, WithConfiguration):
        raise BadReference(f"{scheme}: references hold no configuration of a pipeline; name a repository with hf:")
    return source.configuration(rest)


def split(text: str) -> tuple[str, str]:
    """Scheme and rest, of a reference or of an address copied from a browser."""
    text = text.strip(" ")
    if not text or len(text) > _LONGEST or not text.isprintable():
        raise BadReference(f"that is no reference to a model: it is written {_FORMS}")
    scheme, colon, rest = text.partition(":")
    if not colon or not _SCHEME.fullmatch(scheme.lower()):
        raise BadReference(f"{words(text)} names no source: write {_FORMS}")
    scheme = scheme.lower()
    if scheme in ("http", "https"):
        return _from_address(text)
    if scheme == "file":
        raise BadReference("a checkpoint that is on this disk is registered with `dreamforge model adopt FILE`")
    return scheme, rest


def schemes() -> list[str]:
    """What references may start with here."""
    return sorted({entry.name for entry in metadata.entry_points(group=ENTRY_POINTS)})


def _source(scheme: str, context: SourceContext) -> Source:
    found = list(metadata.entry_points(group=ENTRY_POINTS, name=scheme))
    if not found:
        raise BadReference(f"no source is called {words(scheme)!r}; there are: {', '.join(schemes()) or 'none'}")
    if len({entry.value for entry in found}) > 1:
        raise ModelError(f"two packages want to be the source {scheme!r}: {', '.join(e.value for e in found)}")
    try:
        make: Callable[[SourceContext], Source] = found[0].load()
    except Exception as error:  # a package of somebody else's can raise anything
        raise ModelError(f"the source {scheme!r} ({found[0].value}) can't be loaded: {error}") from error
    return make(context)


def _from_address(text: str) -> tuple[str, str]:
    """The reference that an address in a browser stands for; tokens in it are left behind."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise BadReference(f"that is no address of a model: write {_FORMS}") from None
    host = (url.hostname or "").lower()
    if url.username is not None or url.password is not None or port not in (None, 443):
        raise BadReference(f"an address with a user name or a port is no reference: write {_FORMS}")
    parts = [unquote(part) for part in url.path.split("/") if part]
    found = None
    if host in _HUGGINGFACE:
        found = _huggingface(parts)
    elif host in _CIVITAI:
        found = _civitai(parts, url)
    if found is None:
        raise BadReference(f"{words(host) or 'this'} is not a page of one model that is known here: write {_FORMS}")
    return found


def _huggingface(parts: list[str]) -> tuple[str, str] | None:
    match parts:
        case [owner, name] if owner not in ("datasets", "spaces", "api", "docs", "models"):
            return "hf", f"{owner}/{name}"
        case [owner, name, "tree", revision]:
            return "hf", f"{owner}/{name}@{revision}"
        case [owner, name, "blob" | "resolve" | "raw", revision, *path] if path:
            return "hf", f"{owner}/{name}@{revision}#{'/'.join(path)}"
        case _:
            return None


def _civitai(parts: list[str], url: SplitResult) -> tuple[str, str] | None:
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    match parts:
        case ["models", number, *_] if number.isdecimal():
            version = query.get("modelVersionId", "")
            return "civitai", number + (f"@{version}" if version.isdecimal() else "")
        case ["api", "download", "models", version] if version.isdecimal():
            file = query.get("fileId", "")
            return "civitai", f"@{version}" + (f"#{file}" if file.isdecimal() else "")
        case _:
            return None

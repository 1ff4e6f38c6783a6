"""``hf:<repository>[@<revision>][#<file|pattern>]``, also ``hf://``: one checkpoint of a repository on Hugging Face.

The reference resolves to a commit, and everything is fetched at that commit. Weights come with LFS's sha256, small
files with git's blob id. Only ``.safetensors`` checkpoints and what configures an SDXL pipeline are fetched.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from urllib.parse import quote

from dreamforge.models import FileRole, ModelKind, Provenance, sdxl_slug
from dreamforge.models_root import CONFIG_FOLDER
from dreamforge_cli.models.errors import BadReference, IntegrityError, NotAllowed
from dreamforge_cli.models.sources import names
from dreamforge_cli.models.sources.base import Configuration, ResolvedFile, ResolvedModel, SourceContext
from dreamforge_cli.models.sources.hub import REPOSITORY, Hub, Listed, Repository

_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*(?:/[A-Za-z0-9][A-Za-z0-9._+-]*)*")
_URI_REVISION = re.compile(r"(refs/(?:pr|convert)/[^/]+|[^/]+)(?:/(.*))?", re.S)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_INDEX = "model_index.json"
_TOKENIZER = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
#: The whole configuration of an SDXL pipeline; a repository's other files are none of a runner's business.
_CONFIG = frozenset(
    [_INDEX, "scheduler/scheduler_config.json"]
    + [f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")]
    + [f"{part}/{file}" for part in ("tokenizer", "tokenizer_2") for file in _TOKENIZER]
)
_MAX_CONFIG_BYTES = 16 * 2**20
#: Folders of a pipeline's parts: their weights are parts, no checkpoint.
_PARTS = re.compile(r"(?:unet|transformer|vae|text_encoder|image_encoder|safety_checker|controlnet)[a-z0-9_]*")
_MOST_LISTED = 12


@dataclass(frozen=True)
class Asked:
    """A reference, taken apart."""

    repository: str
    revision: str | None = None
    file: str | None = None


class HuggingFace:
    """The source ``hf``."""

    def __init__(self, context: SourceContext) -> None:
        self._hub = Hub(context)

    def resolve(self, rest: str) -> ResolvedModel:
        """The checkpoint, and the configuration when the repository has all of it."""
        asked = parse(rest)
        found = self._repository(asked)
        chosen = choose(found, asked.file)
        if chosen.lfs is None:
            raise NotAllowed(f"{found.id} tells no sha256 of {names.words(chosen.rfilename)} (it is not in LFS)")
        self._check_access(found)
        path = names.file_name(chosen.rfilename)
        name = name_of(found, chosen.rfilename)
        provenance = Provenance(
            source="hf",
            ref=f"hf:{rest}",
            revision=asked.revision or "main",
            commit=found.sha,
            ids={"repository": found.id, "file": names.words(chosen.rfilename)},
            page=f"{self._hub.endpoint}/{found.id}",
            license=found.license,
        )
        return ResolvedModel(
            slug=sdxl_slug(name),
            version=found.sha[:12],
            kind=ModelKind.SDXL_CHECKPOINT,
            name=name,
            source_uri=f"hf:{found.id}@{found.sha}#{chosen.rfilename}",
            provenance=provenance,
            files=(self._file(found, chosen, path, FileRole.CHECKPOINT), *self._configuration(found)),
        )

    def configuration(self, rest: str) -> Configuration:
        """The configuration alone; a repository that lacks part of it is no answer."""
        asked = parse(rest)
        found = self._repository(asked)
        self._check_access(found)
        files = self._configuration(found)
        if not files:
            raise BadReference(
                f"{found.id} holds no whole configuration of an SDXL pipeline ({_INDEX} and its parts)"
            )
        return Configuration(f"hf:{found.id}@{found.sha}", files)

    def _repository(self, asked: Asked) -> Repository:
        found = self._hub.repository(asked.repository, asked.revision)
        if asked.revision and _COMMIT.fullmatch(asked.revision) and found.sha != asked.revision:
            raise IntegrityError(f"{found.id}: commit {asked.revision} was asked for, {found.sha} was answered")
        return found

    def _check_access(self, found: Repository) -> None:
        if found.gated:
            self._hub.check_access(found.id)

    def _configuration(self, found: Repository) -> tuple[ResolvedFile, ...]:
        listed = {file.rfilename: file for file in found.siblings if file.rfilename in _CONFIG}
        if not complete(listed):
            return ()
        large = [path for path, file in listed.items() if (file.size or 0) > _MAX_CONFIG_BYTES]
        if large:
            raise NotAllowed(f"{found.id}: {large[0]} is too large for a configuration")
        return tuple(
            self._file(found, file, f"{CONFIG_FOLDER}/{path}", FileRole.CONFIG)
            for path, file in sorted(listed.items())
        )

    def _file(self, found: Repository, file: Listed, path: str, role: FileRole) -> ResolvedFile:
        if file.lfs is None and file.blob_id is None:
            raise IntegrityError(f"{found.id} tells no hash of {names.words(file.rfilename)}")
        return ResolvedFile(
            path=path,
            role=role,
            url=f"{self._hub.endpoint}/{found.id}/resolve/{found.sha}/{quote(file.rfilename)}",
            size_bytes=file.size if file.lfs is None else file.lfs.size,
            sha256=None if file.lfs is None else file.lfs.sha256,
            git_blob=file.blob_id if file.lfs is None else None,
            credential=self._hub.credential,
        )


def parse(rest: str) -> Asked:
    """Take ``owner/name[@revision][#file]`` apart, or Hugging Face's own ``//owner/name[@revision][/file]``."""
    if rest.startswith("//"):
        return _parse_uri(rest[2:])
    head, _, file = rest.partition("#")
    if "#" in rest and not file:
        raise BadReference("the # of the reference names no file")
    repository, at, revision = head.partition("@")
    return _checked(repository, revision if at else None, file or None)


def _parse_uri(body: str) -> Asked:
    """Its revision may hold slashes only as ``refs/pr/1`` or ``refs/convert/x``, as in their own parser."""
    body = body.removeprefix("models/")
    if "#" in body:
        return parse(body)
    if "@" in body:
        repository, _, rest = body.partition("@")
        match = _URI_REVISION.fullmatch(rest)
        revision, file = match.groups() if match else ("", None)
        return _checked(repository, revision, file or None)
    parts = body.split("/", 2)
    return _checked("/".join(parts[:2]), None, (parts[2] if len(parts) > 2 else "") or None)


def _checked(repository: str, revision: str | None, file: str | None) -> Asked:
    if not REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise BadReference(f"{names.words(repository) or 'nothing'} is no repository: write hf:owner/name")
    if revision is not None and (len(revision) > 200 or not _REVISION.fullmatch(revision) or ".." in revision):
        raise BadReference(f"{names.words(revision) or 'nothing'} is no revision: a branch, a tag or a commit")
    if file is not None and (file.startswith("/") or ".." in file.split("/") or "\\" in file):
        raise BadReference(f"{names.words(file)} is no file of a repository")
    return Asked(repository, revision, file)


def choose(found: Repository, wanted: str | None) -> Listed:
    """The one checkpoint that is meant; raises with what there is to choose from."""
    by_name = {file.rfilename: file for file in found.siblings}
    if wanted is not None and wanted in by_name:
        if (refusal := names.refused_format(wanted)) is not None:
            raise NotAllowed(f"{refusal}; only {names.SAFETENSORS} checkpoints are fetched")
        return by_name[wanted]
    matching = [file for file in found.siblings if wanted is None or _matches(file.rfilename, wanted)]
    usable = [file for file in matching if names.refused_format(file.rfilename) is None]
    # A part of a pipeline is no checkpoint, unless somebody names it; what it holds is looked at later.
    candidates = [file for file in usable if not _is_part(file.rfilename)] or (usable if wanted else [])
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        shown = _shown(candidates)
        raise BadReference(f"{found.id} has {len(candidates)} checkpoints that fit; add one of these: {shown}")
    raise _none(found, matching, wanted)


def _none(found: Repository, matching: list[Listed], wanted: str | None) -> Exception:
    refused = [file for file in matching if names.refused_format(file.rfilename) and not _is_part(file.rfilename)]
    pickles = [file for file in refused if "run code" in (names.refused_format(file.rfilename) or "")]
    if pickles:
        return NotAllowed(
            f"{found.id}: {names.refused_format(pickles[0].rfilename)}, and there is no other checkpoint"
        )
    what = "no single-file checkpoint" if wanted is None else f"no checkpoint {names.words(wanted)}"
    others = [f for f in found.siblings if names.refused_format(f.rfilename) is None and not _is_part(f.rfilename)]
    hint = f"; there is: {_shown(others)}" if others else " (*.safetensors that holds a whole model)"
    return BadReference(f"{found.id} has {what}{hint}")


def _matches(path: str, pattern: str) -> bool:
    """The pattern matches the whole path, or a pattern without a slash the last part."""
    return fnmatchcase(path, pattern) or ("/" not in pattern and fnmatchcase(PurePosixPath(path).name, pattern))


def _is_part(path: str) -> bool:
    return any(_PARTS.fullmatch(folder) for folder in path.split("/")[:-1])


def _shown(files: Iterable[Listed]) -> str:
    listed = [f"#{names.words(file.rfilename)} ({(file.size or 0) / 2**30:.1f} GiB)" for file in files]
    more = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    return ", ".join(listed[:_MOST_LISTED]) + more


def complete(paths: Iterable[str]) -> bool:
    """Whether these files configure a whole SDXL pipeline."""
    there = set(paths)
    needed = {path for path in _CONFIG if "tokenizer" not in path}
    tokenizers = all(
        f"{part}/tokenizer.json" in there or {f"{part}/vocab.json", f"{part}/merges.txt"} <= there
        for part in ("tokenizer", "tokenizer_2")
    )
    return needed <= there and tokenizers


def name_of(found: Repository, path: str) -> str:
    """For people, and for the slug: the repository's when it has one checkpoint, else the file's; never ambiguous."""
    weights = [file.rfilename for file in found.siblings if names.refused_format(file.rfilename) is None]
    own = found.id.split("/")[1]
    if [other for other in weights if not _is_part(other)] == [path]:
        return own
    stem = PurePosixPath(path).stem
    alike = [other for other in weights if PurePosixPath(other).stem == stem]
    return stem if len(alike) == 1 else f"{own} {path.removesuffix(names.SAFETENSORS)}"

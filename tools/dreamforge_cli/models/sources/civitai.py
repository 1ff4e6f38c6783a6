"""``civitai:<model, version or slug>[@<version>][#<file>]``: one checkpoint of CivitAI.

A number is a model's id, else a version's. Only safetensors checkpoints of the SDXL family are fetched, only with a
SHA256, and only when both of CivitAI's scans came out clean.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dreamforge.models import FileRole, ModelKind, Provenance, plain, sdxl_slug
from dreamforge_cli.models.errors import BadReference, IntegrityError, ModelError, NetworkError, NotAllowed
from dreamforge_cli.models.fetch.redirects import REDIRECTS
from dreamforge_cli.models.sources import names
from dreamforge_cli.models.sources.asking import Answer, ask
from dreamforge_cli.models.sources.base import Credential, ResolvedFile, ResolvedModel, SourceContext
from dreamforge_cli.models.sources.civitai_api import File, Model, Search, Version
from dreamforge_cli.models.sources.civitai_rules import check_file, check_model, choose, pick_version, version_name

_LARGEST_ID = 2**31 - 1
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION_NAME = re.compile(r"[^#@/\\?&%]{1,100}")
_MOST_LISTED = 12
_Shape = TypeVar("_Shape", bound=BaseModel)


@dataclass(frozen=True)
class Asked:
    """A reference, taken apart; ``main`` is empty when only a version was named (``civitai:@123``)."""

    main: str
    version: str | None = None
    file: str | None = None


class CivitAI:
    """The source ``civitai``."""

    def __init__(self, context: SourceContext) -> None:
        self._context = context
        self._endpoint = context.endpoints["civitai"]
        token = context.tokens.get("CIVITAI_TOKEN")
        self._credential = None if token is None else Credential(self._endpoint, token)

    def resolve(self, rest: str) -> ResolvedModel:
        """The file, after everything that the API tells of it was looked at."""
        asked = parse(rest)
        model, version = self._find(asked)
        check_model(model, version, datetime.now(UTC), with_token=self._credential is not None)
        file = choose(model, version, asked.file)
        warnings = check_file(file, allow_unscanned=self._context.allow_unscanned)
        url = f"{self._endpoint}/api/download/models/{version.id}?fileId={file.id}"
        self._check_download(url, model)
        return self._resolved(rest, model, version, file, url, warnings)

    def _resolved(
        self, rest: str, model: Model, version: Version, file: File, url: str, warnings: tuple[str, ...]
    ) -> ResolvedModel:
        name = f"{names.words(model.name)} {names.words(version.name, 60)}".strip()
        provenance = Provenance(
            source="civitai",
            ref=f"civitai:{rest}",
            revision=names.words(version.name),
            ids={"model": str(model.id), "version": str(version.id), "file": str(file.id)},
            page=f"{self._endpoint}/models/{model.id}?modelVersionId={version.id}",
            license=model.license,
        )
        resolved = ResolvedFile(
            path=names.file_name(file.name),
            role=FileRole.CHECKPOINT,
            url=url,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            credential=self._credential,
        )
        return ResolvedModel(
            slug=sdxl_slug(model.name),
            version=version_name(version, file),
            kind=ModelKind.SDXL_CHECKPOINT,
            name=name,
            source_uri=f"civitai:{model.id}@{version.id}#{file.id}",
            provenance=provenance,
            files=(resolved,),
            warnings=warnings,
        )

    def _find(self, asked: Asked) -> tuple[Model, Version]:
        if not asked.main.isdecimal() and asked.main:
            model = self._by_slug(asked.main)
            return model, pick_version(model, asked.version)
        if asked.main:
            answer = self._ask(f"models/{asked.main}")
            if answer.status != 404:
                model = shaped(Model, _good(answer, f"model {asked.main}"))
                return model, pick_version(model, asked.version)
            if asked.version is not None:
                raise BadReference(f"CivitAI shows no model {asked.main} {self._here}")
        return self._by_version(asked.main or str(asked.version))

    def _by_version(self, number: str) -> tuple[Model, Version]:
        answer = self._ask(f"model-versions/{number}")
        if answer.status == 404:
            raise BadReference(f"CivitAI shows neither a model nor a version {number} {self._here}")
        version = shaped(Version, _good(answer, f"version {number}"))
        if version.model_id is None:
            raise IntegrityError(f"CivitAI does not say which model version {number} belongs to")
        model = shaped(Model, _good(self._ask(f"models/{version.model_id}"), f"model {version.model_id}"))
        return model, pick_version(model, str(version.id))

    def _by_slug(self, slug: str) -> Model:
        words = plain(slug).replace("-", " ").replace(".", " ")
        answer = self._ask("models", {"query": words, "types": "Checkpoint", "limit": "20"})
        found = shaped(Search, _good(answer, "its search")).items
        exact = [model for model in found if plain(model.name) == plain(slug)]
        if len(exact) == 1:
            return shaped(Model, _good(self._ask(f"models/{exact[0].id}"), f"model {exact[0].id}"))
        near = exact or found
        listed = ", ".join(f"civitai:{model.id} ({names.words(model.name, 60)})" for model in near[:_MOST_LISTED])
        what = "more than one checkpoint" if exact else "no checkpoint"
        raise BadReference(f"CivitAI has {what} called {slug}" + (f"; name one by its id: {listed}" if near else ""))

    @property
    def _here(self) -> str:
        """Where was looked: the site shows models for adults at another address than the others."""
        return f"at {self._endpoint} (DF_CIVITAI_ENDPOINT=https://civitai.red is where it shows those for adults)"

    def _check_download(self, url: str, model: Model) -> None:
        """Ask for the file and leave it at the redirect: a refusal is known before anything else is fetched."""
        answer = self._ask_url(url, follow=False)
        if answer.status in REDIRECTS or answer.status == 200:
            return
        raise refusal(answer, model, with_token=self._credential is not None)

    def _ask(self, path: str, query: dict[str, str] | None = None) -> Answer:
        tail = "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in (query or {}).items())
        return self._ask_url(f"{self._endpoint}/api/v1/{path}" + (f"?{tail}" if tail else ""))

    def _ask_url(self, url: str, *, follow: bool = True) -> Answer:
        # JSON in both directions: without it a refusal may be a redirect to a page for people.
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        return ask(
            self._context.http, url, self._credential, follow=follow, headers=headers, limits=self._context.limits
        )


def parse(rest: str) -> Asked:
    """Take ``main[@version][#file]`` apart."""
    head, hash_, file = rest.removeprefix("//").partition("#")
    main, at, version = head.partition("@")
    if (hash_ and not file) or (at and not version) or not (main or at):
        raise BadReference("write civitai:model[@version][#file]; a part of it is empty")
    if main.lstrip("-").isdecimal():
        _check_id(main)
    elif main and not _SLUG.fullmatch(main):
        raise BadReference(
            f"{names.words(main)} is neither an id nor a name of CivitAI: take it from the page's address"
        )
    if at and (not _VERSION_NAME.fullmatch(version) or (not main and not version.isdecimal())):
        raise BadReference(f"{names.words(version)} is no version: an id, or its name on the page")
    if version.isdecimal():
        _check_id(version)
    if len(file) > 200 or "/" in file or "\\" in file or file.startswith("."):
        raise BadReference(f"{names.words(file)} is no file: its id, its name, or a pattern")
    return Asked(main, version or None, file or None)


def _check_id(text: str) -> None:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:20]) <= _LARGEST_ID:
        raise BadReference(f"{names.words(text, 40)} is no id of CivitAI")


def refusal(answer: Answer, model: Model, *, with_token: bool) -> ModelError:
    """What to raise for a download that CivitAI refuses, with what to do about it."""
    told = _told(answer)
    if answer.status == 401 and with_token:
        return NotAllowed(f"CivitAI refuses CIVITAI_TOKEN for {model.shown}: {told or 'wrong or revoked'}")
    if answer.status == 401:
        return NotAllowed(
            f"CivitAI wants a login for {model.shown}{f' ({told})' * bool(told)}: make an API key in the account's "
            "settings and set CIVITAI_TOKEN"
        )
    if answer.status == 403:
        reason = told or "it does not say why: early access, or a place of the world that it does not serve?"
        return NotAllowed(f"CivitAI gives no access to {model.shown}: {reason}")
    if answer.status == 410:
        return NotAllowed(f"{model.shown} is archived: {told or 'CivitAI does not give it out any more'}")
    if answer.status == 404:
        return BadReference(f"CivitAI does not have the file of {model.shown} any more")
    return NetworkError(f"CivitAI answers {answer.status} to a download of {model.shown}")


def _good(answer: Answer, what: str) -> Any:
    if answer.status == 200:
        return answer.json()
    if answer.status in (400, 404):
        raise BadReference(f"CivitAI has no {what}")
    if answer.status in (401, 403, 410, 451):
        told = _told(answer)
        raise NotAllowed(f"CivitAI does not show {what} ({answer.status}){f': {told}' * bool(told)}")
    raise NetworkError(f"CivitAI answers {answer.status} for {what}")


def _told(answer: Answer) -> str:
    """The words of a refusal, if it is one of the API; its deadline too."""
    try:
        value = answer.json()
    except NetworkError:
        return ""
    if not isinstance(value, dict):
        return ""
    deadline = f"until {value['deadline']}" if "deadline" in value else ""
    return names.words(
        "; ".join(str(part) for part in (value.get("message") or value.get("error"), deadline) if part)
    )


def shaped(shape: type[_Shape], value: Any) -> _Shape:
    """An answer in its form; raises when it is not."""
    try:
        return shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise IntegrityError(f"CivitAI's answer is not in its form: {names.words(where)}: {first['msg']}") from None

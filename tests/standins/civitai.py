"""CivitAI on loopback: models, versions, search, and the download address with its redirect and its refusals.

Shapes as its public source has them (release 5.0 of August 2026): an archived model lists no files, a download needs
a login when its creator says so, early access is a 403 with its deadline, and browsers are sent to pages.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

from tests.standins.faults import Fault, Faults, Place
from tests.standins.store import Content, Store, instead
from tests.standins.web import Exchange, Site

SUCCESS = "Success"


@dataclass
class File:
    """One file of a version."""

    id: int
    name: str
    content: Content
    type: str = "Model"
    format: str = "SafeTensor"
    size: str | None = "pruned"
    fp: str | None = "fp16"
    pickle_scan: str = SUCCESS
    virus_scan: str = SUCCESS
    scan_message: str | None = None
    primary: bool = False
    #: The hashes that are told; a test takes SHA256 away or tells another.
    hashes: dict[str, str] | None = None

    def told_hashes(self) -> dict[str, str]:
        """In upper case, as the original tells them."""
        sha256 = self.content.sha256.upper()
        return {"AutoV2": sha256[:10], "SHA256": sha256, "CRC32": "0A1B2C3D"} if self.hashes is None else self.hashes


@dataclass
class Version:
    """A version of a model."""

    id: int
    name: str
    files: list[File]
    base_model: str = "SDXL 1.0"
    status: str = "Published"
    early_access_until: str | None = None
    needs_login: bool = False
    downloads_disabled: bool = False
    download: bool = True


@dataclass
class Model:
    """A model and its published versions, newest first."""

    id: int
    name: str
    versions: list[Version]
    type: str = "Checkpoint"
    mode: str | None = None
    creator: str = "somebody"
    commercial: list[str] = field(default_factory=lambda: ["Image"])


class CivitAI:
    """The site and its store; ``tokens`` are those it knows."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.store = Store(self.faults)
        self.site = Site(self._answer)
        self.tokens: set[str] = set()
        self.supporters: set[str] = set()
        self.url_seconds: float = 3600
        self._models: dict[int, Model] = {}

    @property
    def url(self) -> str:
        """Its base address."""
        return self.site.url

    @property
    def authorities(self) -> list[str]:
        """The hosts to allow."""
        return [self.site.authority, self.store.site.authority]

    def add(self, model: Model) -> Model:
        """Publish a model."""
        self._models[model.id] = model
        for version in model.versions:
            for file in version.files:
                self.store.put(f"model/{version.id}/{file.id}", file.content)
        return model

    def add_checkpoint(
        self, model: int, version: int, name: str, data: bytes | Content, version_name: str = "v1.0"
    ) -> Model:
        """A model with one version and one file, as most are; its file's id is the version's."""
        content = data if isinstance(data, Content) else Content(data)
        file_name = f"{re.sub(r'[^A-Za-z0-9]', '', name)}_{version_name.replace('.', '')}.safetensors"
        file = File(version, file_name, content, primary=True)
        return self.add(Model(model, name, [Version(version, version_name, [file])]))

    def fault(self, place: Place, version: int, file: int, fault: Fault) -> None:
        """Make the answers for a file wrong; at the front the file 0 is the API of the version."""
        key = f"{version}/{file}" if place is Place.FRONT else f"model/{version}/{file}"
        self.faults.set(place, key, fault)

    def close(self) -> None:
        """Stop both."""
        try:
            self.site.close()
        finally:
            self.store.close()

    def _answer(self, ask: Exchange) -> None:
        match ask.parts:
            case ["api", "v1", "models"]:
                self._search(ask)
            case ["api", "v1", "models", number]:
                self._model(ask, number)
            case ["api", "v1", "model-versions", "by-hash", digest]:
                self._by_hash(ask, digest)
            case ["api", "v1", "model-versions", number]:
                self._version(ask, number)
            case ["api", "download", "models", number]:
                self._download(ask, number)
            case _:
                ask.html(404, "Civitai")

    def _all(self) -> list[tuple[Model, Version]]:
        return [(model, version) for model in self._models.values() for version in model.versions]

    def _search(self, ask: Exchange) -> None:
        words = ask.query.get("query", "").lower().split()
        kinds = ask.query.get("types")
        found = [
            self._shown(model)
            for model in self._models.values()
            if all(word in model.name.lower() for word in words) and kinds in (None, model.type)
        ]
        limit = int(ask.query.get("limit", "100"))
        ask.json(200, {"items": found[:limit], "metadata": {"pageSize": limit}})

    def _model(self, ask: Exchange, number: str) -> None:
        if not number.isdecimal() or not 0 < int(number) <= 2**31 - 1:
            ask.json(400, {"error": "Invalid id"})
            return
        model = self._models.get(int(number))
        if model is None:
            ask.json(404, {"error": f"No model with id {number}"})
            return
        if instead(ask, self.faults.next(Place.FRONT, f"model/{number}", counts=True)):
            return
        ask.json(200, self._shown(model))

    def _version(self, ask: Exchange, number: str) -> None:
        if instead(ask, self.faults.next(Place.FRONT, f"{number}/0", counts=True)):
            return
        for model, version in self._all():
            if str(version.id) == number and version.status == "Published":
                ask.json(200, self._shown_version(model, version, alone=True))
                return
        ask.json(404, {"error": "Model not found"})

    def _by_hash(self, ask: Exchange, digest: str) -> None:
        for model, version in self._all():
            for file in version.files:
                if digest.upper() in {value.upper() for value in file.told_hashes().values()}:
                    ask.json(200, self._shown_version(model, version, alone=True))
                    return
        ask.json(404, {"error": "Model not found"})

    def _download(self, ask: Exchange, number: str) -> None:
        found = next(((m, v) for m, v in self._all() if str(v.id) == number), None)
        file = None if found is None else _chosen(found[1], ask.query)
        counts = ask.command == "GET"
        if file is not None and instead(ask, self.faults.next(Place.FRONT, f"{number}/{file.id}", counts=counts)):
            return
        if found is None or file is None:
            ask.json(404, {"error": "Model not found" if found is None else "File not found"})
            return
        model, version = found
        token = ask.bearer or ask.query.get("token")
        if "Mozilla" in ask.headers.get("user-agent", "") and version.needs_login and token is None:
            ask.redirect(307, f"{self.url}/login?returnUrl=/models/{model.id}&reason=download-auth")
        elif (refusal := self._refusal(model, version, token)) is not None:
            status, body = refusal
            ask.json(status, body)
        else:
            location = self.store.sign(f"model/{version.id}/{file.id}", file.name, self.url_seconds)
            ask.redirect(307, location, {"Cache-Control": "no-store"})

    def _refusal(self, model: Model, version: Version, token: str | None) -> tuple[int, dict[str, Any]] | None:
        known = token in self.tokens | self.supporters  # a token that is not known is nobody's, as none at all
        if model.mode == "Archived":
            return 410, {"error": "Model archived, not available for download"}
        if version.early_access_until is not None and token not in self.supporters:
            text = "This asset is in Early Access. You can use Buzz access it now!"
            return 403, {"error": "Early Access", "deadline": version.early_access_until, "message": text}
        if version.needs_login and not known:
            text = "The creator of this asset requires you to be logged in to download it"
            return 401, {"error": "Unauthorized", "message": text}
        if version.downloads_disabled:
            text = "The creator of this asset has disabled downloads on this file"
            return 401, {"error": "Unauthorized", "message": text}
        return None

    def _shown(self, model: Model) -> dict[str, Any]:
        shown = {
            "id": model.id,
            "name": model.name,
            "type": model.type,
            "nsfw": False,
            "poi": False,
            "allowCommercialUse": model.commercial,
            "allowNoCredit": True,
            "allowDerivatives": True,
            "mode": model.mode,
            "creator": {"username": model.creator, "image": None},
            "tags": ["base model"],
            "modelVersions": [
                self._shown_version(model, version, alone=False)
                for version in model.versions
                if version.status == "Published"
            ],
        }
        return {name: value for name, value in shown.items() if value is not None}

    def _shown_version(self, model: Model, version: Version, *, alone: bool) -> dict[str, Any]:
        archived = model.mode == "Archived"
        shown: dict[str, Any] = {
            "id": version.id,
            "name": version.name,
            "baseModel": version.base_model,
            "baseModelType": "Standard",
            "air": f"urn:air:sdxl:checkpoint:civitai:{model.id}@{version.id}",
            "status": version.status,
            "nsfwLevel": 1,
            "createdAt": "2026-01-01T10:00:00.000Z",
            "updatedAt": "2026-01-02T10:00:00.000Z",
            "publishedAt": "2026-01-02T10:00:00.000Z",
            "trainedWords": [],
            "uploadType": "Created",
            "usageControl": "Download" if version.download else "InternalGeneration",
            "description": None,
            "earlyAccessEndsAt": version.early_access_until,
            "stats": {"downloadCount": 1, "thumbsUpCount": 1},
            "files": [] if archived else [self._shown_file(version, file) for file in version.files],
            "images": [],
        }
        if not archived:
            shown["downloadUrl"] = f"{self.url}/api/download/models/{version.id}"
        if alone:
            mode = {} if model.mode is None else {"mode": model.mode}
            shown |= {"modelId": model.id}
            shown["model"] = {"name": model.name, "type": model.type, "nsfw": False, "poi": False} | mode
        return shown

    def _shown_file(self, version: Version, file: File) -> dict[str, Any]:
        shown = {
            "id": file.id,
            "sizeKB": file.content.size / 1024,
            "name": file.name,
            "type": file.type,
            "pickleScanResult": file.pickle_scan,
            "pickleScanMessage": file.scan_message,
            "virusScanResult": file.virus_scan,
            "virusScanMessage": None,
            "scannedAt": "2026-01-02T10:00:00.000Z",
            "metadata": {"format": file.format, "size": file.size, "fp": file.fp},
            "hashes": file.told_hashes(),
            "downloadUrl": f"{self.url}/api/download/models/{version.id}?fileId={file.id}",
        }
        return shown | ({"primary": True} if file.primary else {})


def _chosen(version: Version, query: dict[str, str]) -> File | None:
    files = [file for file in version.files if query.get("fileId") in (None, str(file.id))]
    for name in ("type", "format", "size", "fp"):
        files = [file for file in files if query.get(name) in (None, getattr(file, name))]
    return next((file for file in files if file.primary), files[0] if files else None)


def unscanned(file: File, result: str = "Pending", message: str | None = None) -> File:
    """The same file with other scan results."""
    return replace(file, pickle_scan=result, virus_scan=result, scan_message=message)

"""Hugging Face on loopback: the repository API, resolve with its redirects, and the refusals with their words.

Shapes as the real client reads them (huggingface_hub resolves against this server in a test of its own).
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tests.standins.faults import Fault, Faults, Place
from tests.standins.store import Content, Store, instead, serve
from tests.standins.web import Exchange, Site


@dataclass
class Repo:
    """A model repository: one commit per revision name, the same files in all unless a test says otherwise."""

    name: str
    files: dict[str, Content]
    commit: str
    revisions: set[str] = field(default_factory=lambda: {"main"})
    gated: str | bool = False
    private: bool = False
    disabled: bool = False
    license: str | None = "openrail++"
    #: Files of this many bytes are in LFS; smaller ones are plain git blobs, of which no SHA-256 is told.
    lfs_from: int = 100_000
    lfs_suffixes: tuple[str, ...] = (".safetensors", ".bin", ".ckpt", ".pt")

    def in_lfs(self, path: str) -> bool:
        """Whether the file is in LFS: by name for weights, as ``.gitattributes`` has it, or by size."""
        return path.endswith(self.lfs_suffixes) or self.files[path].size >= self.lfs_from


def git_blob(content: Content) -> str:
    """SHA-1 of git's blob header and the bytes."""
    digest = hashlib.sha1(f"blob {content.size}\0".encode(), usedforsecurity=False)
    for piece in content.read(0, content.size):
        digest.update(piece)
    return digest.hexdigest()


class HuggingFace:
    """The site and its store; ``tokens`` are those it knows, ``members`` those a gated repository lets in."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.store = Store(self.faults)
        self.site = Site(self._answer)
        self.tokens: set[str] = set()
        self.members: set[str] = set()
        self.url_seconds: float = 3600
        self._repos: dict[str, Repo] = {}
        self._renamed: dict[str, str] = {}

    @property
    def url(self) -> str:
        """What ``HF_ENDPOINT`` is set to."""
        return self.site.url

    @property
    def authorities(self) -> list[str]:
        """The hosts to allow."""
        return [self.site.authority, self.store.site.authority]

    def add(self, name: str, files: dict[str, bytes | Content], **more: Any) -> Repo:
        """A repository with these files."""
        contents = {path: data if isinstance(data, Content) else Content(data) for path, data in files.items()}
        commit = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
        repo = Repo(name, contents, **{"commit": commit} | more)
        self._repos[name] = repo
        for path, content in contents.items():
            if repo.in_lfs(path):
                self.store.put(self._object(repo, path), content)
        return repo

    def commit_of(self, name: str) -> str:
        """The repository's commit."""
        return self._repos[name].commit

    def rename(self, old: str, new: str) -> None:
        """The old name redirects from now on."""
        self._renamed[old] = new

    def fault(self, place: Place, repo: str, path: str, fault: Fault) -> None:
        """Make the answers for a file wrong; at the front an empty path is the API."""
        key = f"{repo}/{path}" if place is Place.FRONT else self._object(self._repos[repo], path)
        self.faults.set(place, key, fault)

    def close(self) -> None:
        """Stop both."""
        try:
            self.site.close()
        finally:
            self.store.close()

    @staticmethod
    def _object(repo: Repo, path: str) -> str:
        return f"repos/{repo.name}/{repo.files[path].sha256}"

    def _answer(self, ask: Exchange) -> None:
        match ask.parts:
            case ["api", "models", owner, name]:
                self._info(ask, f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "auth-check"]:
                if self._allowed(ask, f"{owner}/{name}", content=True) is not None:
                    ask.json(200, {})
            case ["api", "models", owner, name, "revision", revision]:
                self._info(ask, f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "tree", revision, *under]:
                self._tree(ask, f"{owner}/{name}", revision, "/".join(under))
            case ["api", "resolve-cache", "models", owner, name, commit, *path]:
                self._small(ask, self._repos[f"{owner}/{name}"], commit, "/".join(path))
            case [owner, name, "resolve", revision, *path] if path:
                self._resolve(ask, f"{owner}/{name}", revision, "/".join(path))
            case _:
                ask.html(404, "404 - Hugging Face")

    def _allowed(self, ask: Exchange, name: str, *, content: bool) -> Repo | None:
        """The repository, or ``None`` after saying no in the words of the original."""
        if name in self._renamed:
            ask.redirect(307, ask.path.replace(name, self._renamed[name], 1))
            return None
        if ask.bearer is not None and ask.bearer not in self.tokens:
            _refuse(ask, 401, None, "Invalid credentials in Authorization header")
            return None
        repo = self._repos.get(name)
        if repo is None or (repo.private and ask.bearer is None):
            if ask.bearer is None:
                _refuse(ask, 401, "RepoNotFound", "Invalid username or password.")
            else:
                _refuse(ask, 404, "RepoNotFound", "Repository not found")
            return None
        if repo.disabled:
            _refuse(ask, 403, None, "Access to this resource is disabled.")
            return None
        if content and repo.gated and ask.bearer not in self.members:
            words = f"Access to model {name} is restricted"
            if ask.bearer is None:
                text = f"{words}. You must have access to it and be authenticated to access it. Please log in."
                _refuse(ask, 401, "GatedRepo", text)
            else:
                text = f"{words} and you are not in the authorized list. Visit {self.url}/{name} to ask for access."
                _refuse(ask, 403, "GatedRepo", text)
            return None
        return repo

    def _info(self, ask: Exchange, name: str, revision: str) -> None:
        fault = self.faults.next(Place.FRONT, f"{name}/", counts=True)
        if instead(ask, fault):
            return
        repo = self._allowed(ask, name, content=False)
        if repo is None:
            return
        if revision not in {repo.commit, *repo.revisions}:
            _refuse(ask, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        if fault.gzip_zeros or fault.stall_at is not None:
            serve(ask, Content(json.dumps(_info(repo, True)).encode()), '"x"', fault, {})
            return
        blobs = ask.query.get("blobs", "").lower() == "true"
        ask.json(200, _info(repo, blobs))

    def _tree(self, ask: Exchange, name: str, revision: str, under: str) -> None:
        repo = self._allowed(ask, name, content=False)
        if repo is None:
            return
        if revision not in {repo.commit, *repo.revisions}:
            _refuse(ask, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        paths = [path for path in sorted(repo.files) if path.startswith(f"{under}/" if under else "")]
        ask.json(200, [_entry(repo, path) for path in paths])

    def _resolve(self, ask: Exchange, name: str, revision: str, path: str) -> None:
        if instead(ask, self.faults.next(Place.FRONT, f"{name}/{path}", counts=ask.command == "GET")):
            return
        repo = self._allowed(ask, name, content=True)
        if repo is None:
            return
        if revision not in {repo.commit, *repo.revisions}:
            _refuse(ask, 404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif path not in repo.files:
            _refuse(ask, 404, "EntryNotFound", "Entry not found")
        elif repo.in_lfs(path):
            content = repo.files[path]
            headers = {"X-Linked-Size": str(content.size), "X-Linked-ETag": f'"{content.sha256}"'}
            location = self.store.sign(self._object(repo, path), path.split("/")[-1], self.url_seconds)
            ask.redirect(302, location, headers | {"X-Repo-Commit": repo.commit, "Accept-Ranges": "bytes"})
        else:
            # A redirect on the same host, as the original does it for what it keeps in a cache.
            where = f"/api/resolve-cache/models/{repo.name}/{repo.commit}/{quote(path)}"
            ask.redirect(307, f"{where}?{quote(path, safe='')}=&etag=%22{git_blob(repo.files[path])}%22")

    def _small(self, ask: Exchange, repo: Repo, commit: str, path: str) -> None:
        if self._allowed(ask, repo.name, content=True) is None:
            return
        content = repo.files[path]
        headers = {"X-Repo-Commit": commit, "Content-Type": "text/plain; charset=utf-8"}
        fault = self.faults.next(Place.STORE, f"{repo.name}/{path}", counts=ask.command == "GET")
        serve(ask, content, f'"{git_blob(content)}"', fault, headers)


def _refuse(ask: Exchange, status: int, code: str | None, text: str) -> None:
    headers = {"X-Error-Message": text} | ({} if code is None else {"X-Error-Code": code})
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
    ask.json(status, {"error": text}, headers)


def _info(repo: Repo, blobs: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(repo.files)]
    for sibling in siblings if blobs else []:
        path = sibling["rfilename"]
        content = repo.files[path]
        sibling |= {"size": content.size, "blobId": git_blob(_in_git(repo, path))}
        if repo.in_lfs(path):
            pointer = _in_git(repo, path).size
            sibling["lfs"] = {"sha256": content.sha256, "size": content.size, "pointerSize": pointer}
    return {
        "_id": "62f0ffe4c3b5e2c1cd8b5b6e",
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.name.split("/")[0],
        "sha": repo.commit,
        "lastModified": "2026-05-01T10:00:00.000Z",
        "createdAt": "2026-01-01T10:00:00.000Z",
        "private": repo.private,
        "gated": repo.gated,
        "disabled": repo.disabled,
        "downloads": 1,
        "likes": 1,
        "tags": ["diffusers", "safetensors", "text-to-image"],
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "cardData": {} if repo.license is None else {"license": repo.license},
        "siblings": siblings,
        "spaces": [],
        "usedStorage": sum(content.size for content in repo.files.values()),
    }


def _entry(repo: Repo, path: str) -> dict[str, Any]:
    content = repo.files[path]
    blob = _in_git(repo, path)
    entry: dict[str, Any] = {"type": "file", "oid": git_blob(blob), "size": content.size, "path": path}
    if repo.in_lfs(path):
        entry["lfs"] = {"oid": content.sha256, "size": content.size, "pointerSize": blob.size}
    return entry


def _in_git(repo: Repo, path: str) -> Content:
    """What git holds: the file, or LFS's pointer to it."""
    content = repo.files[path]
    if not repo.in_lfs(path):
        return content
    spec = "https://git-lfs.github.com/spec/v1"
    return Content(f"version {spec}\noid sha256:{content.sha256}\nsize {content.size}\n".encode())

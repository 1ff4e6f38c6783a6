"""Fetches one file: bytes from where they may come from, checked while they arrive, in their place when they fit."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import httpx

from dreamforge_cli.models.errors import DiskError, IntegrityError, NetworkError
from dreamforge_cli.models.fetch import answers, redirects
from dreamforge_cli.models.fetch.hashing import new_sha256
from dreamforge_cli.models.fetch.limits import Fetched, Limits
from dreamforge_cli.models.sources.base import ResolvedFile

#: Bytes that are there, and bytes there will be (``None``: the server does not say).
OnProgress = Callable[[int, int | None], None]


def fetch(
    file: ResolvedFile,
    destination: Path,
    client: httpx.Client,
    limits: Limits | None = None,
    on_progress: OnProgress | None = None,
) -> Fetched:
    """Bring ``file`` to ``destination``; returns once its bytes are verified and safe on the disk.

    ``client`` is one of ``guard.open_client``. Raises the errors of ``dreamforge_cli.models.errors``.
    """
    limits = limits or Limits()
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(f"{destination.name}.part")
    try:
        with part.open("wb") as out:
            response = _opened(client, redirects.first_hop(file.url, file.credential))
            try:
                done, sha256, blob = 0, new_sha256(), hashlib.sha1(usedforsecurity=False)
                blob.update(b"blob %d\0" % (file.size_bytes or 0))
                for chunk in response.iter_raw():
                    done += len(chunk)
                    if done > min(limits.file_bytes, file.size_bytes or limits.file_bytes):
                        raise IntegrityError("more bytes come than were announced")
                    out.write(chunk)
                    sha256.update(chunk)
                    blob.update(chunk)
                    if on_progress:
                        on_progress(done, file.size_bytes)
            finally:
                response.close()
            out.flush()
            os.fsync(out.fileno())
        digest = sha256.hexdigest()
        if (file.sha256 and file.sha256 != digest) or (file.git_blob and file.git_blob != blob.hexdigest()):
            raise IntegrityError(f"{file.path}: the bytes are not those that the source vouched for")
        part.replace(destination)
    except OSError as error:
        raise DiskError(f"{destination}: {error.strerror}") from None
    except httpx.TransportError as error:
        raise NetworkError(f"{file.path}: {error}") from None
    finally:
        part.unlink(missing_ok=True)
    return Fetched(done, digest, done)


def _opened(client: httpx.Client, hop: redirects.Hop) -> httpx.Response:
    while True:
        response = client.send(client.build_request("GET", hop.url, headers=hop.headers), stream=True)
        if response.status_code == 200:
            return response
        response.close()
        if response.status_code not in redirects.REDIRECTS:
            raise answers.refusal(
                response.status_code, response.headers, "", redirects.shown(hop.url), signed=hop.count > 0
            )
        hop = redirects.next_hop(hop, response.headers.get("location"))

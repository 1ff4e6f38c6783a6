"""Encode, hash and upload on a thread of their own, while the next item denoises."""

import contextvars
import hashlib
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from dreamforge import keys, receipt, telemetry
from dreamforge.crashpoints import CrashPoint, reach
from dreamforge.errors import ErrorCode, JobError
from dreamforge.spec import RenderSpec
from dreamforge.storage.base import DiskFull, ObjectInfo, Storage, StorageError
from dreamforge_runner import images, metadata, planning
from dreamforge_runner.backends.base import Pixels
from dreamforge_runner.planning import StoredItem

log = telemetry.logger(__name__)

_TRIES: Final = 4
_FIRST_WAIT_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Stored:
    """An image is in the store."""

    item: StoredItem
    seconds: float


class Superseded(Exception):
    """Another attempt has the job: what this one would store now could only do harm."""


@dataclass(frozen=True, slots=True)
class NotStored:
    """An image could not be stored, or must not be."""

    error: JobError | Superseded


@dataclass(frozen=True)
class Rendered:
    """An item's pixels and where they come from; ``started`` is a monotonic time."""

    item_index: int
    seed: int
    pixels: Pixels
    backend: str
    source_type: str
    started: float
    checkpoint_hash: str | None = None


class Storer:
    """One attempt's way into the object store."""

    def __init__(
        self,
        spec: RenderSpec,
        storage: Storage,
        deliver: Callable[[Stored | NotStored], None],
        ours: Callable[[], bool],
    ) -> None:
        """``ours`` is asked before every write whether this attempt still has the job."""
        self._spec = spec
        self._storage = storage
        self._deliver = deliver
        self._ours = ours
        self._leaving = threading.Event()
        self._queue: queue.SimpleQueue[Rendered | None] = queue.SimpleQueue()
        # A daemon of its own, no pool: Python joins pools at exit, and an upload may hang for minutes.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._work,), name="store", daemon=True)
        self._thread.start()

    def submit(self, rendered: Rendered) -> None:
        """Take an image; ``Stored`` or ``NotStored`` is delivered from the thread."""
        self._queue.put(rendered)

    def write_manifest(self, items: Mapping[int, StoredItem]) -> str:
        """The last object of a step; its SHA-256. Raises ``JobError`` or ``Superseded``."""
        key = keys.manifest_key(self._spec.job_id, self._spec.step.value, self._spec.user)
        data = planning.manifest(self._spec, items.values())
        self._put(key, data, "application/json", {}, None)
        return hashlib.sha256(data).hexdigest()

    def close(self) -> None:
        """Give up retries and what is still queued; an upload in progress ends on its own."""
        self._leaving.set()
        self._queue.put(None)

    def _work(self) -> None:
        while (rendered := self._queue.get()) is not None and not self._leaving.is_set():
            self._store(rendered)

    def _store(self, rendered: Rendered) -> None:
        begun = time.perf_counter()
        try:
            item = self._encode_and_put(rendered)
            self._deliver(Stored(item, time.perf_counter() - begun))
        except (JobError, Superseded) as error:
            self._deliver(NotStored(error))
        except Exception as error:
            log.exception("storing failed", item_index=rendered.item_index)
            message = f"Storing failed ({type(error).__name__})"
            self._deliver(NotStored(JobError(ErrorCode.INTERNAL, message, item_index=rendered.item_index)))

    def _encode_and_put(self, rendered: Rendered) -> StoredItem:
        spec = planning.with_checkpoint_hash(self._spec, rendered.checkpoint_hash)
        index, seed, pixels = rendered.item_index, rendered.seed, rendered.pixels
        embedded = None
        if spec.params.embed_metadata:
            source = (rendered.backend, rendered.source_type, pixels.plan)
            text = metadata.as_json(receipt.describe(spec, index, seed, *source))
            embedded = images.Embedded(
                metadata_json=text,
                parameters=metadata.as_parameters(spec, index, seed, rendered.backend),
                xmp=metadata.as_xmp(rendered.source_type),
                xmp_with_json=metadata.as_xmp(rendered.source_type, text),
            )
        data = images.encode(pixels, spec.params.format, embedded)
        item = StoredItem(
            item_index=index,
            key=planning.artifact_key(spec, index, seed),
            seed=seed,
            width=pixels.width,
            height=pixels.height,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            backend=rendered.backend,
            source_type=rendered.source_type,
            seconds=round(time.monotonic() - rendered.started, 3),
            checkpoint_hash=rendered.checkpoint_hash,
            plan=pixels.plan,
        )
        reach(CrashPoint.RUNNER_IMAGE_ENCODED)
        self._put(item.key, data, spec.params.format.media_type, planning.object_metadata(item), index)
        reach(CrashPoint.RUNNER_IMAGE_UPLOADED)
        return item

    def _put(
        self, key: str, data: bytes, content_type: str, beside: Mapping[str, str], item_index: int | None
    ) -> ObjectInfo:
        """Store with a few tries; the error that is left says which class it is."""
        if not self._ours():
            raise Superseded
        sha256 = hashlib.sha256(data).hexdigest()
        for attempt in range(1, _TRIES + 1):
            try:
                return self._storage.put(key, data, content_type=content_type, sha256=sha256, metadata=beside)
            except DiskFull as error:
                message = "The object store has no space left"
                raise JobError(ErrorCode.DISK_FULL, message, item_index=item_index) from error
            except StorageError as error:
                log.warning("upload failed", key=key, attempt=attempt, cause=type(error).__name__)
                wait = _FIRST_WAIT_SECONDS * 4 ** (attempt - 1) * random.uniform(0.7, 1.3)  # noqa: S311 - jitter
                if attempt == _TRIES or self._leaving.wait(wait):
                    message = f"The object store did not take the image after {attempt} tries"
                    raise JobError(ErrorCode.STORAGE_ERROR, message, item_index=item_index) from error
        raise AssertionError("unreachable")

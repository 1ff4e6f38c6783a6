"""Named places where a process can be made to die, for fault tests only.

A crash between two steps that belong together is what the guarantees are about, and chance hits such a place too
seldom. So each of them calls :func:`reach`, which does nothing (one check of a global) unless the process was armed.

A point kills its process with SIGKILL once: it first makes the file ``<folder>/<point>``, which must not exist yet,
so the process that is started in its place goes on. The file holds the pid of the dead: the proof that the point was
reached. A test that keeps all files in place and takes one away decides which point kills next.
"""

import os
import signal
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

from pydantic import Field, field_validator

from dreamforge.settings import DfSettings


class CrashPoint(StrEnum):
    """Every place, as ``process.what was just done``."""

    API_JOB_COMMITTED = "api.job_committed"
    API_CANCEL_COMMITTED = "api.cancel_committed"
    CONTROL_BEFORE_SUBMIT = "control.before_submit"
    CONTROL_SUBMITTED = "control.submitted"
    CONTROL_CANCEL_TOLD = "control.cancel_told"
    INGEST_ROWS_WRITTEN = "ingest.rows_written"
    INGEST_COMMITTED = "ingest.committed"
    INGEST_ACKED = "ingest.acked"
    RETENTION_ROWS_REMOVED = "retention.rows_removed"
    RETENTION_OBJECTS_REMOVED = "retention.objects_removed"
    DLQ_BATCH_QUEUED = "dlq.batch_queued"
    DLQ_JOB_MADE = "dlq.job_made"
    RUNNER_LEASE_TAKEN = "runner.lease_taken"
    RUNNER_ITEM_STARTED = "runner.item_started"
    RUNNER_IMAGE_ENCODED = "runner.image_encoded"
    RUNNER_IMAGE_UPLOADED = "runner.image_uploaded"
    RUNNER_ARTIFACT_SPOOLED = "runner.artifact_spooled"
    RUNNER_ITEMS_STORED = "runner.items_stored"
    RUNNER_MANIFEST_WRITTEN = "runner.manifest_written"
    RUNNER_ACK_SEEN = "runner.ack_seen"
    OPERATOR_CHILD_PLANNED = "operator.child_planned"
    OPERATOR_JOB_CREATED = "operator.job_created"
    OPERATOR_JOB_PATCHED = "operator.job_patched"
    OPERATOR_JOB_DELETED = "operator.job_deleted"
    OPERATOR_STATUS_WRITTEN = "operator.status_written"
    CHILD_DENOISING = "child.denoising"
    CHILD_ITEM_DENOISED = "child.item_denoised"


class CrashSettings(DfSettings):
    """What arms a process; unset in every real installation."""

    crash_dir: Path | None = Field(
        None, description="For fault tests only: folder where a crash point leaves its mark; unset: none ever fires."
    )
    crash_at: str = Field(
        "", description="For fault tests only: comma-separated names of crash points that kill their process once."
    )

    @field_validator("crash_at")
    @classmethod
    def _names_exist(cls, names: str) -> str:
        _named(names)
        return names

    @property
    def points(self) -> frozenset[CrashPoint]:
        return _named(self.crash_at)


def _named(names: str) -> frozenset[CrashPoint]:
    return frozenset(CrashPoint(name.strip()) for name in names.split(",") if name.strip())


_armed: tuple[Path, frozenset[CrashPoint]] | None = None


def arm(folder: Path | None, points: Iterable[CrashPoint]) -> None:
    """Let ``points`` kill this process; ``None`` or no point disarms it."""
    global _armed
    chosen = frozenset(points)
    _armed = (folder, chosen) if folder is not None and chosen else None


def arm_from(settings: CrashSettings) -> None:
    """What each process does at its start."""
    if settings.crash_dir is not None:
        arm(settings.crash_dir, settings.points)


def reach(point: CrashPoint) -> None:
    """The process is at ``point``; it may not return."""
    if _armed is not None and point in _armed[1]:
        _die_once(_armed[0] / point.value)


def _die_once(mark: Path) -> None:
    try:
        file = os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except OSError:  # killed here already, or nowhere to prove it
        return
    os.write(file, str(os.getpid()).encode())
    os.close(file)
    _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # the signal ends every thread; nothing below may run before it does
        signal.pause()

"""The in-memory twin of an executor: the control loop's tests run the real loop on it."""

from uuid import UUID

from dreamforge.spec import RenderSpec
from dreamforge_api.execution.base import Liveness


class MemoryExecutor:
    """Keeps jobs in a dictionary; a test plays the runner with ``start`` and ``vanish``."""

    kind = "memory"

    def __init__(self, *, retries_itself: bool = False) -> None:
        self.retries_itself = retries_itself
        self.released: set[UUID] = set()
        self.jobs: dict[UUID, Liveness] = {}
        self.specs: dict[UUID, RenderSpec] = {}
        self.canceled: set[UUID] = set()

    def submit(self, spec: RenderSpec) -> str:
        known = self.jobs.get(spec.job_id)
        over = known is Liveness.GONE and self.retries_itself
        if known not in (Liveness.WAITING, Liveness.ALIVE) and not over:
            self.jobs[spec.job_id] = Liveness.WAITING
            self.specs[spec.job_id] = spec
            self.canceled.discard(spec.job_id)
        return f"memory-{spec.job_id}"

    def cancel(self, job_id: UUID, ref: str | None) -> None:
        self.canceled.add(job_id)
        if self.jobs.get(job_id) is Liveness.WAITING:
            del self.jobs[job_id]

    def liveness(self, job_id: UUID, ref: str | None) -> Liveness:
        return self.jobs.get(job_id, Liveness.ABSENT)

    def release(self, job_id: UUID, ref: str | None) -> bool:
        if self.jobs.get(job_id) in (Liveness.WAITING, Liveness.ALIVE):
            return False
        self.released.add(job_id)
        return True

    def start(self, job_id: UUID) -> None:
        """A runner takes the job."""
        self.jobs[job_id] = Liveness.ALIVE

    def vanish(self, job_id: UUID) -> None:
        """The runner dies."""
        self.jobs[job_id] = Liveness.GONE

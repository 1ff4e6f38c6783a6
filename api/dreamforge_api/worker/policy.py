"""How patient the control loop is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ControlPolicy:
    """Bounds of the loop, in seconds and rows."""

    sweep_seconds: float = 1.0
    #: A job nobody heard of for this long is looked into; longer than a runner's lease.
    silence_seconds: float = 15.0
    #: A canceled job that is still running after this long is ended whatever its runner says.
    cancel_seconds: float = 10.0
    #: A job that no runner took for this long fails; 0: it may wait until its deadline.
    queue_seconds: float = 0.0
    #: A cluster's job that ended there and that nobody told the end of for this long is ended without a reason.
    forsaken_seconds: float = 90.0
    #: A job that failed here is left so long to end on its cluster by itself before it is stopped.
    ending_seconds: float = 60.0
    #: Between two looks at what the executor keeps for an ended job.
    release_seconds: float = 3.0
    batch: int = 50
    #: Jobs handed to the executor ahead of a runner; the rest wait in Postgres.
    window: int = 64
    #: Jobs in a row that the executor may put off before a pass ends: it is the executor then, and not the jobs.
    refusals: int = 3

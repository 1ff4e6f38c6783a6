"""Names of queues, channels and keys in Redis: one place, so that two processes can't disagree.

Every value is JSON text or plain digits; nothing is ever pickled.
"""

from uuid import UUID

#: RQ queue of event batches (function :data:`INGEST_FUNCTION`, one argument: the batch as JSON text).
EVENTS_QUEUE = "events"
INGEST_FUNCTION = "dreamforge_api.worker.tasks.ingest_batch"
#: The same queue, so that a job is registered before its runner's events: the operator's announcements (one argument:
#: an :class:`~dreamforge.announcements.Announcement` as JSON text).
ANNOUNCE_FUNCTION = "dreamforge_api.worker.tasks.ingest_announcement"

#: RQ queue of local render work (function :data:`RENDER_FUNCTION`, one argument: the spec as JSON text).
RENDER_QUEUE = "render"
RENDER_FUNCTION = "dreamforge_runner.tasks.render"

#: Pub/sub: the control loop has something to do (payload: a job id or empty).
WAKE_CHANNEL = "dreamforge:wake"
#: Pub/sub: new rows in the events table (payload: ``<job_id> <last_seq>``).
EVENTS_CHANNEL = "dreamforge:events"
#: Pub/sub, fire and forget: how far a cluster's job is, for its status (payload: a
#: :class:`~dreamforge.announcements.Progress` as JSON text).
PROGRESS_CHANNEL = "dreamforge:progress"

#: Seconds an answer to an announcement is kept. What ended longer ago is not announced again.
ANSWER_TTL_SECONDS = 7 * 24 * 3600
#: Seconds an ack is kept; a runner asks for it many times a minute.
ACK_TTL_SECONDS = 24 * 3600
#: A runner renews its lease on a job every 2 s; after this many seconds without, it counts as gone.
LEASE_TTL_SECONDS = 10
LEASE_RENEW_SECONDS = 2.0


def render_rq_id(job_id: UUID) -> str:
    """The RQ job id of a render job: submitting twice is submitting once."""
    return f"render-{job_id}"


def ack_key(attempt_id: str) -> str:
    """Holds an :class:`~dreamforge.events.Ack` as JSON."""
    return f"dreamforge:ack:{attempt_id}"


def lease_key(job_id: UUID) -> str:
    """Exists while a runner works on the job; the value is its ``attempt_id``."""
    return f"dreamforge:lease:{job_id}"


def cancel_key(job_id: UUID) -> str:
    """Exists once the job's cancel was asked of the local executor; runners look twice a second."""
    return f"dreamforge:cancel:{job_id}"


def answer_key(uid: str, type_: str) -> str:
    """Holds an :class:`~dreamforge.announcements.Answer` as JSON; ``uid`` is the RenderJob's."""
    return f"dreamforge:answer:{uid}:{type_}"

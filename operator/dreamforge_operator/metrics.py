"""What the operator counts. Names are explained in ``docs/metrics.md``."""

from prometheus_client import Counter, Gauge, Histogram

RECONCILES = Counter("dreamforge_operator_reconciles_total", "Looks at RenderJobs, by how they went.", ["result"])
RECONCILE_SECONDS = Histogram("dreamforge_operator_reconcile_seconds", "Seconds of one look at a RenderJob.")
WRITES = Counter("dreamforge_operator_writes_total", "Writes to the API server.", ["verb", "resource"])
QUEUE_KEYS = Gauge("dreamforge_operator_queue_keys", "RenderJobs that wait for a look.")
PASS_SECONDS = Gauge("dreamforge_operator_full_pass_seconds", "Seconds the last full pass took.")
PASS_ENDED = Gauge("dreamforge_operator_full_pass_timestamp_seconds", "When the last full pass ended.")
RENDERJOBS = Gauge("dreamforge_operator_renderjobs", "RenderJobs at the last full pass.", ["phase"])
ANNOUNCEMENTS = Gauge("dreamforge_operator_announcements_pending", "Announcements that ingest has not answered.")

"""``python -m dreamforge_api.worker``: ingest in the main thread, the control loop beside it.

SIGTERM or SIGINT: the batch in hand is committed, the sweep in hand ends, the process leaves with 0. When either half
dies of a defect the process leaves with 1, for its supervisor to start anew.
"""

import os
import signal
import sys
import threading

from dreamforge import settings, telemetry
from dreamforge.crashpoints import CrashSettings, arm_from
from dreamforge.errors import ConfigurationError
from dreamforge_api.worker import health, registry_sync, retention, schema, tasks, wiring
from dreamforge_api.worker.settings import WorkerSettings

log = telemetry.logger("worker")
_CONTROL_ENDS_WITHIN = 10.0


def _control(worker: wiring.Worker) -> None:
    try:
        worker.control.run(worker.waker.wait, worker.stop.is_set)
    except Exception:  # the edge of this thread: half a worker must not look alive
        log.exception("the control loop died")
        os._exit(1)


def _retention(worker: wiring.Worker, interval_seconds: float) -> None:
    try:
        retention.run(worker.retention, interval_seconds, worker.stop)
    except Exception:  # the edge of this thread: jobs go on without it, and an alert tells that it stands still
        log.exception("retention died")


def _work(given: WorkerSettings, worker: wiring.Worker) -> None:
    """All parts of it, until a signal."""
    control = threading.Thread(target=_control, args=(worker,), name="control", daemon=True)
    control.start()
    if given.retention_interval_seconds:
        keeper = (worker, given.retention_interval_seconds)
        threading.Thread(target=_retention, args=keeper, name="retention", daemon=True).start()
    if worker.registry is not None:
        kept = (worker.registry, given.models_sync_seconds, worker.stop)
        threading.Thread(target=registry_sync.run, args=kept, name="registry", daemon=True).start()
    log.info("worker started", executor=given.executor)
    worker.queue.run()
    control.join(_CONTROL_ENDS_WITHIN)


def main() -> int:
    """Run until a signal; 2 for a wrong setting."""
    try:
        given = settings.load(WorkerSettings)
        telemetry.configure("worker", given.log_level)
        arm_from(settings.load(CrashSettings))
        worker = wiring.build(given)
    except ConfigurationError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a person's terminal
        return 2
    if "--check-settings" in sys.argv[1:]:
        return 0
    tasks.install(worker.ingestor, worker.listener)
    if given.worker_port:
        health.serve(given.worker_host, given.worker_port, lambda: worker.control.last_sweep)
    signal.signal(signal.SIGTERM, worker.queue.on_signal)
    signal.signal(signal.SIGINT, worker.queue.on_signal)
    schema.wait(worker.engine, worker.stop)
    if not worker.stop.is_set():
        _work(given, worker)
    worker.engine.dispose()
    worker.redis.close()
    log.info("worker stopped")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

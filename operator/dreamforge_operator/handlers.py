"""What kopf runs: ``KOPF_RUN_NAMESPACE=$DF_NAMESPACE kopf run -m dreamforge_operator.handlers``.

Watches only name what somebody should look at; no handler decides, writes or keeps anything, so none of kopf's own
bookkeeping (annotations, finalizers, retries) is used. All the work is in :mod:`app`.
"""

import gc
import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import kopf

from dreamforge import telemetry
from dreamforge.crashpoints import CrashSettings, arm_from
from dreamforge.errors import ConfigurationError
from dreamforge.renderjob import names
from dreamforge.settings import load
from dreamforge.transport.redis import RedisAnnouncements
from dreamforge_operator import health, runtimes
from dreamforge_operator.announcer import Announcer
from dreamforge_operator.app import Operator
from dreamforge_operator.cluster import KubernetesCluster
from dreamforge_operator.plan import Platform
from dreamforge_operator.settings import OperatorSettings

log = telemetry.logger(__name__)

#: What a silent watch is cut after; the next one begins with a list.
_SILENCE_SECONDS = 60
_REFRESH_SECONDS = 300
#: Without it kopf reads all RenderJobs as one answer.
_PAGE = 200
#: What kopf keeps a task for after an object's event, with the object; after a restart there is one of each.
_IDLE_SECONDS = 0.2


class Patience:
    """Seconds between the tries of a request, without end: where they end, kopf ends the process.

    An API server that has just come back answers 403 and 5xx for a moment, until it has read its own rules.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((1, 1, 2, 3), itertools.repeat(5))


class Process:
    """The one operator of this process, between kopf's startup and cleanup."""

    operator: Operator | None = None
    cluster: KubernetesCluster | None = None
    port: Any = None


@kopf.on.login()
def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    """A pod's service account, else the kubeconfig; without the weight of a client library."""
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, **_: Any) -> None:
    """Read the settings, connect, begin."""
    try:
        own = load(OperatorSettings)
        telemetry.configure("operator", own.log_level)
        arm_from(load(CrashSettings))
        offered = runtimes.load(own.runtimes_file)
    except ConfigurationError as error:
        raise kopf.PermanentError(str(error)) from None
    _configure(settings)
    gc.collect()
    gc.freeze()  # else each full collection walks all modules, and every look waits for it
    # What is read is JSON, thousands of containers a page and no cycle: to look for some costs more than to read it
    # (a full pass over 3,000 RenderJobs: 0.39 s of CPU with the default, 0.22 s with this).
    gc.set_threshold(25_000, 20, 20)
    Process.cluster = await KubernetesCluster.connect(own.namespace)
    announcer = None
    if own.redis_url:
        announcer = Announcer(RedisAnnouncements(own.redis_url), look, offered.default_id)
    platform = Platform(offered, own.runner_image, own.runner_env_secret)
    Process.operator = Operator(own, Process.cluster, platform, announcer)
    Process.operator.start()
    if own.operator_port:
        Process.port = await health.serve(
            own.operator_host,
            own.operator_port,
            alive=lambda: Process.operator is not None and Process.operator.alive,
            ready=lambda: Process.operator is not None and Process.operator.ready,
        )
    log.info("operator started", namespace=own.namespace)


@kopf.on.cleanup()
async def stop(**_: Any) -> None:
    """End; whatever was half done is found by the next process."""
    if Process.port is not None:
        await Process.port.cleanup()
    if Process.operator is not None:
        await Process.operator.stop()
    if Process.cluster is not None:
        await Process.cluster.close()


@kopf.on.event(names.GROUP, names.VERSION, names.PLURAL)
async def renderjob_seen(event: kopf.RawEvent, name: str, uid: str, **_: Any) -> None:
    """A RenderJob is there, changed or gone."""
    if Process.operator is None:
        return
    if event["type"] == "DELETED":
        Process.operator.deleted(name, uid)
    else:
        Process.operator.renderjob_seen(dict(event["object"]))


def look(name: str) -> None:
    """Have a RenderJob looked at."""
    if Process.operator is not None:
        Process.operator.look(name)


class _NoDiffs(kopf.DiffBaseStorage):
    """Nobody asks kopf what changed: it need not copy every object to find out."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


def _configure(settings: kopf.OperatorSettings) -> None:
    """Only watches: no events posted, no peers, no search for kinds and namespaces (which would need more rights)."""
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)  # a line for each event of each pod
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.watching.server_timeout = _REFRESH_SECONDS
    settings.watching.inactivity_timeout = _SILENCE_SECONDS
    settings.watching.chunk_size = _PAGE
    settings.queueing.idle_timeout = _IDLE_SECONDS
    settings.networking.error_backoffs = Patience()

"""Between a new child and what is said of it others go first: seen on a real API server, by who gives way."""

import asyncio

from dreamforge.announcements import Progress
from dreamforge.renderjob.resource import RenderJob
from dreamforge.renderjob.status import UNSEEN
from dreamforge_operator.cluster import KubernetesCluster
from dreamforge_operator.plan import Platform
from dreamforge_operator.reconcile import Reconciler
from dreamforge_operator.runtimes import Runtimes
from dreamforge_operator.situation import Refusal
from dreamforge_operator.twins import Twins
from tests.cluster.kubectl import Kubectl
from tests.cluster.operators import Played, connect, install_crd, render_job


class Nobody:
    """The rest of the system is not there."""

    def tell(self, rj: RenderJob) -> None: ...

    def refusal(self, uid: str) -> Refusal | None:
        return None

    def progress(self, job_id: str) -> Progress | None:
        return None


def test_the_child_is_made_before_and_its_status_written_after(api_kubectl: Kubectl) -> None:
    install_crd(api_kubectl)
    body = api_kubectl.create(render_job("one"))
    job = Played(api_kubectl, "one")
    given: list[tuple[int, int]] = []

    async def give_way(took: float) -> None:
        assert took > 0
        given.append((len(job.jobs()), job.status["observedGeneration"]))

    async def look_twice() -> None:
        async with KubernetesCluster(await connect(api_kubectl), api_kubectl.namespace) as cluster:
            reconciler = Reconciler(cluster, Platform(Runtimes(), "runner:1"), Nobody(), Twins())
            await reconciler.reconcile("one", body, give_way)
            await reconciler.reconcile("one", None, give_way)

    asyncio.run(look_twice())
    assert given == [(1, UNSEEN)], "once, with its child and without a word"
    assert (len(job.jobs()), job.status["phase"]) == (1, "Starting")

"""The least that makes a Job for every RenderJob: one watch, one POST each; no status, no second look.

``python -m benchmarks.operator_bare KUBECONFIG NAMESPACE TEMPLATE``: the template is the Job as the operator makes
it, with ``@NAME``, ``@UID`` and ``@JOB`` where RenderJobs differ.
"""

import asyncio
import sys
from pathlib import Path

from benchmarks.operator_client import JOBS, RENDERJOBS, Api, connect


async def run(kubeconfig: Path, namespace: str, template: str) -> None:
    """Until killed."""
    async with connect(kubeconfig) as api:
        posts: set[asyncio.Task[None]] = set()
        seen: set[str] = set()
        while True:
            async for type_, item in api.watch(RENDERJOBS.format(namespace), whole=True):
                uid = item["metadata"]["uid"]
                if type_ != "ADDED" or uid in seen:
                    continue
                seen.add(uid)
                text = template.replace("@NAME", item["metadata"]["name"]).replace("@UID", uid)
                post = asyncio.create_task(_post(api, namespace, text.replace("@JOB", item["spec"]["jobId"])))
                posts.add(post)
                post.add_done_callback(posts.discard)


async def _post(api: Api, namespace: str, text: str) -> None:
    await api.post(JOBS.format(namespace), text)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]).read_text()))

"""The worker as a real process between Postgres and a real API server: orders go out, what is taken away is over."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from dreamforge.db.engine import open_engine
from dreamforge.renderjob import names
from tests.cluster.conftest import fresh_namespace
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kubectl import Kubectl, eventually
from tests.jobs import create, rows
from tests.servers.worker import worker

CRD = Path(__file__).resolve().parents[2] / "crds/renderjobs.yaml"


@pytest.fixture
def kubectl(api_server: ControlPlane) -> Kubectl:
    kubectl = Kubectl(api_server.kubeconfig)
    kubectl.apply(CRD)
    kubectl.wait_condition("crd", names.CRD_NAME, "Established")
    return fresh_namespace(kubectl)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


def job(engine: Engine, job_id: UUID) -> dict[str, Any]:
    return rows(engine, "SELECT * FROM jobs WHERE id = :id", id=job_id)[0]


def test_a_row_becomes_a_renderjob_and_one_that_a_person_deletes_ends_as_canceled(
    kubectl: Kubectl, engine: Engine, database_url: str, redis_db: str, tmp_path: Path
) -> None:
    settings = {
        "DF_EXECUTOR": "kubernetes",
        "DF_NAMESPACE": kubectl.namespace,
        "KUBECONFIG": str(kubectl.kubeconfig),
        "DF_SILENCE_SECONDS": "1",
    }
    with worker(tmp_path, database_url, redis_db, **settings) as log:
        job_id = create(engine)
        name = names.resource_name(job_id)
        eventually("a RenderJob for the row", lambda: kubectl.find("renderjob", name))
        eventually("the row knows it", lambda: job(engine, job_id)["executor_ref"] == f"{kubectl.namespace}/{name}")
        kubectl.delete("renderjob", name)
        eventually("the job is canceled", lambda: job(engine, job_id)["status"] == "canceled")
        eventually("the Secret is gone", lambda: kubectl.find("secret", name) is None)
        eventually("nothing is left to do", lambda: job(engine, job_id)["dispatched_at"] is None)
    assert "a lighthouse" not in log.read_text()

"""The happy path with images in an S3 server instead of a folder: same system, other store."""

from uuid import uuid4

import httpx
import pytest

from tests.e2e import checks, pictures
from tests.e2e.system import System, sha256

pytestmark = pytest.mark.s3


def test_images_go_to_s3_and_come_by_presigned_links(s3_server, tmp_path):
    bucket = f"e2e-{uuid4().hex[:12]}"
    environment = s3_server.environment(bucket)
    system = System(tmp_path / "data", "--backend", "sketch", environment=environment)
    try:
        system.start()
        job = system.client.post(count=3)
        seen = system.client.follow(job["id"])
        assert seen[-1].event == "end"
        ended = system.client.wait(job["id"])
        assert ended["completed"] == 3
        checks.history(system, ended, "succeeded")
        artifacts = system.client.artifacts(job["id"])
        assert [artifact["item_index"] for artifact in artifacts] == [0, 1, 2]
        for artifact in artifacts:
            assert artifact["url"].startswith(f"{s3_server.endpoint}/{bucket}/dreamforge/default/jobs/{job['id']}/")
            answer = httpx.get(artifact["url"])
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "image/png"
            assert sha256(answer.content) == artifact["sha256"]
            assert len(answer.content) == artifact["size_bytes"]
            assert pictures.read(answer.content).fields == artifact["metadata"]
            assert httpx.get(artifact["url"].partition("?")[0]).status_code == 403
        assert not (system.data / "objects" / "dreamforge").exists()
        secret = s3_server.secret_access_key
        signature = httpx.URL(artifacts[0]["url"]).params["X-Amz-Signature"]
        assert not [name for name, text in system.log_text().items() if secret in text or signature in text]
    finally:
        system.end()

"""One key makes one job, however many ask at once."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

BODY = {"type": "generate", "prompt": "a lighthouse", "width": 256, "height": 256, "steps": 1}


def test_a_hundred_posts_on_ten_keys_make_ten_jobs(system):
    keys = [f"key-{uuid4()}" for _ in range(10)]

    def post(number: int) -> tuple[str, int, str]:
        key = keys[number % 10]
        while True:
            answer = system.client.http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": key})
            if answer.status_code not in (409, 503):
                return key, answer.status_code, answer.text
            assert float(answer.headers["retry-after"]) > 0
            assert answer.json()["code"] in {"idempotency_key_in_use", "unavailable"}

    before = system.rows("SELECT count(*) AS n FROM jobs")[0]["n"]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(post, range(100)))
    assert {status for _, status, _ in answers} == {202}
    for key in keys:
        assert len({text for made_by, _, text in answers if made_by == key}) == 1, "a replay is the first answer"
    assert len({text for _, _, text in answers}) == 10
    assert system.rows("SELECT count(*) AS n FROM jobs")[0]["n"] == before + 10
    replay = system.client.http.post("/v1/jobs", json=BODY, headers={"Idempotency-Key": keys[0]})
    assert replay.headers["idempotency-replayed"] == "true"
    other = system.client.http.post("/v1/jobs", json={**BODY, "steps": 2}, headers={"Idempotency-Key": keys[0]})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    for job in system.rows("SELECT id FROM jobs ORDER BY id DESC LIMIT 10"):
        system.client.wait(str(job["id"]))

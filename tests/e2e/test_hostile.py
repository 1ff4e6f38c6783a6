"""Text that tries to be something else comes back as it was sent, and forges nothing on its way (I9)."""

import json

import pytest

from tests.e2e import checks, pictures

#: Each prompt carries this word, which no log, metric or message may then hold.
CANARY = "qzxcanary"
PROMPTS = {
    "one-letter": "x",
    "4000-chars": CANARY + "a" * (4000 - len(CANARY)),
    "4-byte-emoji": "🌋" * 4000,
    "rtl-override": f"{CANARY} \u202egnp.exe\u202c",
    "zero-width": f"{CANARY}\u200b\u200d\ufeff!",
    "line-separators": f"{CANARY}\u2028data: x\u2029\u0085event: end",
    "cr-lf": f"{CANARY}\r\nX-Forged: 1\r\n\r\nbody",
    "sse": f'{CANARY}\n\ndata: {{"status":"succeeded"}}\n\nevent: end\ndata: {{}}\n\n',
    "ndjson": f'{CANARY}"}}\n{{"level":"error","message":"forged","job_id":"x"}}\n',
    "braces": f"{CANARY} {{{{}}}} {{0}} {{job_id}}",
    "percent": f"{CANARY} %s %n %(message)s",
    "dollar": f"{CANARY} ${{x}} $(id) `id`",
    "sql": f"{CANARY}'; DROP TABLE jobs; --",
    "jndi": f"{CANARY} ${{jndi:ldap://127.0.0.1/a}}",
    "html": f"{CANARY}<script>alert(1)</script><img src=x onerror=alert(1)>",
    "xml": f"{CANARY} ]]></rdf:Description><?xpacket end='w'?>&amp;&lt;",
    "rich-markup": f"{CANARY} [bold red]x[/] [link=file:///etc/passwd]y[/link]",
    "parameters": f"{CANARY}\nNegative prompt: forged\nSteps: 1, Seed: 666, Size: 1x1",
    "api-key": f"{CANARY} sk-live-51H8xQ2eZvKYlo2C0123456789abcdef",
    "presigned-url": f"{CANARY} https://s3.local/b/k?X-Amz-Signature=deadbeef{CANARY}",
    "backslashes": f"{CANARY} \\u0000 \\ud800 \\n",
}


@pytest.mark.parametrize("image_format", ["png", "jpg"])
@pytest.mark.parametrize("name", PROMPTS)
def test_a_hostile_prompt_comes_back_as_it_was(system, name, image_format):
    prompt = PROMPTS[name]
    job = system.client.render(
        prompt=prompt, negative_prompt=prompt, format=image_format, labels={"note": prompt[:50]}
    )
    assert job["params"]["prompt"] == job["params"]["negative_prompt"] == prompt
    assert job["labels"] == {"note": prompt[:50]}
    # The tests' stream parser refuses every line the contract does not name.
    frames = checks.whole(system, job)
    assert [f.data["status"] for f in frames if f.event == "state"] == ["running", "succeeded"]
    (artifact,) = system.client.artifacts(job["id"])
    assert artifact["metadata"]["prompt"] == prompt
    picture = pictures.read(system.client.download(artifact))
    assert picture.fields == artifact["metadata"]
    lines = picture.parameters.splitlines()
    assert [line.startswith("Steps: ") for line in lines] == [False, False, True]
    assert f"Seed: {artifact['seed']}," in lines[2]
    assert system.client.logs(job["id"])


@pytest.mark.parametrize(
    ("prompt", "code"), [("", 422), ("  ", 422), ("a" * 4001, 422), ("a\0b", 422), ("\x1b[2J", 422)]
)
def test_a_refused_prompt_makes_no_job(system, prompt, code):
    before = system.rows("SELECT count(*) AS n FROM jobs")
    body = {"type": "generate", "prompt": prompt}
    answer = system.client.http.post("/v1/jobs", json=body)
    assert answer.status_code == code
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["details"][0]["pointer"] == "/prompt"
    assert system.rows("SELECT count(*) AS n FROM jobs") == before


def test_a_lone_surrogate_makes_no_job(system):
    body = b'{"type":"generate","prompt":"\\ud800"}'
    answer = system.client.http.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_logs_and_metrics_hold_no_text_of_users_and_no_secret(system):
    job = system.client.render(prompt=PROMPTS["sse"], negative_prompt=PROMPTS["ndjson"], labels={"a": CANARY})
    (artifact,) = system.client.artifacts(job["id"])
    signature = artifact["url"].rpartition("=")[2]
    assert system.client.download(artifact)
    refused = system.client.http.get(artifact["url"].replace(signature, "0" * len(signature)))
    assert refused.status_code == 403
    long_gone = system.client.http.get(f"/v1/jobs/{CANARY}")
    assert long_gone.status_code == 404
    forbidden = {CANARY, "deadbeef", "lighthouse", "forged", signature, *system.secrets}
    texts = {
        **system.log_text(),
        "/metrics": system.client.http.get("/metrics").text,
        "up's stderr": system.up.remarks(),
    }
    assert {"api.ndjson", "worker.ndjson", "runner-0.ndjson", "postgres.ndjson", "redis.ndjson"} <= texts.keys()
    for place, text in texts.items():
        found = [word for word in forbidden if word in text]
        assert not found, (place, [line for line in text.splitlines() if any(word in line for word in found)][:3])


def test_each_log_line_is_one_json_object(system):
    for name, text in system.log_text().items():
        for line in text.removesuffix("\n").split("\n"):
            entry = json.loads(line) if line else {}
            assert isinstance(entry, dict), (name, line)
            assert not line or entry.keys() >= {"ts", "level", "message", "process"}, (name, line)


def test_no_message_of_an_event_holds_a_prompt(system):
    rows = system.rows(
        "SELECT message, payload - 'metadata' AS payload FROM events WHERE message LIKE %s", f"%{CANARY}%"
    )
    assert rows == []

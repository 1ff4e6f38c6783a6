"""I9: what must stay between the system and a job's owner, looked for wherever others read."""

from collections.abc import Iterable, Iterator

from tests.faults.load import Account
from tests.faults.stack import Stack

#: A leak of links is one of code, not of one link: the newest stand for all.
_SIGNATURES = 50
#: What people read who run the system: log lines and errors of jobs. The text of a prompt is in other columns.
_TOLD_BY_JOBS = """
SELECT concat_ws(' ', message, payload) AS text FROM events WHERE type IN ('log', 'error')
UNION ALL SELECT concat_ws(' ', error_code, error_message, warnings) FROM jobs
UNION ALL SELECT concat_ws(' ', runner, error_code, gpu) FROM attempts
"""


def told(stack: Stack, account: Account) -> Iterator[str]:
    """``where: what``, never the secret itself."""
    needles = {"a secret": stack.secrets, "a link's signature": set(account.signatures[-_SIGNATURES:])}
    needles["a prompt"] = {account.canary} - {""}
    for where, text in _read_by_others(stack, account):
        yield from (f"{where}: {what}" for what, words in needles.items() if any(word in text for word in words))


def _read_by_others(stack: Stack, account: Account) -> Iterable[tuple[str, str]]:
    yield from stack.log_text().items()
    for path in sorted(stack.data.parent.glob(f"{stack.data.name}.std*")):
        yield path.name, path.read_text()
    yield "/metrics", stack.client.http.get("/metrics").text
    yield from (("an error body", text) for text in account.refusals)
    yield "log, error or verdict of a job", "\n".join(row["text"] for row in stack.rows(_TOLD_BY_JOBS))

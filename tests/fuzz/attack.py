"""Schemathesis's engine against a running system: good and bad calls drawn from its document, alone and in chains."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests
import schemathesis
from schemathesis.engine import Status, events, from_schema
from schemathesis.engine.recorder import ScenarioRecorder

from tests.fuzz import checks

#: Jobs that are cheap to render; what a generated body names itself is left as it is.
_SMALL = {"width": 256, "height": 256, "steps": 2}
_CHEAP_PIXELS = 2 * 256 * 256


@dataclass
class Account:
    """What was called, what was answered, and what should not have been."""

    calls: Counter[tuple[str, int]] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.calls.total()

    @property
    def server_errors(self) -> int:
        return sum(count for (_, status), count in self.calls.items() if status >= 500)

    @property
    def unavailable(self) -> int:
        """Those of the server errors that say that the machine is too busy."""
        return sum(count for (_, status), count in self.calls.items() if status == 503)

    def by_operation(self) -> dict[str, Counter[int]]:
        """Statuses of each operation, most called first."""
        found: dict[str, Counter[int]] = {}
        for (label, status), count in self.calls.items():
            found.setdefault(label, Counter())[status] += count
        return dict(sorted(found.items(), key=lambda pair: -pair[1].total()))

    def add(self, phase: str, recorder: ScenarioRecorder) -> None:
        """Take over what one scenario did."""
        for case_id, interaction in recorder.interactions.items():
            if interaction.response is not None:
                self.calls[recorder.cases[case_id].value.operation.label, interaction.response.status_code] += 1
                self.phases[phase] += 1
        for case_id, nodes in recorder.checks.items():
            for node in nodes:
                self.judged[node.name] += 1
                if node.status is Status.FAILURE and node.failure_info is not None:
                    failure = node.failure_info.failure
                    answer = recorder.interactions[case_id].response
                    told = "" if answer is None else f"{answer.status_code} {answer.text[:2000]}"
                    place = f"{node.name}: {recorder.cases[case_id].value.operation.label}"
                    self.violations.append(f"{place}: {failure}\n{node.failure_info.code_sample}\n{told}")


Edit = Callable[[dict[str, Any]], None]


def run(url: str, calls: int, seed: int, edit: Edit | None = None) -> Account:
    """Call until ``calls`` are made (the scenario under way ends first); ``edit`` may falsify the document."""
    document = requests.get(f"{url}/openapi.json", timeout=20).json()
    if edit is not None:
        edit(document)
    schema = schemathesis.openapi.from_dict(document, config=_config(url, calls, seed))
    _install(schema, url)
    account = Account()
    stream = from_schema(schema).execute()
    for event in stream:
        if isinstance(event, events.ScenarioFinished):
            account.add(event.phase.value, event.recorder)
        elif isinstance(event, events.NonFatalError):
            account.violations.append(f"{event.label}: {event.info.title}: {event.info.message}\n{event.info}")
        elif isinstance(event, events.FatalError):
            raise event.exception
        if account.total >= calls:
            stream.stop()
    return account


def _config(url: str, calls: int, seed: int) -> schemathesis.Config:
    """All checks there are, bad data as well as good; chains get the larger share of a long run."""
    return schemathesis.Config.from_dict(
        {
            "seed": seed,
            # The engine goes round again only under a limit of time; the number of calls ends it long before.
            "max-time": 24 * 3600,
            "suppress-health-check": ["all"],
            "base-url": url,
            "continue-on-failure": True,
            "request-timeout": 20,
            "max-stream-events": 100,
            "generation": {"mode": "all", "database": "none", "no-shrink": True, "max-examples": 10},
            "phases": {"stateful": {"generation": {"max-examples": min(calls // 10, 200)}, "max-steps": 10}},
        }
    )


def _install(schema: Any, url: str) -> None:
    def map_body(context: schemathesis.HookContext, body: Any) -> Any:
        return {**_SMALL, **body} if isinstance(body, dict) else body

    def after_call(
        context: schemathesis.HookContext, case: schemathesis.Case[Any], response: schemathesis.Response
    ) -> None:
        """A dear job is accepted like any other, but not rendered: this is a test of the API."""
        if case.operation.label == "POST /v1/jobs" and response.status_code == 202:
            job = response.json()
            if job["count"] * job["params"]["width"] * job["params"]["height"] > _CHEAP_PIXELS:
                while (answer := requests.post(url + job["urls"]["cancel"], timeout=20)).status_code == 503:
                    continue
                answer.raise_for_status()

    def filter_failure(
        context: schemathesis.HookContext,
        failure: Exception,
        case: schemathesis.Case[Any],
        response: schemathesis.Response,
    ) -> bool:
        return not checks.no_schema_can_tell(failure, response)

    for hook in (map_body, after_call, filter_failure):
        schema.hook(hook)

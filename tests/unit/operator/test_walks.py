"""Any order of events: plans converge, ends stand, nothing is said twice, and no pod is made beside another."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dreamforge_operator import plan
from tests.unit.operator.kit import World

EXIT_CODES = st.sampled_from([0, 1, 10, 13, 14, 20, 30, 31, 137])


class Walk(RuleBasedStateMachine):
    """Everybody but the operator does what they may do, at any time; the operator looks now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World({"limits": {"startDeadlineSeconds": 600}})
        self.end: Any = None
        self.canceled = False

    @rule()
    def look(self) -> None:
        """One action only: the operator may die after it."""
        actions = self.world.planned().actions
        if actions:
            if isinstance(actions[0], plan.CreateJob):
                assert not self.canceled, "a cancel was seen, yet a child is made"
                live = [pod for pod in self.world.pods if pod["status"]["phase"] in ("Pending", "Running")]
                assert live == [], "a child is made beside pods of another"
            self.world.act(actions[0])
            self.canceled |= "cancelRequestTime" in self.world.status

    @rule(seconds=st.sampled_from([1, 11, 400, 5000]))
    def wait(self, seconds: int) -> None:
        self.world.later(seconds)

    @rule(flag=st.booleans())
    def suspend(self, flag: bool) -> None:
        self.world.edit(suspend=flag)

    @rule(flag=st.booleans())
    def cancel(self, flag: bool) -> None:
        self.world.edit(cancel=flag)

    @precondition(lambda self: self.controller_acts and len(self.world.pods) < 4)
    @rule()
    def make_pod(self) -> None:
        self.world.make_pod()

    @rule()
    def run_pods(self) -> None:
        self.world.run_pods()

    @rule(code=EXIT_CODES)
    def end_pods(self, code: int) -> None:
        self.world.end_pods(code)

    @rule()
    def drop_pods(self) -> None:
        self.world.drop_pods()

    @precondition(lambda self: self.controller_acts)
    @rule(kind=st.sampled_from(["Complete", "Failed"]))
    def end_job(self, kind: str) -> None:
        self.world.end_pods(0 if kind == "Complete" else 13)
        self.world.end_job(kind)

    @precondition(lambda self: self.world.has_child)
    @rule()
    def delete_child_by_hand(self) -> None:
        self.world.act(plan.DeleteJob("", self.world.child["metadata"]["uid"]))

    @property
    def controller_acts(self) -> bool:
        return self.world.has_child and not self.world.child["spec"]["suspend"] and not self.world.child["status"]

    @invariant()
    def it_converges(self) -> None:
        before = self.world.now
        copy = World()
        copy.__dict__.update({key: _copied(value) for key, value in self.world.__dict__.items()})
        copy.settle()
        assert copy.planned().actions == ()
        assert copy.now == before

    @invariant()
    def ends_stand(self) -> None:
        phase = self.world.phase
        if self.end is not None:
            assert phase == self.end
        if phase in ("Succeeded", "Failed", "Canceled"):
            self.end = phase

    @invariant()
    def never_stalled_and_reconciling(self) -> None:
        told = {self.world.condition(kind).get("status") for kind in ("Stalled", "Reconciling")}
        assert told != {"True"}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


Walk.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestWalk = Walk.TestCase

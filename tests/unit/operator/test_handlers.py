"""What the operator tells kopf."""

from itertools import islice

from dreamforge_operator.handlers import Patience


def test_no_request_of_a_watch_is_ever_given_up():
    patience = Patience()
    for _ in ("one request", "the next"):
        waits = list(islice(patience, 1000))
        assert len(waits) == 1000
        assert max(waits) <= 5

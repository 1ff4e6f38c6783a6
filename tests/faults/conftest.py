"""One system for the whole tier: what it survives in one test it has survived in the next as well."""

import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.faults import oracle
from tests.faults.load import Account, Load
from tests.faults.stack import Stack

Attack = Callable[[Callable[[Load], object]], Account]


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = Stack(tmp_path_factory.mktemp("faults") / "data")
    try:
        running.start()
        yield running
    finally:
        running.end()


@pytest.fixture
def attack(stack: Stack) -> Attack:
    """Run faults under load, let the load end, and judge every job the system ever had."""

    def under_load(faults: Callable[[Load], object]) -> Account:
        stack.client.until_ready()
        seed = random.SystemRandom().getrandbits(32)
        load = Load(stack.up.url, seed).start()
        begun = time.monotonic()
        try:
            faults(load)
            done = time.monotonic()
        finally:
            account = load.finish()
        ended = time.monotonic()
        verdict = oracle.judge(stack, account)
        print(
            f"seed {seed}: faults {done - begun:.1f} s, drained {ended - done:.1f} s, "
            f"judged {time.monotonic() - ended:.1f} s, {len(account.jobs)} jobs, {account.retries} asked again"
        )
        assert verdict.found == {}
        return account

    return under_load

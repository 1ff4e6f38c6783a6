"""Kills by lot: a short form of the soak for every run. ``make soak`` is the long one."""

import random

from tests.faults.chaos import Chaos

KILLS = 8


def test_random_kills(stack, attack):
    seed = random.SystemRandom().getrandbits(32)
    chaos = Chaos(stack, seed)

    def faults(_):
        while chaos.counts.total() < KILLS:
            chaos.kill_any()
            chaos.breathe()

    print(f"faults of seed {seed}")
    attack(faults)
    print(dict(chaos.counts))

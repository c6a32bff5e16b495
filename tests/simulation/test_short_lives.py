"""Jobs on executors that do not live long enough to compute at once all that is lost."""

from dataclasses import replace

import pytest

from wukong.simulation.faults import Faults
from wukong.simulation.world import World

#: A third of all answers are lost, and cost half a second each.
SHORT = Faults(limit=2.0, reply=0.3, stall=0.05, death=0.03)
SEEDS = range(25)


@pytest.mark.parametrize("lose", [0.0, 0.03])
def test_what_takes_longer_than_an_executor_lives_is_computed_again_by_several_one_after_the_other(lose):
    worlds = [World(seed, faults=replace(SHORT, lose=lose), size=60).run() for seed in SEEDS]
    assert sum(world.tally.recomputed for world in worlds) > 20

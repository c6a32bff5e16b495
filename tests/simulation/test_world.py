"""Seeds through faults: nothing that must hold breaks, and three ways to break the protocol by hand are each found."""

from dataclasses import astuple
from typing import Any

import pytest

from wukong.cost import Costs
from wukong.executor import effects as fx
from wukong.executor.core import Executor
from wukong.protocol import messages as m
from wukong.protocol.model import Shard
from wukong.simulation.faults import Faults
from wukong.simulation.world import COSTS, Violation, World

SEEDS = 2000


def first_violation(seeds: int, world: type[World] = World, **broken: Any) -> int | None:
    """Return the first seed whose run breaks what must hold."""
    for seed in range(seeds):
        try:
            world(seed, **broken).run()
        except Violation:
            return seed
    return None


@pytest.mark.parametrize("tenth", range(10))
def test_no_seed_breaks_what_must_hold(tenth: int) -> None:
    for seed in range(2000 * tenth, 2000 * (tenth + 1)):
        World(seed).run()


def test_a_seed_replays_exactly() -> None:
    first, again = World(7), World(7)
    assert first.run().trace == again.run().trace
    assert first.happened == again.happened


def test_the_seeds_meet_every_kind_of_fault_and_every_way_to_save_traffic() -> None:
    happened: set[str] = set()
    held = recomputed = lost = 0
    for seed in range(200):
        world = World(seed).run()
        happened |= set(world.happened)
        held += world.tally.held
        recomputed += world.tally.recomputed
        lost += world.tally.lost
    assert happened == {
        "death before a step",
        "death after a step",
        "stall",
        "reply lost",
        "late copy of a request",
        "invocation doubled",
        "invocation lost",
    }
    assert held
    assert recomputed
    assert lost


class TimeAlone(Costs):
    """Keeps what runs while another executor is invoked, whatever there is to ship."""

    __slots__ = ()

    def keep(self, task_seconds: float, queued: int, _: int, children: int, *__: bool) -> int:
        return super().keep(task_seconds, queued, 0, children)


class Everything(Costs):
    """Keeps all children."""

    __slots__ = ()

    def keep(self, _: float, __: int, ___: int, children: int, *____: bool) -> int:
        return children


def test_clustering_by_bytes_moves_fewer_of_them_and_loses_no_parallelism_that_pays() -> None:
    moved, took = {}, {}
    for rule in (TimeAlone, Costs, Everything):
        costs = rule(*astuple(COSTS))
        worlds = [World(seed, faults=Faults(), costs=costs, size=60).run() for seed in range(60)]
        moved[rule] = sum(world.moved for world in worlds)
        took[rule] = sum(world.took for world in worlds)
    assert moved[Everything] < moved[Costs] < 0.9 * moved[TimeAlone]
    assert took[Costs] < took[TimeAlone]
    assert took[Costs] < 0.95 * took[Everything]


class CountingShard(Shard):
    """Counts arrivals instead of keeping the set of those that arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: dict[int, int] = {}

    def _edge_completes(self, child: int, indegree: int, parent: int) -> bool:
        super()._edge_completes(child, indegree, parent)
        self.counted[child] = self.counted.get(child, 0) + 1
        return self.counted[child] >= indegree


class HastyExecutor(Executor):
    """Settles the edge first and writes the value afterwards."""

    __slots__ = ()

    def _flush(self) -> Any:
        late = []
        steps = super()._flush()
        answer = None
        while True:
            try:
                effect = steps.send(answer)
            except StopIteration:
                break
            if isinstance(effect, fx.Put):
                late.append(effect)
                answer = None
            else:
                answer = yield effect
        for effect in late:
            yield effect


class WorldWithoutNonces(World):
    """Names an executor by the tasks it starts with, so that a doubled invocation has one name."""

    def nonce(self, starts: list[int]) -> str:
        return f"e{starts}"


class ForgetfulShard(Shard):
    """Keeps no answers: the same request again is carried out again."""

    def apply(self, request: m.Request, now: float) -> m.Reply:
        reply = super().apply(request, now)
        for executor in self.executors.values():
            executor.seq = 0
        return reply


def test_counting_arrivals_instead_of_keeping_a_set_is_found() -> None:
    assert first_violation(SEEDS, shard=CountingShard) is not None


def test_an_edge_before_its_value_is_found() -> None:
    assert first_violation(SEEDS, executor=HastyExecutor) is not None


def test_an_executor_without_a_nonce_of_its_own_is_found() -> None:
    assert first_violation(SEEDS, world=WorldWithoutNonces) is not None


def test_a_store_that_keeps_no_answers_is_found() -> None:
    assert first_violation(SEEDS, shard=ForgetfulShard) is not None

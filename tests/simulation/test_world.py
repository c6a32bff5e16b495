"""Seeds through faults: nothing that must hold breaks, and two ways to break an executor by hand are each found."""

from dataclasses import astuple
from typing import Any

import pytest

from wukong.cost import Costs
from wukong.executor import effects as fx
from wukong.executor.core import Executor
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.scheduler import watch
from wukong.simulation.campaign import Summary, faults_of, run, run_many
from wukong.simulation.faults import HARMLESS, KINDS, Faults
from wukong.simulation.world import COSTS, Violation, World

SEEDS = 2000


def first_violation(seeds: int, world: type[World] = World, **broken: Any) -> int | None:
    """Return the first seed whose run breaks what must hold, through faults of the network and deaths."""
    for seed in range(seeds):
        try:
            world(seed, faults=faults_of(seed, ("death", *HARMLESS)), **broken).run()
        except Violation:
            return seed
    return None


@pytest.mark.parametrize("eighth", range(8))
def test_no_seed_breaks_what_must_hold(eighth: int) -> None:
    for seed in range(500 * eighth, 500 * (eighth + 1)):
        World(seed).run()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_no_seed_of_very_many_breaks_what_must_hold() -> None:
    few, many = Summary(), Summary()
    for part in run_many(range(10**6, 10**6 + 100_000), jobs=2):
        few.add(part)
    for part in run_many(range(2 * 10**6, 2 * 10**6 + 5_000), size=30, jobs=2):
        many.add(part)
    assert not few.broken
    assert not many.broken


def test_a_seed_replays_exactly() -> None:
    first, again = World(7), World(7)
    assert first.run().trace == again.run().trace
    assert first.happened == again.happened


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_with_one_kind_of_fault_only_meets_no_other(kind: str) -> None:
    # Without delays nobody grows old enough.
    kinds = {kind, "straggler"} if kind == "limit" else {kind}
    met: set[str] = set()
    for seed in range(1000):
        met |= set(World(seed, faults=faults_of(seed, kinds)).run().happened)
        if seed > 50 and kinds <= met:
            break
    assert met - {"repair"} == kinds


def test_runs_without_faults_meet_none_and_repair_nothing() -> None:
    assert not run(range(100), ()).happened


def test_every_fault_of_an_executor_meets_tasks_in_every_state_it_can_be_in() -> None:
    summary = run(range(400))
    assert set(summary.happened) == {*KINDS, "repair"}
    for kind in ("death", "stall", "reply", "echo", "forget", "skew"):
        assert {state for fault, state in summary.covered if fault == kind} == set(range(len(states.NAMES))), kind
    assert set(summary.ends) == {"results", "failed", "cancelled"}
    assert summary.tally.held
    assert summary.tally.recomputed
    assert summary.tally.lost


def worlds(kinds: set[str], seeds: int = 300) -> list[World]:
    """Return runs in which all these kinds of fault could happen, and no others."""
    drawn = ((seed, faults_of(seed, kinds)) for seed in range(seeds))
    return [World(seed, faults=faults).run() for seed, faults in drawn if set(faults.kinds()) == kinds]


def test_of_two_clients_one_gets_the_results_or_both_the_same() -> None:
    ends = [tuple(sorted(end.status for end in world.ends)) for world in worlds({"rival"})]
    assert set(ends) <= {(m.RUNNING, m.RUNNING), (m.RUNNING, m.GONE)}
    assert (m.RUNNING, m.GONE) in ends


def test_values_that_the_store_loses_are_computed_again() -> None:
    met = [world for world in worlds({"lose"}) if world.happened["lose"]]
    assert met
    assert {world.end and world.end.status for world in met} == {m.RUNNING}
    assert any(world.happened["repair"] for world in met)
    assert any(world.tally.recomputed for world in met)


def test_a_job_ends_when_what_may_run_only_once_is_lost() -> None:
    reasons = {world.end and world.end.reason for world in worlds({"death", "once"}, 600)}
    assert reasons == {b"", b"TaskLost"}


def test_what_may_run_only_once_runs_where_only_the_network_fails() -> None:
    calm = worlds({"once"}, 600)
    assert any(world.happened["once"] for world in calm)
    assert {world.end and world.end.status for world in calm} == {m.RUNNING}


def test_a_repair_that_runs_again_what_may_run_only_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_may_have_run", lambda *_: [])
    assert run(range(500)).broken


def test_a_repair_during_which_executors_go_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "cancel", lambda *_: iter(()))
    assert run(range(SEEDS)).broken


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
        moved[rule] = sum(world.values.moved for world in worlds)
        took[rule] = sum(world.took for world in worlds)
    assert moved[Everything] < moved[Costs] < 0.9 * moved[TimeAlone]
    assert took[Costs] < took[TimeAlone]
    assert took[Costs] < 0.95 * took[Everything]


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


def test_an_edge_before_its_value_is_found() -> None:
    assert first_violation(SEEDS, executor=HastyExecutor) is not None


def test_an_executor_without_a_nonce_of_its_own_is_found() -> None:
    assert first_violation(SEEDS, world=WorldWithoutNonces) is not None

"""What is computed again because it was lost, what of it is written, and what the next executor finds."""

import gc

import pytest

from tests.executor.steps import COSTS, LARGE, LEASE, SMALL, Tiny
from tests.executor.test_core import results, runs, sweep
from wukong.executor import effects as fx
from wukong.protocol import messages as m


def chain_of_the_dead(length: int, seconds: float) -> Tiny:
    """A job of which only the last task is not done, and all values are with a dead executor."""
    job = Tiny({0: (), **{task: (task - 1,) for task in range(1, length)}}, LARGE)
    job.seconds = seconds
    job.enter("a", 0).until(runs(length - 1)).die()
    assert sweep(job) == [length - 1]
    return job


def kinds(job: Tiny, *tasks: int) -> list[int]:
    return [job.shards[0].values[task][1].kind for task in tasks]


def puts(effect: fx.Effect) -> bool:
    return isinstance(effect, fx.Put)


def probed(job: Tiny, name: str) -> list[tuple[int, ...]]:
    return [ask.request.tasks for ask in job.of(name, fx.Ask) if isinstance(ask.request, m.Probe)]


def test_a_value_held_by_the_dead_is_recomputed_in_private_if_that_is_faster_than_to_write_it() -> None:
    job = Tiny({0: (), 1: (0,), 2: (1,), 3: (2,)}, {0: SMALL, 1: LARGE, 2: LARGE})
    job.enter("a", 0).until(runs(3)).die()
    assert sweep(job) == [3]
    job.enter("b", 3).end()
    assert job.ran("b") == [1, 2, 3], "0 is in the records still, for 1 was never stored"
    committed = [
        o.task for ask in job.of("b", fx.Ask) if isinstance(ask.request, m.Commit) for o in ask.request.outcomes
    ]
    assert committed == [3]
    assert job.of("b", fx.Put) == []
    assert results(job) == ["3(2(1(0())))"]


def test_who_recomputes_for_a_job_that_is_over_runs_nothing() -> None:
    job = Tiny({0: (), 1: (0,), 2: (1,)}, {0: LARGE, 1: LARGE})
    job.enter("a", 0).until(runs(2)).die()
    assert sweep(job) == [2]
    late = job.enter("b", 2).until(lambda effect: isinstance(effect, fx.Ask) and isinstance(effect.request, m.Probe))
    job.shards[0].apply(m.Cancel(m.CANCELLED, b"by hand"), job.now)
    late.end()
    assert job.ran("b") == []


def test_a_value_that_took_longer_than_it_takes_to_write_is_there_for_whoever_comes_next() -> None:
    job = chain_of_the_dead(4, seconds=1.0)
    assert kinds(job, 0, 1, 2) == [m.HELD] * 3
    job.enter("b", 3).until(runs(2)).die()
    assert kinds(job, 0, 1, 2) == [m.STORED, m.STORED, m.HELD]
    assert sweep(job) == [3]
    job.enter("c", 3).end()
    assert job.ran("c") == [2, 3]
    assert results(job) == ["3(2(1(0())))"]


def test_what_is_fast_to_compute_is_written_when_enough_of_it_has_come_together() -> None:
    # 10 MB at 1 GB/s take 10 ms to write.
    job = chain_of_the_dead(9, seconds=0.003)
    job.enter("b", 8).until(runs(8))
    held, stored = [m.HELD] * 3, [m.STORED]
    assert kinds(job, *range(8)) == held + stored + held + stored


def test_small_values_go_with_their_records_without_being_written() -> None:
    job = chain_of_the_dead(3, seconds=1e-9)
    job.plan.sizes.update({0: SMALL, 1: SMALL})
    job.enter("b", 2).until(runs(2))
    assert kinds(job, 0, 1) == [m.INLINE] * 2
    assert job.of("b", fx.Put) == []


def test_the_records_of_a_long_lineage_are_found_in_few_requests() -> None:
    job = chain_of_the_dead(200, seconds=1e-9)
    job.enter("b", 199).until(runs(0))
    assert len(probed(job, "b")) == 7
    assert sorted(task for tasks in probed(job, "b") for task in tasks) == list(range(199))


def test_all_but_the_last_value_of_a_chain_have_been_let_go_when_it_is_used() -> None:
    gc.collect()
    job = chain_of_the_dead(20, seconds=1e-9)
    walking = job.enter("b", 19).until(runs(18))
    assert job.living() == {17}
    walking.die()


def test_a_value_that_was_let_go_and_is_needed_after_all_is_fetched_where_it_was_written() -> None:
    """Whether 2 is lost, too, shows only when it is read for 3; 0 has been let go with 1 by then."""
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2), 4: (3,)}, LARGE)
    job.seconds = 1.0
    job.enter("a", 0).until(runs(4)).die()
    assert sweep(job) == [4]
    lost = m.Outcome(2, 1, m.Value(m.STORED, LARGE), settled=None)
    job.shards[0].apply(m.Commit("x", 1, LEASE, (lost,)), job.now)
    job.enter("b", 4).end()
    assert job.ran("b") == [0, 1, 2, 3, 4]
    assert job.of("b", fx.Fetch, lambda effect: effect.names) == [[(2, 1)], [(0, 1)]]
    assert results(job) == ["4(3(1(0()),2(0())))"]


def test_a_value_that_the_store_has_lost_is_written_again_under_its_name() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2)}, LARGE, costs=COSTS.replace(copies=0))
    job.seconds = 1.0
    job.enter("a", 0).until(lambda effect: isinstance(effect, fx.Invoke))
    assert kinds(job, 0) == [m.STORED]
    job.stored.clear()
    job.enter("b", 2).until(runs(2))
    assert job.ran("b") == [0]
    assert set(job.stored) == {(0, 1)}


def test_what_is_written_after_its_last_use_is_deleted_again() -> None:
    job = chain_of_the_dead(3, seconds=1.0)
    late = job.enter("b", 2).until(puts)
    job.now += 1000.0
    assert sweep(job) == [2]
    job.enter("c", 2).end()
    assert set(job.stored) == {(0, 1), (2, 3)}, "what the dead owed stays until the job is released"
    late.end()
    assert job.order("b").count("put 1") == 1
    assert set(job.stored) == {(0, 1), (2, 3)}
    assert job.shards[0].values.keys() == {0, 2}


def test_who_is_told_that_the_job_is_over_deletes_what_it_computed_again() -> None:
    job = chain_of_the_dead(3, seconds=1.0)
    late = job.enter("b", 2).until(puts)
    job.shards[0].apply(m.Cancel(m.CANCELLED, b"by hand"), job.now)
    late.end()
    assert job.stored == {}


@pytest.mark.parametrize("shards", [1, 2])
def test_the_old_holder_may_still_write_and_others_too(shards: int) -> None:
    """It sleeps, holding 0 for 2, which needs 1 as well."""
    job = Tiny({0: (), 1: (), 2: (0, 1)}, LARGE, shards=shards)
    holder = job.enter("a", 0).until(lambda effect: isinstance(effect, fx.Pause))
    job.seconds = 1.0
    job.now += 1000.0
    job.enter("b", 1).until(runs(2))
    assert job.ran("b") == [1, 0]
    assert kinds(job, 0) == [m.STORED]
    job.busy = True
    holder.end()
    assert kinds(job, 0) == [m.STORED]


def test_a_task_that_may_run_only_once_is_not_computed_again() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2)}, LARGE, costs=COSTS.replace(copies=0))
    job.plan.only_once = {0}
    job.enter("a", 0).until(lambda effect: isinstance(effect, fx.Invoke))
    job.stored.clear()
    last = job.enter("b", 2).until(lambda effect: isinstance(effect, fx.Fail))
    assert "may run only once" in str(last.next.error)
    assert job.ran("b") == []


def test_what_was_used_up_is_kept_when_what_is_made_of_it_has_to_be_computed_again() -> None:
    job = Tiny({0: (), 1: (0,), 2: (1,), 3: (), 4: (2, 3)}, LARGE)
    job.seconds = 1.0
    job.busy = True
    job.enter("a", 0).end()
    job.shards[0].apply(m.Release("x", 1, LEASE, uses=((0, 1), (1, 1))), job.now)
    assert set(job.shards[0].values) == {2}
    job.stored.clear()
    job.busy = False
    job.enter("b", 3).until(runs(2)).die()
    assert job.ran("b") == [3, 0, 1]
    assert sweep(job) == [4]
    job.enter("c", 4).end()
    assert job.ran("c") == [3, 2, 4]
    assert results(job) == ["4(2(1(0())),3())"]

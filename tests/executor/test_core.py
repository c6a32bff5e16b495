"""What the executor decides, seen one request at a time."""

import gc

import pytest

from tests.executor.steps import COSTS, LARGE, LEASE, SMALL, Tiny, Walking
from wukong.errors import TaskLost
from wukong.executor import effects as fx
from wukong.protocol import messages as m
from wukong.protocol import states


def commits(effect: fx.Effect) -> bool:
    return isinstance(effect, fx.Ask) and isinstance(effect.request, m.Commit)


def runs(task: int):
    return lambda effect: isinstance(effect, fx.Run) and effect.task == task


def pauses(effect: fx.Effect) -> bool:
    return isinstance(effect, fx.Pause)


def sweep(job: Tiny) -> list[int]:
    """What a watcher would have started again."""
    return [task for shard in job.shards for found in shard.apply(m.Sweep(1e9), job.now).body for task in found]


def results(job: Tiny) -> list[str]:
    """What the client collects; it finds nothing lacking."""
    wanted = tuple(job.plan.outputs)
    (grant,) = job.shards[0].apply(m.Claim("client", 2, 1.0, ((m.CLIENT, wanted),)), job.now).body
    found = {}
    for task, attempt, value in grant.inputs:
        assert value.kind != m.HELD
        found[task] = (value.body if value.kind == m.INLINE else job.stored[task, attempt]).text
    return [found[task] for task in wanted]


# --- choose -----------------------------------------------------------------------------------------------------------

#: 0 and 1 are leaves; 2 needs 1 alone and 3 needs both.
FORK = {0: (), 1: (), 2: (1,), 3: (0, 1), 4: (2, 3)}


def test_it_becomes_the_child_with_most_bytes_at_hand_and_has_the_other_invoked() -> None:
    job = Tiny(FORK, {0: 900_000})
    job.enter("a", 0, 1).end()
    assert job.ran("a") == [0, 1, 3]
    assert job.of("a", fx.Invoke, lambda effect: effect.tasks) == [[2]]


def test_bytes_at_hand_count_for_more_than_a_long_path() -> None:
    job = Tiny({**FORK, 5: (2,), 4: (3, 5)}, {0: 900_000})
    job.enter("a", 0, 1).until(runs(3))
    assert job.of("a", fx.Invoke, lambda effect: effect.tasks) == [[2]]


def test_of_children_with_as_many_bytes_it_becomes_the_one_on_the_longest_path() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (2,), 4: (1, 3)})
    job.enter("a", 0).end()
    assert job.ran("a") == [0, 2, 3]
    assert job.of("a", fx.Invoke, lambda effect: effect.tasks) == [[1]]


FAN = {0: (), **dict.fromkeys(range(1, 6), (0,)), 6: (1, 2, 3, 4, 5)}


@pytest.mark.parametrize(("invoke", "kept"), [(1e-9, 1), (2.5e-3, 2), (4.5e-3, 4)])
def test_it_keeps_as_many_children_as_run_while_one_is_invoked(invoke: float, kept: int) -> None:
    job = Tiny(FAN, costs=COSTS.replace(invoke=invoke, unknown=1e-3))
    job.enter("a", 0).end()
    assert len(job.ran("a")) == 1 + kept
    (invoked,) = job.of("a", fx.Invoke)
    assert len(invoked.tasks) == 5 - kept
    assert invoked.per == kept


def test_it_keeps_all_children_that_run_sooner_than_one_is_invoked() -> None:
    job = Tiny(FAN, costs=COSTS.replace(invoke=1.0, unknown=1e-3))
    job.enter("a", 0).end()
    assert job.ran("a") == [0, 1, 2, 3, 4, 5, 6]
    assert job.of("a", fx.Invoke) == []


@pytest.mark.parametrize(("nbytes", "kept"), [(SMALL, 1), (2_500_000, 2), (LARGE, 5)])
def test_it_keeps_the_more_children_the_longer_their_input_travels(nbytes: int, kept: int) -> None:
    """At 1 GB/s, and a millisecond for each child."""
    job = Tiny(FAN, {0: nbytes}, costs=COSTS.replace(unknown=1e-3))
    job.enter("a", 0).end()
    assert sum(task in FAN[6] for task in job.ran("a")) == kept
    assert [len(tasks) for tasks in job.of("a", fx.Invoke, lambda effect: effect.tasks)] == [5 - kept][: 5 - kept]


def test_what_rides_with_its_record_keeps_no_children_here() -> None:
    """To read it takes as long as nine of them, but whoever claims a child has it already."""
    job = Tiny(FAN, {0: 900_000}, costs=COSTS.replace(unknown=1e-4))
    job.enter("a", 0).end()
    assert len(job.of("a", fx.Invoke, lambda effect: effect.tasks)[0]) == 4


def test_a_value_whose_children_are_all_kept_is_never_written_nor_what_they_make_of_it() -> None:
    job = Tiny(FAN, LARGE, costs=COSTS.replace(unknown=1e-3))
    job.busy = True
    job.enter("a", 0).end()
    assert job.ran("a") == [0, 1, 2, 3, 4, 5, 6]
    assert job.of("a", fx.Put, lambda effect: [task for task, _, _ in effect.frames]) == [[6]]
    assert results(job) == ["6(1(0()),2(0()),3(0()),4(0()),5(0()))"]


def test_while_nobody_is_idle_it_keeps_more_of_the_children_of_a_large_value() -> None:
    job = Tiny(FAN, {0: 1_200_000}, costs=COSTS.replace(unknown=4e-3))
    job.busy = True
    job.enter("a", 0).end()
    assert len([task for task in job.ran("a") if task in FAN[6]]) == 3


def test_a_queue_of_its_own_makes_it_keep_less() -> None:
    """Three leaves are its own already, so of the five children of the first only two are kept."""
    graph = {0: (), 1: (), 2: (), 3: (), **dict.fromkeys(range(4, 9), (0,)), 9: (*range(1, 9),)}
    job = Tiny(graph, costs=COSTS.replace(invoke=5.5e-3, unknown=1e-3, round_trip=1e-9))
    job.enter("a", 0, 1, 2, 3).until(runs(1))
    assert {t for t, active in job.shards[0].active.items() if active.owner == "a" and t > 3} == {4, 5}


def test_inputs_stay_at_hand_for_a_child_that_reads_them_too() -> None:
    """Each task but the first reads what the two before it made: one claim, and then one commit a task."""
    job = Tiny({0: (), 1: (0,), 2: (0, 1), 3: (1, 2), 4: (2, 3)})
    job.enter("a", 0).end()
    assert job.ran("a") == [0, 1, 2, 3, 4]
    assert [type(ask.request) for ask in job.of("a", fx.Ask)] == [m.Claim, *5 * [m.Commit]]


def test_finished_work_is_settled_at_once_if_what_follows_may_take_long() -> None:
    graph = {0: (), 1: (), 2: (0, 1)}
    quick = Tiny(graph)
    quick.enter("a", 0, 1).end()
    assert quick.order("a")[:4] == ["run 0", "run 1", "commit 0 inline", "commit 1 inline"]
    slow = Tiny(graph, costs=COSTS.replace(unknown=1.0))
    slow.enter("a", 0, 1).end()
    assert slow.order("a")[:4] == ["run 0", "commit 0 inline", "run 1", "commit 1 inline"]


def test_a_request_has_so_many_outcomes_at_most() -> None:
    """A script of the store holds up everybody else's."""
    leaves = range(600)
    job = Tiny({**dict.fromkeys(leaves, ()), 600: tuple(leaves)}, costs=COSTS.replace(round_trip=1.0))
    walking = job.enter("a", *leaves)
    for _ in range(2000):
        if walking.next is None:
            break
        walking.step()
    commits = [len(ask.request.outcomes) for ask in job.of("a", fx.Ask) if isinstance(ask.request, m.Commit)]
    assert commits == [256, 256, 88, 1]


# --- claim before write -----------------------------------------------------------------------------------------------


def test_a_large_value_is_never_written_if_its_only_child_is_granted() -> None:
    job = Tiny({0: (), 1: (0,), 2: (1,)}, LARGE)
    job.enter("a", 0).end()
    assert job.order("a") == [
        "run 0", "commit 0 held", "run 1", "commit 1 held", "run 2", "put 2", "commit 2 stored",
    ]  # fmt: skip
    assert job.finished
    assert results(job) == ["2(1(0()))"]


def test_a_large_value_with_more_children_than_are_kept_is_written_first() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2)}, LARGE, costs=COSTS.replace(unknown=1.0))
    job.enter("a", 0).until(runs(1))
    assert job.order("a") == ["run 0", "put 0", "commit 0 stored"]


def test_the_verdict_write_has_the_value_written_before_it_is_committed_again() -> None:
    job = Tiny({0: (), 1: (), 2: (0, 1)}, LARGE, costs=COSTS.replace(copies=0))
    job.enter("a", 0).end()
    assert job.order("a") == ["run 0", "commit 0 held", "put 0", "commit 0 stored"]
    job.enter("b", 1).end()
    # The one who comes last has every other edge in, so it may keep its own.
    assert job.order("b") == ["run 1", "commit 1 held", "run 2", "put 2", "commit 2 stored"]
    assert results(job) == ["2(0(),1())"]


def test_an_output_is_never_held() -> None:
    job = Tiny({0: (), 1: (0,)}, LARGE, outputs=(0, 1))
    job.enter("a", 0).end()
    assert job.order("a") == ["run 0", "put 0", "commit 0 stored", "run 1", "put 1", "commit 1 stored"]


# --- delayed I/O ------------------------------------------------------------------------------------------------------

JOIN = {0: (), 1: (), 2: (0, 1)}


def holding() -> tuple[Tiny, Walking]:
    """An executor that holds the value of 0 for 2, which needs 1, too."""
    job = Tiny(JOIN, {0: LARGE, 1: SMALL, 2: SMALL})
    return job, job.enter("a", 0).until(pauses)


def test_a_large_value_waits_for_the_last_child_and_is_never_written() -> None:
    job, walking = holding()
    job.enter("b", 1).end()
    assert job.ran("b") == [1]
    walking.end()
    assert job.order("a") == ["run 0", "commit 0 held", "pause", "run 2", "commit 2 inline"]
    assert job.stored == {}
    assert results(job) == ["2(0(),1())"]


def test_nothing_is_held_while_the_platform_has_other_work() -> None:
    job = Tiny(JOIN, {0: LARGE})
    job.busy = True
    job.enter("a", 0).end()
    assert job.order("a") == ["run 0", "commit 0 held", "put 0", "commit 0 stored"]


def test_a_held_value_is_written_when_the_platform_gets_other_work() -> None:
    job, walking = holding()
    job.busy = True
    walking.end()
    assert job.order("a") == ["run 0", "commit 0 held", "pause", "put 0", "commit 0 stored"]
    job.enter("b", 1).end()
    assert job.ran("b") == [1, 2]
    assert results(job) == ["2(0(),1())"]


def test_a_held_value_is_written_when_waiting_has_cost_as_much() -> None:
    job, walking = holding()
    walking.end()
    pauses = job.order("a").count("pause")
    assert pauses * 2 * job.costs.round_trip == pytest.approx(job.costs.hold(LARGE), abs=2 * job.costs.round_trip)
    assert job.order("a")[-2:] == ["put 0", "commit 0 stored"]


def test_two_values_held_for_one_child_are_written_together() -> None:
    """Were the child given away with the first, whoever gets it would have to compute the second again."""
    job = Tiny({0: (), 1: (), 2: (), 3: (0, 1, 2)}, LARGE)
    walking = job.enter("a", 0, 1).until(pauses)
    assert job.order("a") == ["run 0", "run 1", "commit 0 held", "commit 1 held"]
    job.busy = True
    walking.end()
    assert job.order("a")[4:] == ["pause", "put 0 1", "commit 0 stored", "commit 1 stored"]
    assert len([ask for ask in job.of("a", fx.Ask) if isinstance(ask.request, m.Commit)]) == 2
    job.enter("b", 2).end()
    assert job.ran("b") == [2, 3]
    assert results(job) == ["3(0(),1(),2())"]


def test_a_held_value_that_is_written_gives_up_what_it_was_made_of() -> None:
    job = Tiny({0: (), 1: (0,), 2: (), 3: (1, 2)}, {0: SMALL, 1: LARGE})
    walking = job.enter("a", 0).until(pauses)
    assert 0 in job.shards[0].values, "whoever had to recompute 1 would need it"
    job.busy = True
    walking.end()
    assert 0 not in job.shards[0].values


def test_of_two_who_would_wait_for_one_child_one_writes() -> None:
    job = Tiny(JOIN | {3: (2,)}, {0: LARGE, 1: LARGE})
    first = job.enter("a", 0).until(pauses)
    job.enter("b", 1).end()
    first.end()
    assert job.ran("a") == [0, 2, 3]
    assert job.of("a", fx.Put) == []
    assert job.order("b") == ["run 1", "commit 1 held", "put 1", "commit 1 stored"]
    assert results(job) == ["3(2(0(),1()))"]


# --- values at hand ---------------------------------------------------------------------------------------------------


@pytest.fixture
def uncollected():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_in_a_chain_only_the_input_of_what_runs_is_alive(size: int) -> None:
    job = Tiny({0: (), **{i: (i - 1,) for i in range(1, 6)}}, size, costs=COSTS.replace(unknown=1.0))
    walking = job.enter("a", 0)
    for task in range(1, 6):
        walking.until(runs(task))
        alive = job.living()
        assert task - 1 in alive
        # The debt of a value that is only here is the input it could be recomputed from, in the records.
        assert alive <= {task - 1}
    walking.end()


@pytest.mark.usefixtures("uncollected")
def test_a_value_is_let_go_after_its_last_use_here_and_not_before() -> None:
    graph = {0: (), 1: (0,), 2: (0,), 3: (0, 1, 2), 4: (3,), 5: (4,)}
    job = Tiny(graph, {0: LARGE}, costs=COSTS.replace(invoke=1.0, unknown=1e-2))
    walking = job.enter("a", 0)
    for task, alive in [(1, {0}), (2, {0, 1}), (3, {0, 1, 2}), (4, {3}), (5, {4})]:
        walking.until(runs(task))
        assert job.living() == alive
    walking.end()
    assert job.of("a", fx.Fetch) == []


@pytest.mark.usefixtures("uncollected")
def test_a_value_whose_children_all_run_elsewhere_is_let_go_when_it_is_written() -> None:
    job = Tiny(JOIN, {0: LARGE}, costs=COSTS.replace(copies=0))
    walking = job.enter("a", 0).end()
    job.stored.clear()
    assert walking.next is None
    assert job.living() == set()


def test_the_inputs_of_a_fan_in_come_back_with_the_claim() -> None:
    job = Tiny(JOIN)
    job.enter("a", 0).end()
    job.enter("b", 1).end()
    assert job.ran("b") == [1, 2]
    assert job.of("b", fx.Fetch) == []
    claims = [ask for ask in job.of("b", fx.Ask) if isinstance(ask.request, m.Claim)]
    assert len(claims) == 1, "its start, and never again"
    assert results(job) == ["2(0(),1())"]


def test_a_stored_input_is_fetched_once_by_who_needs_it_twice() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2)}, {0: LARGE}, costs=COSTS.replace(copies=0))
    job.enter("a", 0).until(runs(1)).die()
    assert sorted(sweep(job)) == [1]
    job.enter("b", 1, 2).end()
    assert job.ran("b") == [1, 2, 3]
    assert len(job.of("b", fx.Fetch)) == 1
    assert job.stored == {}, "what all consumers have used is dropped"


# --- coming second, dying, taking over --------------------------------------------------------------------------------


def test_the_blob_of_an_attempt_that_lost_is_dropped() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2)}, {0: LARGE}, costs=COSTS.replace(copies=0))
    late = job.enter("a", 0).until(commits)
    job.now += 20
    assert sweep(job) == [0]
    job.enter("b", 0).until(runs(1))
    assert set(job.stored) == {(0, 1), (0, 2)}
    late.end()
    assert set(job.stored) == {(0, 2)}
    assert job.of("a", fx.Drop, lambda effect: effect.names) == [[(0, 1)]]
    assert job.ran("a") == [0]


def test_a_task_that_is_committed_but_not_settled_is_settled_and_not_run_again() -> None:
    """0 and 64 live in different shards; who committed 0 dies before 64 hears of it."""
    job = Tiny({0: (), 64: (0,)}, shards=2)
    walking = job.enter("a", 0).until(
        lambda effect: isinstance(effect, fx.Ask) and isinstance(effect.request, m.Arrive)
    )
    assert job.shards[0].active[0].state == states.UNSETTLED
    walking.die()
    assert sweep(job) == [0]
    job.enter("b", 0).end()
    assert job.ran("b") == [64]
    assert job.shards[0].apply(m.Probe((0,)), job.now).body[0].state == states.SETTLED
    assert results(job) == ["64(0())"]


def test_a_value_is_freed_with_its_last_use_in_another_shard() -> None:
    job = Tiny({0: (), 64: (0,), 128: (64,)}, {0: LARGE, 64: LARGE}, shards=2)
    job.enter("a", 0).until(runs(128))
    assert 0 not in job.shards[0].values
    assert (0, 1) not in job.stored


def test_a_task_lost_too_often_ends_the_job_by_name() -> None:
    job = Tiny({0: (), 1: (0,)}, costs=COSTS.replace(attempts=2))
    for name in "ab":
        job.enter(name, 0).until(runs(0)).die()
        assert sweep(job) == [0]
    last = job.enter("c", 0).until(lambda effect: isinstance(effect, fx.Fail))
    assert isinstance(last.next, fx.Fail)
    assert isinstance(last.next.error, TaskLost)
    assert "task 0" in str(last.next.error)


def test_who_is_told_that_the_job_is_over_deletes_what_no_record_names() -> None:
    job = Tiny({0: (), 1: (0,), 2: (0,), 3: (1, 2)}, LARGE, costs=COSTS.replace(copies=0))
    walking = job.enter("a", 0).until(commits)
    assert set(job.stored) == {(0, 1)}
    job.shards[0].apply(m.Cancel(m.CANCELLED, b"by hand"), job.now)
    walking.end()
    assert job.stored == {}


def test_an_executor_whose_starts_are_taken_asks_for_nothing_more() -> None:
    job = Tiny({0: (), 1: (0,)})
    first = job.enter("a", 0).until(runs(0))
    job.enter("b", 0).end()
    assert len(job.of("b", fx.Ask)) == 1
    first.end()
    assert results(job) == ["1(0())"]


def test_the_lease_doubles_with_each_try_at_a_task() -> None:
    job = Tiny({0: (), 1: (0,)})
    for tries, name in enumerate("abc"):
        job.enter(name, 0).until(runs(0))
        deadline = job.shards[0].executors[name].deadline
        assert deadline - job.now == LEASE * 2**tries
        job.now = deadline
        assert sweep(job) == []
        job.now += 1
        assert sweep(job) == [0]
    job.enter("d", 0).end()
    commit = next(ask.request for ask in job.of("d", fx.Ask) if isinstance(ask.request, m.Commit))
    assert commit.lease == 8 * LEASE
    assert len([ask for ask in job.of("d", fx.Ask) if isinstance(ask.request, m.Renew)]) == 1
    assert results(job) == ["1(0())"]


def test_an_executor_goes_on_from_what_was_claimed_in_its_name() -> None:
    job = Tiny({0: (), 1: (), 2: (0, 1)})
    job.enter("a", 0).end()
    reply = job.shards[0].apply(m.Claim("b", 1, LEASE, ((1, ()),)), job.now)
    job.enter("b", 1, granted=reply.body).end()
    assert not any(isinstance(ask.request, m.Claim) for ask in job.of("b", fx.Ask))
    assert results(job) == ["2(0(),1())"]


def test_a_task_that_may_run_only_once_is_not_started_again() -> None:
    job = Tiny({0: (), 1: (0,)})
    job.plan.only_once.add(0)
    job.enter("a", 0).until(runs(0)).die()
    assert sweep(job) == [0]
    last = job.enter("b", 0).until(lambda effect: isinstance(effect, fx.Fail))
    assert isinstance(last.next, fx.Fail)
    assert isinstance(last.next.error, TaskLost)
    assert "only once" in str(last.next.error)
    assert job.ran("b") == []


def test_the_value_of_a_task_that_may_run_only_once_is_stored_before_anything_else_runs() -> None:
    job = Tiny({0: (), 1: (0,), 2: ()}, {0: LARGE}, outputs=(1, 2))
    job.plan.only_once.add(0)
    job.enter("a", 0, 2).end()
    assert job.order("a")[:3] == ["run 0", "put 0", "commit 0 stored"]


def test_the_value_of_a_task_that_may_run_only_once_is_not_computed_again() -> None:
    job = Tiny({0: (), 1: (0,)}, {0: LARGE})
    job.plan.only_once.add(0)
    job.enter("a", 0).until(runs(1)).die()
    job.stored.clear()
    assert sweep(job) == [1]
    last = job.enter("b", 1).until(lambda effect: isinstance(effect, fx.Fail))
    assert isinstance(last.next, fx.Fail)
    assert isinstance(last.next.error, TaskLost)
    assert job.ran("b") == []

"""What the client does at both ends of a job, request by request, on the reference store."""

import operator
from typing import Any

import pytest

from wukong import serialize
from wukong.cost import IN_PROCESS, Estimates
from wukong.errors import JobStalled
from wukong.executor import effects as fx
from wukong.executor.driver import Driver
from wukong.executor.effects import Packed
from wukong.executor.job import Job
from wukong.protocol import messages as m
from wukong.protocol import states
from wukong.protocol.sharding import BLOCK, home
from wukong.scheduler.dask.lower import lower
from wukong.scheduler.launch import Client
from wukong.storage.control.memory import MemoryControlStore
from wukong.storage.values.heap import HeapValueStore


class Notes:
    """A platform that only notes what it is asked for."""

    over = False

    def __init__(self) -> None:
        self.invoked: list[int] = []
        self.finished = False
        self.failed: BaseException | None = None

    def invoke(self, tasks: Any, per: int) -> None:  # noqa: ARG002
        self.invoked.extend(tasks)

    def busy(self) -> bool:
        return False

    def pause(self, seconds: float) -> bool:  # noqa: ARG002
        return False

    def finish(self) -> None:
        self.finished = True

    def gone(self) -> None:
        pass

    def fail(self, key: Any, error: BaseException) -> None:  # noqa: ARG002
        self.failed = error


def job_of(graph: dict[Any, Any], outputs: list[Any], shards: int = 1, inline: int = 1000) -> tuple[Job, Client, Notes]:
    """A job of which every value larger than `inline` bytes is stored; no two tasks are fused."""

    def pack(value: Any) -> Packed:
        frame = bytes(serialize.dumps(value))
        return Packed(len(frame) - 64 <= inline, len(frame), frame)

    plan, notes = lower(graph, outputs, fuse=False), Notes()
    control = MemoryControlStore(shards)
    job = Job("j", plan, control, HeapValueStore(), IN_PROCESS, Estimates(1e-3), pack, serialize.loads, notes)
    return job, Client(job, plan), notes


def run(job: Job, notes: Notes) -> None:
    """Carry out what is invoked until nothing is."""
    while notes.invoked:
        Driver(job).enter([notes.invoked.pop()])


def wide(leaves: int) -> dict[Any, Any]:
    return {f"x{i}": (operator.neg, i) for i in range(leaves)}


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("leaves", [1, BLOCK * 3, 10_000])
def test_every_leaf_is_made_ready_once_in_its_own_shard(shards: int, leaves: int) -> None:
    graph = wide(leaves)
    job, client, notes = job_of(graph, list(graph), shards)
    client.launch()
    assert sorted(notes.invoked) == list(range(leaves))
    for shard in range(shards):
        tasks = tuple(task for task in range(leaves) if home(task, shards) == shard)
        found = job.control.apply("j", shard, m.Probe(tasks)).body
        assert {state.state for state in found} <= {states.READY}


@pytest.mark.parametrize("inline", [0, 1000])
@pytest.mark.parametrize("shards", [1, 3])
def test_results_are_collected_inline_and_stored_over_many_requests_and_shards(shards: int, inline: int) -> None:
    graph = wide(5000)
    job, client, notes = job_of(graph, list(graph), shards, inline)
    client.launch()
    run(job, notes)
    assert notes.finished
    results = client.collect()
    assert [results[task] for task in job.plan.requested] == [-i for i in range(5000)]


def test_an_executor_hears_before_its_next_task_that_the_job_is_over() -> None:
    ran: list[int] = []

    def end(value: int) -> None:
        ran.append(value)
        notes.over = value == 3

    job, client, notes = job_of({f"x{i}": (end, i) for i in range(10)}, [f"x{i}" for i in range(10)])
    client.launch()
    tally = Driver(job).enter(notes.invoked)
    # The store knows nothing of it.
    assert job.control.apply("j", 0, m.Probe(())).status == m.RUNNING
    assert ran == [0, 1, 2, 3]
    assert tally.tasks == 4


def test_what_is_not_complete_cannot_be_collected() -> None:
    _, client, _ = job_of(wide(3), ["x0", "x1"])
    client.launch()
    with pytest.raises(JobStalled, match="not complete"):
        client.collect()


def test_only_one_client_has_the_results() -> None:
    job, client, notes = job_of(wide(3), ["x0"])
    client.launch()
    run(job, notes)
    other = Client(job, job.plan)
    assert client.collect() == {job.plan.outputs[0]: 0}
    with pytest.raises(JobStalled, match="another client"):
        other.collect()


@pytest.mark.parametrize("shards", [1, 3])
def test_a_cancelled_job_runs_no_more_tasks(shards: int) -> None:
    ran: list[int] = []
    graph = {f"x{i}": (ran.append, i) for i in range(BLOCK * 3)}
    job, client, notes = job_of(graph, list(graph), shards)
    client.launch()
    client.cancel(m.CANCELLED, b"enough")
    run(job, notes)
    assert ran == []
    with pytest.raises(JobStalled, match="enough"):
        client.collect()


@pytest.mark.parametrize("shards", [1, 3])
def test_a_released_job_leaves_no_record_and_late_executors_bring_none_back(shards: int) -> None:
    graph = wide(BLOCK * 3)
    job, client, notes = job_of(graph, list(graph), shards, inline=0)
    client.launch()
    late = notes.invoked.pop()
    run(job, notes)
    client.release()
    Driver(job).enter([late])
    assert not any(job.control._jobs)


def test_values_that_are_given_make_their_children_ready_and_may_be_results() -> None:
    plan = lower({"b": (operator.add, "a", 1)}, ["a", "b"], {"a": None})
    notes = Notes()
    job = Job(
        "j", plan, MemoryControlStore(), None, IN_PROCESS, Estimates(1e-3),
        lambda value: Packed(True, 8, value), lambda body: body, notes,
    )  # fmt: skip
    client = Client(job, plan)
    client.launch()
    assert notes.invoked == []
    client.supply({plan.given[0]: 41})
    assert notes.invoked == [plan.requested[1]]
    run(job, notes)
    results = client.collect()
    assert [results[task] for task in plan.requested] == [41, 42]


def test_a_job_whose_results_are_all_given_is_finished_at_once() -> None:
    plan = lower({}, ["a"], {"a": None})
    notes = Notes()
    job = Job(
        "j", plan, MemoryControlStore(), None, IN_PROCESS, Estimates(1e-3),
        lambda value: Packed(True, 8, value), lambda body: body, notes,
    )  # fmt: skip
    client = Client(job, plan)
    client.launch()
    client.supply({plan.given[0]: 41})
    assert notes.finished
    assert client.collect() == {plan.given[0]: 41}


def test_a_value_that_is_written_after_its_job_was_over_is_deleted_again() -> None:
    job, _, notes = job_of({"a": (int,)}, ["a"])

    def put(attempt: int) -> Any:
        yield fx.Put([(0, attempt, serialize.dumps(1).parts)])

    assert job.values is not None
    Driver(job).follow(put(1))
    notes.over = True
    Driver(job).follow(put(2))
    found = job.values.get(["0.1", "0.2"])
    assert [frame is not None for frame in found] == [True, False]

"""Recovery of executors in worker processes, where time is the test's own."""

import types
from typing import Any

from wukong.cost import LOCAL_SERVER, Estimates
from wukong.errors import WorkerLost
from wukong.executor.job import Job
from wukong.protocol import messages as m
from wukong.scheduler.dask.graphs import merge
from wukong.scheduler.dask.lower import lower
from wukong.scheduler.recovery import Recovery, Terms
from wukong.storage.control.memory import MemoryControlStore


def a_job(plan: Any, now: list[float], working: int, workers: int) -> tuple[Recovery, MemoryControlStore, list[int]]:
    """Open a job; return its recovery, its records, and the list of what is started again.

    Whoever stands for a worker here is the task that it is at.
    """
    control = MemoryControlStore(1, lambda: now[0])
    started: list[int] = []

    def invoke_again(tasks: list[int]) -> list[int]:
        started.extend(tasks)
        return tasks

    posted: Any = types.SimpleNamespace(
        over=False, busy=lambda: False, working=working, workers=workers, invoke_again=invoke_again
    )
    job = Job("job", plan, control, None, LOCAL_SERVER, Estimates(1.0), lambda _: None, lambda _: None, posted)
    every = tuple(m.Edge(task, 1) for task in plan.tasks)
    control.apply("job", 0, m.Arrive("client", 1, 1e9, (m.Outcome(m.CLIENT, 0, m.Value(m.STORED, 0), every),)))
    at: Any = lambda task: task  # noqa: E731
    return Recovery(job, plan, posted, at, lambda: 1, Terms(), ours=False), control, started


def test_a_second_copy_takes_nothing_from_those_whose_leases_ran_out_while_the_client_stood_still() -> None:
    keys = [f"k{i}" for i in range(13)]
    plan = lower(merge(dict.fromkeys(keys, (abs, -1))), keys, {}, fuse=False)
    *done, straggler, other = sorted(plan.tasks)
    now = [0.0]
    recovery, control, started = a_job(plan, now, 2, 3)
    for task in done:
        control.apply("job", 0, m.Claim("before", task + 1, 1e9, ((task, ()),)))
        recovery.job.away.add(task, 0.0, 0.1, None)
    entries = [recovery.begin(task, [task])[0] for task in (straggler, other)]  # type: ignore[arg-type]
    for entry in entries:
        control.apply("job", 0, m.Claim(entry.nonce, 1, LOCAL_SERVER.lease, ((entry.starts[0], ()),)))
    recovery.look()
    assert started == []
    entries[0].since -= 10.0
    now[0] += LOCAL_SERVER.lease + 1.0
    recovery.look()
    assert started == [straggler]


def test_what_a_dead_worker_asked_for_last_is_taken_from_it_though_it_came_after_the_sweep() -> None:
    plan = lower(merge({"k": (abs, -1)}), ["k"], {}, fuse=False)
    (task,) = plan.tasks
    recovery, control, started = a_job(plan, [0.0], 1, 2)
    entry, _ = recovery.begin(task, [task])  # type: ignore[arg-type]
    assert recovery.lost(entry, WorkerLost("it died")) is None
    started.clear()
    control.apply("job", 0, m.Claim(entry.nonce, 1, LOCAL_SERVER.lease, ((task, ()),)))
    recovery.look()
    assert started == [task]

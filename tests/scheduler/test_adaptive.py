"""Where functions go under `granules="auto"`, decided without a job that runs."""

from typing import Any

import pytest

from wukong.cost import IN_PROCESS, PROCESSES, Estimates
from wukong.executor.job import Job
from wukong.platforms.local.placement import ByKind
from wukong.scheduler import adaptive
from wukong.scheduler.adaptive import Sorting, name_of
from wukong.scheduler.dask.lower import lower
from wukong.storage.control.memory import MemoryControlStore


def spin(x: int) -> int:
    return x


@pytest.fixture(autouse=True)
def _spin_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive.verdicts, "holds", lambda name: True if name == name_of([spin]) else None)
    monkeypatch.setattr(adaptive, "_missed", [0.0])
    monkeypatch.setattr(adaptive, "_lasted", {})


class Started:
    """Whether processes are there."""

    def __init__(self) -> None:
        self.yet = False

    def begin(self) -> None:
        self.yet = True


def sorted_job(tasks: int, seconds: float, started: Started) -> Sorting:
    """Sort the kinds of a job of so many tasks that last so long, with two workers."""
    graph: dict[Any, Any] = {f"x{i}": (spin, i) for i in range(tasks)}
    plan = lower(graph, list(graph), fuse=False)
    job = Job("j", plan, MemoryControlStore(), None, IN_PROCESS, Estimates(1e-3), None, None, None)  # type: ignore[arg-type]
    job.estimates.saw(plan.kind(0), seconds)
    placement = ByKind(plan.kind, dict, {})
    sorting = Sorting(plan, placement, job, 2, lambda: started.yet, started.begin)
    sorting.sort(plan.kind(0))
    return sorting


def test_a_job_that_is_long_enough_pays_for_the_start_of_processes() -> None:
    started = Started()
    tasks = int(2 * PROCESSES.start / 0.01) + 2
    assert list(sorted_job(tasks, 0.01, started).reasons.values()) == ["processes: it holds the interpreter"]
    assert started.yet


def test_short_jobs_that_come_again_and_again_pay_for_it_together() -> None:
    started = Started()
    tasks = int(2 * PROCESSES.start / 0.01) // 2 - 1
    for _ in range(2):
        sorting = sorted_job(tasks, 0.01, started)
        assert not started.yet
        assert sorting.reasons == {}
        sorting.remember()
    sorted_job(tasks, 0.01, started)
    assert started.yet


def test_what_a_job_would_have_saved_counts_once_however_often_somebody_looks() -> None:
    started = Started()
    tasks = int(2 * PROCESSES.start / 0.01) // 3
    sorting = sorted_job(tasks, 0.01, started)
    for _ in range(10):
        sorting.sort(0)
    assert not started.yet


def test_a_kind_whose_tasks_were_seen_to_wait_for_each_other_is_sorted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[Any, bool] = {name_of([spin]): False}
    monkeypatch.setattr(adaptive.verdicts, "holds", found.get)

    def accuse(name: Any) -> bool:
        found[name] = True
        return True

    monkeypatch.setattr(adaptive.verdicts, "accuse", accuse)
    started = Started()
    started.begin()
    sorting = sorted_job(4, 0.01, started)
    assert list(sorting.reasons.values()) == ["threads: it lets go of the interpreter"]
    sorting.accuse(name_of([spin]))
    assert list(sorting.reasons.values()) == ["processes: it holds the interpreter"]

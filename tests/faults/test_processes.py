"""Jobs in worker processes that die, fall silent or straggle: right, or a typed error, soon, and nothing left."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import dask
import pytest

import wukong
from tests import drivers
from tests.faults import processes as faults
from wukong.cost import PROCESSES
from wukong.errors import TaskLost
from wukong.platforms.local.packs import pack_of
from wukong.platforms.local.watch import EVERY
from wukong.scheduler import recovery
from wukong.scheduler.service import _desk_of


def get(graph: dict[str, Any], keys: Any, **options: Any) -> Any:
    return wukong.get(graph, keys, granules="processes", workers=2, **options)


def dies(path: str) -> None:
    """Leave word, and take the worker along."""
    with open(path, "a") as runs:
        runs.write("x")
    os._exit(9)


@pytest.fixture(autouse=True)
def pack() -> Iterator[Any]:
    """Workers that are there, and that may be stopped for a short while only."""
    there = pack_of(2)
    assert there is not None
    lease, there._watch.lease = there._watch.lease, faults.LEASE
    drivers.until(lambda: there.ready, "there are workers")
    yield there
    there._watch.lease = lease


def good(row: faults.Row) -> bool:
    return row.injected > 0 and row.right > 0 and not (row.wrong or row.hangs or row.leftovers)


@pytest.mark.parametrize("fault", [faults.end_by_kill, faults.end_by_exit])
def test_a_worker_may_die_at_every_step(fault: Callable[[], None]) -> None:
    row = faults.at_steps(fault, range(1, 6))
    assert good(row)
    assert not row.errors, row.last


def test_workers_may_die_at_any_moment() -> None:
    assert good(faults.at_random("kill -9", signal.SIGKILL, 2.0, 0.3))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_keeper_may_die_and_it_may_be_stopped_when_a_worker_dies(number: int) -> None:
    assert good(faults.keepers(number, 1))


def test_workers_may_die_over_a_server(tcp_url: str) -> None:
    assert good(faults.at_steps(faults.end_by_kill, range(2, 5), store=tcp_url))
    assert good(faults.keepers(signal.SIGKILL, 1, store=tcp_url))


def test_a_worker_that_is_stopped_for_longer_than_its_lease_is_replaced(tmp_path: Path) -> None:
    def stops_once(x: int) -> int:
        if x == 3 and faults._claims(str(tmp_path)):
            os.kill(os.getpid(), signal.SIGSTOP)
        return x

    graph = {f"a{i}": (stops_once, i) for i in range(6)}
    assert get(graph, list(graph)) == (0, 1, 2, 3, 4, 5)
    run = wukong.last_run()
    assert run is not None
    assert "1 worker processes died" in repr(run)


def test_a_task_that_holds_the_interpreter_for_longer_than_the_lease_runs_once(tmp_path: Path) -> None:
    def long() -> int:
        with open(tmp_path / "runs", "a") as runs:
            runs.write("x")
        # One call of C code that does not let go of the interpreter.
        return len(str(sum(range(60_000_000))))

    assert get({"a": (long,), "b": (int,)}, ["a", "b"]) == (16, 0)
    assert (tmp_path / "runs").read_text() == "x"


def test_tasks_that_wait_behind_one_that_kills_are_not_blamed() -> None:
    def lasts(x: int) -> int:
        return x

    graph: dict[str, Any] = {f"a{i:02}": (lasts, i) for i in range(40)}
    graph["a20"] = (os._exit, 9)
    get({key: task for key, task in graph.items() if key != "a20"}, ["a00"])
    with pytest.raises(
        TaskLost, match=r"task 'a20' was running when its worker died, 3 times.*exit status 9"
    ) as caught:
        get(graph, list(graph))
    assert caught.value.status == 9


def test_a_straggler_has_a_second_copy_and_the_first_to_be_through_wins(tmp_path: Path) -> None:
    def lasts(x: int) -> int:
        if x == 7 and faults._claims(str(tmp_path)):
            # Until the other one is through with everything.
            deadline = time.monotonic() + 30
            while not (tmp_path / "over").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
        return x

    graph = {f"a{i:02}": (lasts, i) for i in range(24)}
    began = time.monotonic()
    try:
        assert get(graph, list(graph)) == tuple(range(24))
        assert time.monotonic() - began < 30
        assert "1 stragglers were started a second time" in repr(wukong.last_run())
    finally:
        (tmp_path / "over").touch()


@pytest.mark.parametrize("stragglers", [True, False])
def test_a_task_far_behind_has_no_second_copy_if_there_are_to_be_none(
    pack: Any, stragglers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lasts(_: int) -> int:
        with open(tmp_path / "runs", "a") as runs:
            runs.write("x")
        deadline = time.monotonic() + 30
        while not (tmp_path / "over").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return os.getpid()

    # Whatever a worker is at for two looks is far behind.
    monkeypatch.setattr(recovery, "_LEAST", 0.0)
    monkeypatch.setattr(recovery.Recovery, "_straggles", lambda *_: True)
    job = Thread(target=lambda: get({"a": (lasts, 1)}, "a", stragglers=stragglers), daemon=True)
    job.start()
    try:
        drivers.until(lambda: (tmp_path / "runs").exists() and pack.idle == 1, "one works, and one is idle")
        (there,) = _desk_of(pack).jobs.values()
        for _ in range(3):
            there.recovery.look()
        assert there.recovery.copies == stragglers
        drivers.until(lambda: (tmp_path / "runs").read_text() == "x" * (1 + stragglers), "each copy runs")
    finally:
        (tmp_path / "over").touch()
        job.join(30)
    drivers.until(lambda: pack.idle == 2, "nobody is at work")


@pytest.mark.parametrize("granules", ["processes", "auto"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_task_ends_its_job_with_as_many_deaths_as_were_allowed(attempts: int, granules: str, tmp_path: Path) -> None:
    with dask.annotate(workers="processes"), pytest.raises(TaskLost, match="is not started again"):
        dask.delayed(dies)(str(tmp_path / "runs")).compute(scheduler=wukong.get, granules=granules, attempts=attempts)
    assert (tmp_path / "runs").read_text() == "x" * attempts


def test_a_task_over_a_server_ends_its_job_at_the_first_death_if_one_is_allowed(tcp_url: str, tmp_path: Path) -> None:
    with pytest.raises(TaskLost):
        get({"a": (dies, str(tmp_path / "runs"))}, "a", store=tcp_url, attempts=1)
    assert (tmp_path / "runs").read_text() == "x"


def test_tasks_and_calls_of_a_client_may_cost_as_many_workers_as_it_says(tmp_path: Path) -> None:
    with (
        wukong.config.set(attempts=2),
        wukong.Client(workers=1, granules="processes", attempts=1) as client,
        wukong.Client(workers=1, granules="processes", set_as_default=False) as as_configured,
    ):
        for kind, lost, attempts in (
            ("calls", lambda path: client.submit(dies, path), 1),
            ("tasks", lambda path: client.compute(dask.delayed(dies)(path)), 1),
            ("those of one graph", lambda path: client.compute(dask.delayed(dies)(path), attempts=2), 2),
            ("calls as configured", lambda path: as_configured.submit(dies, path), 2),
        ):
            with pytest.raises(TaskLost):
                lost(str(tmp_path / kind)).result()
            assert (tmp_path / kind).read_text() == "x" * attempts, kind


def test_what_a_dead_worker_had_is_started_again_soon(tmp_path: Path) -> None:
    def dies_once() -> float:
        if faults._claims(str(tmp_path)):
            (tmp_path / "died").write_text(repr(time.monotonic()))
            os._exit(1)
        return time.monotonic()

    seconds = get({"a": (dies_once,)}, "a") - float((tmp_path / "died").read_text())
    print(f"recovered after {seconds:.3f} s")
    assert seconds < faults.HANGS


@pytest.mark.soak
def test_a_worker_that_is_stopped_has_five_seconds(pack: Any, tmp_path: Path) -> None:
    def stops_once() -> float:
        if faults._claims(str(tmp_path)):
            (tmp_path / "stopped").write_text(repr(time.monotonic()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return time.monotonic()

    pack._watch.lease = PROCESSES.lease
    again = get({"a": (stops_once,)}, "a")
    assert again - float((tmp_path / "stopped").read_text()) >= PROCESSES.lease - EVERY


@pytest.mark.soak
def test_faults_of_every_kind_for_minutes() -> None:
    for row in faults.rows(times=6, seed=1000):
        assert good(row), row

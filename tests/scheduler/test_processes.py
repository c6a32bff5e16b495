"""Executors in processes: what they are given, what comes back, what becomes of those that die, and what is left."""

import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import dask
import numpy as np
import pytest
from dask._task_spec import Task
from dask.callbacks import Callback

import wukong
from tests import drivers
from wukong.cost import PROCESSES
from wukong.errors import CannotTravel, JobStalled, TaskLost, UnsupportedGraph
from wukong.platforms.local import board, threads
from wukong.platforms.local.pack import Pack
from wukong.platforms.local.packs import pack_of
from wukong.platforms.local.processors import workers_here
from wukong.scheduler import adaptive, company
from wukong.scheduler.dask.lower import lower
from wukong.scheduler.service import Service

pytestmark = pytest.mark.timeout(60)

#: Every value of more than a few bytes lies in the arena.
ARENA = PROCESSES.replace(round_trip=1e-7)


def get(graph: dict[Any, Any], keys: Any, **options: Any) -> Any:
    return wukong.get(graph, keys, granules="processes", **options)


def pid(*_: Any) -> int:
    return os.getpid()


def meet(folder: str, me: int, others: int) -> bool:
    """Whether so many others come within some seconds."""
    Path(folder, str(me)).touch()
    deadline = time.monotonic() + 20
    while len(os.listdir(folder)) < others and time.monotonic() < deadline:
        time.sleep(0.001)
    return len(os.listdir(folder)) >= others


# --- where, and in what -----------------------------------------------------------------------------------------------


def test_tasks_run_in_other_processes_and_what_joins_the_results_here() -> None:
    graph = {"a": (pid,), "b": (pid, "a"), "finalize-c": (lambda *x: (*x, os.getpid()), "a", "b")}
    a, b, joined = get(graph, ["finalize-c"])[0]
    assert os.getpid() == joined
    assert os.getpid() not in (a, b)


def test_as_many_run_at_once_as_there_are_workers(tmp_path: Path) -> None:
    graph = {f"m{i}": (meet, str(tmp_path), i, 3) for i in range(3)}
    assert get(graph, list(graph), workers=3) == (True,) * 3


def test_functions_of_this_moment_and_their_closures_travel() -> None:
    shift = 5
    graph = {"a": (lambda x: x + shift, 1), "b": (lambda x: [x, shift], "a")}
    assert get(graph, "b") == [6, 5]


def test_tasks_find_the_directory_environment_and_configuration_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WUKONG_TEST", "seen")
    with dask.config.set({"wukong_test": 7}), np.errstate(divide="raise"):
        graph = {
            "cwd": (os.getcwd,),
            "env": (os.environ.get, "WUKONG_TEST"),
            "config": (dask.config.get, "wukong_test"),
            "errstate": (lambda: np.geterr()["divide"],),
        }
        assert get(graph, ["cwd", "env", "config", "errstate"]) == (str(tmp_path), "seen", 7, "raise")
    monkeypatch.delenv("WUKONG_TEST")
    assert get({"env": (os.environ.get, "WUKONG_TEST")}, "env") is None


def test_what_tasks_print_comes_out_here(capsys: pytest.CaptureFixture[str]) -> None:
    get({"a": (print, "said in a process")}, "a")
    assert "said in a process" in capsys.readouterr().out


def test_a_compute_within_a_task_runs_in_that_task() -> None:
    def outer(n: int) -> Any:
        inner = {f"k{i}": (pid, i) for i in range(n)}
        return os.getpid(), set(wukong.get(inner, list(inner), granules="processes"))

    for process, inner in get({f"o{i}": (outer, 5) for i in range(4)}, [f"o{i}" for i in range(4)]):
        assert inner == {process}


def test_callbacks_are_told_of_every_task_with_its_value() -> None:
    told: dict[Any, Any] = {}

    class Note(Callback):  # type: ignore[misc]
        def _posttask(self, key: Any, value: Any, *_: Any) -> None:
            told[key] = value

    with Note():
        get({"a": (np.arange, 3), "b": (np.sum, "a")}, "b")
    assert told["b"] == 3
    np.testing.assert_array_equal(told["a"], [0, 1, 2])


class Lingers:
    """An output that takes its time to be flushed: a worker is not through with its invocation until then."""

    def __init__(self, folder: str) -> None:
        self.folder, self.before = folder, sys.stdout

    def flush(self) -> None:
        sys.stdout = self.before
        Path(self.folder, "lingers").touch()
        wait_for(self.folder, "over")


def wait_for(folder: str, name: str, *_: Any) -> bool:
    deadline = time.monotonic() + 20
    while not Path(folder, name).exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    return Path(folder, name).exists()


def test_tasks_are_told_of_though_their_worker_is_not_through_when_the_job_is(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def first() -> None:
        sys.stdout = Lingers(folder)  # type: ignore[assignment]

    graph = {"first": (first,), "other": (wait_for, folder, "lingers"), "last": (lambda _, met: met, "first", "other")}
    try:
        assert get(graph, "last", workers=2)
    finally:
        Path(folder, "over").touch()
    run = wukong.last_run()
    assert run is not None
    assert {(row.name, row.tasks) for row in run.functions} == {("first", 1), ("other", 1), ("last", 1)}


# --- values -----------------------------------------------------------------------------------------------------------


class Stays:
    """What cannot be loaded outside of the process that made it; without a function that refuses, not even packed."""

    def __init__(self, *loads: Any) -> None:
        self.loads = loads

    def __reduce__(self) -> Any:
        if not self.loads:
            raise TypeError("it stays")
        return self.loads


def refuse() -> None:
    raise TypeError("not here")


def test_callbacks_are_told_of_tasks_whose_values_cannot_be_loaded_here() -> None:
    seen = {}
    with Callback(posttask=lambda key, value, *_: seen.update({key: value})):
        assert get({"a": (Stays, refuse, ()), "b": (type, "a"), "c": (str, "b")}, "c").endswith("Stays'>")
        with pytest.raises(CannotTravel, match="Stays cannot be pickled"):
            get({"d": (Stays,), "e": (type, "d")}, "e")
    assert seen["a"] is seen["d"] is None
    assert seen["b"] is Stays


def test_what_a_callback_raises_ends_the_job_and_no_worker() -> None:
    pids = get({f"p{i}": (pid, i) for i in range(4)}, [f"p{i}" for i in range(4)])

    def refuses(*_: Any) -> None:
        raise KeyError("mine")

    for told in ("pretask", "posttask"):
        with Callback(**{told: refuses}), pytest.raises(KeyError, match="mine"):
            get({"a": (pid, 1), "b": (pid, "a")}, "b")
    pack = pack_of(workers_here())
    assert pack is not None
    assert set(pids) <= set(pack.pids)


def test_a_task_that_writes_into_its_input_changes_no_other_process_and_no_result() -> None:
    def spoil(x: Any, by: int) -> Any:
        x += by
        return x

    graph: dict[Any, Any] = {"x": (np.zeros, 50_000)}
    graph.update({f"s{i}": (spoil, "x", 1 + i) for i in range(6)})
    with patch.object(company, "PROCESSES", ARENA):
        *spoilt, x = get(graph, [*(f"s{i}" for i in range(6)), "x"])
    assert not x.any()
    for each in spoilt:
        assert each.flags.writeable
        assert each[0] > 0
        np.testing.assert_array_equal(each, np.full(50_000, each[0]))


def test_results_are_the_users_to_keep_and_to_change() -> None:
    with patch.object(company, "PROCESSES", ARENA):
        kept = get({f"r{i}": (np.full, 200_000, i) for i in range(4)}, [f"r{i}" for i in range(4)])
        for each in kept:
            each += 1
        for _ in range(3):
            get({f"q{i}": (np.full, 200_000, 99) for i in range(4)}, [f"q{i}" for i in range(4)])
    assert [set(each) for each in kept] == [{1}, {2}, {3}, {4}]


def test_a_job_leaves_nothing_in_the_arena() -> None:
    pack = pack_of(workers_here())
    assert pack is not None
    graph: dict[Any, Any] = {f"x{i}": (np.ones, 300_000) for i in range(6)}
    graph["sum"] = (lambda *x: float(sum(each.sum() for each in x)), *graph)
    with patch.object(company, "PROCESSES", ARENA):
        assert get(graph, "sum") == 1_800_000
        gc.collect()
        drivers.until(lambda: not _in_use(pack.arena), "everything is let go")


def _in_use(arena: Any) -> list[int]:
    """Blocks that hold a value, or that somebody reads."""
    return [block.id for block in arena._pool.blocks.values() if block.extents or block.readers]


# --- errors -----------------------------------------------------------------------------------------------------------


def test_the_error_of_a_task_comes_with_its_type_its_traceback_and_its_key() -> None:
    def burst(x: int) -> int:
        return 1 // x

    with pytest.raises(ZeroDivisionError) as caught:
        get({"a": (int,), "b": (burst, "a"), "c": (int, "b")}, "c")
    notes = "\n".join(caught.value.__notes__)
    assert "task 'b' failed, on the way b -> c" in notes


def test_a_task_that_kills_each_worker_fails_the_job_with_the_evidence_and_not_the_next() -> None:
    def dies() -> None:
        print("the last of it")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TaskLost, match=r"task 'a' was running when its worker died, 3 times.*SIGKILL.* MB") as caught:
        get({"a": (dies,), "b": (int, 3)}, ["a", "b"])
    assert caught.value.status == -signal.SIGKILL
    assert "the last of it" in "\n".join(caught.value.__notes__)
    assert get({"a": (int, 3)}, "a") == 3


def test_a_client_over_a_store_closes_while_a_process_is_at_work_for_a_job_that_is_over(tmp_path: Path) -> None:
    def works_on(began: Path) -> None:
        began.touch()
        time.sleep(60)

    def fails(began: Path) -> None:
        drivers.until(began.exists, "the other has begun")
        raise KeyError("over")

    began = tmp_path / "began"
    client = wukong.Client(workers=2, granules="processes", store="embedded", set_as_default=False)
    with client, pytest.raises(KeyError, match="over"):
        client.get({"a": (works_on, began), "b": (fails, began)}, ["a", "b"])
    assert client.closed


def test_processes_that_are_never_ready_are_not_waited_for_without_end() -> None:
    with (
        patch.object(board, "PATIENCE", 0.0),
        patch.object(threads, "_LOOK", 0.01),
        patch.object(Pack, "ready", property(lambda _: False)),
        patch.object(Service, "next", lambda *_: None),
        pytest.raises(JobStalled, match="for 0 s none has been ready"),
    ):
        get({"a": (int, 1)}, "a")


def test_what_cannot_travel_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(CannotTravel, match=r"task 'a': its function .*lock"):
        get({"a": (lambda: lock.locked(),)}, "a")
    with pytest.raises(CannotTravel, match="value of"):
        get({"a": (threading.Lock,), "b": (id, "a"), "c": (type, "a")}, ["b", "c"])


def test_writes_into_arrays_of_the_client_are_refused() -> None:
    import dask.array as da

    target = np.zeros(4)
    with pytest.raises(UnsupportedGraph, match="NumPy array of the client's"):
        da.ones(4, chunks=2).store(target, scheduler=wukong.get, granules="processes")


# --- where functions belong -------------------------------------------------------------------------------------------


class Guilty:
    """Stands for verdicts: every function whose name begins with an `l` holds the interpreter."""

    def holds(self, name: Any) -> bool:
        return any(getattr(code, "co_name", "").startswith("l") for code in name)

    def asks(self, _: Any) -> bool:
        return False


def auto(graph: dict[Any, Any], keys: list[Any]) -> tuple[Any, dict[Any, str]]:
    """Run a graph in threads, letting what holds the interpreter move; return its results and the reasons."""
    reasons: dict[Any, str] = {}

    class Noted(company.Company):
        def end(self) -> None:
            reasons.update(self.reasons)
            super().end()

    drivers.until(lambda: pack_of(2).ready, "there are processes")  # type: ignore[union-attr]
    codes = {adaptive.name_of([task[0]]): 0.02 for task in graph.values()}
    with (
        patch.object(adaptive, "verdicts", Guilty()),
        patch.dict(adaptive._lasted, codes),
        patch.object(company, "Sorting", adaptive.Sorting),
        patch("wukong.scheduler.compiled.Company", Noted),
        drivers.handed_over(2) as get_auto,
    ):
        return get_auto(graph, keys), reasons


def lasts(*_: Any) -> int:
    return os.getpid()


def numpy_like(*_: Any) -> int:
    return os.getpid()


def test_each_function_runs_where_it_belongs_in_one_graph() -> None:
    graph: dict[Any, Any] = {f"l{i}": (lasts, i) for i in range(4)}
    graph.update({f"n{i}": (numpy_like, f"l{i}") for i in range(4)})
    graph.update({f"m{i}": (lasts, f"n{i}") for i in range(4)})
    found, reasons = auto(
        graph, [[f"l{i}" for i in range(4)], [f"n{i}" for i in range(4)], [f"m{i}" for i in range(4)]]
    )
    assert os.getpid() not in found[0]
    assert set(found[1]) == {os.getpid()}
    assert os.getpid() not in found[2]
    assert reasons["lasts"] == "processes: it holds the interpreter"


def test_a_function_that_writes_what_others_could_miss_stays() -> None:
    seen = []

    def listens(x: int) -> int:
        seen.append(x)
        return os.getpid()

    found, reasons = auto({"a": (listens, 1), "b": (listens, 2), "c": (listens, 3)}, ["a", "b", "c"])
    assert set(found) == {os.getpid()}
    assert sorted(seen) == [1, 2, 3]
    assert "seen" in next(reason for name, reason in reasons.items() if "listens" in str(name))


def test_a_task_stays_if_an_input_of_it_cannot_travel() -> None:
    graph: dict[Any, Any] = {
        "lock": (threading.Lock,),
        "a": (lasts, "lock"),
        "b": (lasts, 1),
        "c": (lasts, "a", "b"),
    }
    found, _ = auto(graph, ["a", "b", "c"])
    assert found[0] == os.getpid()
    assert found[1] != os.getpid()
    assert found[2] != os.getpid()


def test_large_values_of_threads_move_into_shared_memory_when_a_process_asks() -> None:
    def made(n: int) -> Any:
        return np.arange(n)

    def looks(x: Any) -> tuple[int, int]:
        return os.getpid(), int(x.sum())

    graph = {"x": (made, 100_000), "a": (looks, "x"), "b": (looks, "x"), "c": (numpy_like, "x")}
    with patch.object(company, "PROCESSES", ARENA):
        found, _ = auto(graph, ["a", "b", "x"])
    for process, total in found[:2]:
        assert process != os.getpid()
        assert total == 4_999_950_000
    np.testing.assert_array_equal(found[2], np.arange(100_000))


def test_functions_that_others_are_given_to_call_tell_kinds_apart() -> None:
    def calls(function: Any, x: int) -> Any:
        return function(x)

    one, other = (lambda x: x), (lambda x: -x)
    graph = {f"a{i}": Task(f"a{i}", calls, one, i) for i in range(3)}
    graph.update({f"b{i}": Task(f"b{i}", calls, other, i) for i in range(3)})
    plan = lower(graph, list(graph))
    kinds = {plan.key(task)[0]: plan.kind(task) for task in plan.requested}
    assert len({plan.kind(task) for task in plan.requested}) == 2
    sorting = adaptive.Sorting(plan, Mock(), Mock(), 2, bool, print)
    assert [set(sorting._functions(kinds[letter])) for letter in "ab"] == [{calls, one}, {calls, other}]


@pytest.mark.parametrize("granules", ["processes", "threads"])
def test_a_task_that_changes_a_container_of_the_client_is_refused_only_where_that_would_be_lost(granules: str) -> None:
    found: list[int] = []
    if granules == "threads":
        wukong.get({"a": (found.append, 1)}, "a", granules=granules, workers=2)
        assert found == [1]
    else:
        with pytest.raises(UnsupportedGraph, match="changes a list of the client's"):
            get({"a": (found.append, 1)}, "a")

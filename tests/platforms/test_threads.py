"""Executors in threads: nobody waits in vain, nothing lives longer than it is needed, and every error arrives."""

import functools
import gc
import operator
import os
import signal
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import dask
import dask.threaded
import pytest
from dask._task_spec import DataNode, List, Task, TaskRef
from dask.diagnostics import ProgressBar
from dask.diagnostics.profile import Profiler, ResourceProfiler

import wukong
from tests import drivers
from wukong.platforms.local import threads
from wukong.scheduler import run

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Check that no job stays on the board and no helper at work."""
    yield
    drivers.until(drivers.idle, "the crew is idle")


@pytest.fixture
def unhurried(monkeypatch):
    """Nobody looks for themselves for an hour, so that a wake-up that went astray is a hang."""
    monkeypatch.setattr(threads, "_LOOK", 3600.0)


def spread(graph: dict[Any, Any], keys: Any, workers: int = 2, **options: Any) -> Any:
    return wukong.get(graph, keys, granules="threads", workers=workers, **options)


class Meeting:
    """Tasks that end only once so many of them run at the same time."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties, timeout=20)

    def __call__(self, *_: Any) -> int:
        self.barrier.wait()
        return 1


# --- parallel ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.usefixtures("unhurried")
def test_as_many_tasks_run_at_once_as_there_are_workers(workers: int) -> None:
    meet = Meeting(workers)
    graph = {**{("m", i): (meet, i) for i in range(workers)}, "sum": (sum, [("m", i) for i in range(workers)])}
    assert spread(graph, "sum", workers) == workers


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.usefixtures("unhurried")
def test_tasks_made_ready_one_by_one_run_at_once_too(workers: int) -> None:
    """Each link of a chain has a second child, so that helpers are asked for one at a time."""
    meet = Meeting(workers)
    graph: dict[Any, Any] = {("link", 0): (int,)}
    for i in range(workers - 1):
        graph["link", i + 1] = (operator.add, ("link", i), 1)
        graph["m", i] = (meet, ("link", i))
    graph["m", workers - 1] = (meet, ("link", workers - 1))
    graph["sum"] = (sum, [("m", i) for i in range(workers)])
    with drivers.in_process(workers, drivers.RESTLESS) as get:
        assert get(graph, "sum") == workers


@pytest.mark.usefixtures("unhurried")
def test_no_wake_up_goes_to_another_job() -> None:
    """Clients of quiet jobs wait on the same crew, and must not be woken in the place of those with work."""
    quiet, meet = threading.Event(), Meeting(2)
    # There are no more helpers than processors, unless a job asked for them; this test needs three.
    crowd = Meeting(4)
    spread({**{("m", i): (crowd, i) for i in range(4)}, "sum": (sum, [("m", i) for i in range(4)])}, "sum", 4)
    together = [threading.Barrier(2, timeout=20) for _ in range(2)]

    def stay(barrier: threading.Barrier, *_: Any) -> int:
        barrier.wait()
        if threading.current_thread() not in others:
            assert quiet.wait(20)
        return 1

    graphs = [{"a": (stay, each, 0), "b": (stay, each, 1), "c": (max, "a", "b")} for each in together]
    others = [threading.Thread(target=spread, args=(graph, "c")) for graph in graphs]
    for other in others:
        other.start()
    # Each of the two clients is through with its task, and a helper is not.
    drivers.until(
        lambda: [(posted.working, posted.waiting) for posted in threads.crew._board] == [(1, [])] * 2,
        "the clients wait",
    )
    try:
        for _ in range(20):
            graph = {"a": (int,), "b": (meet, "a"), "c": (meet, "a", 1), "d": (max, "b", "c")}
            with drivers.in_process(2, drivers.RESTLESS) as get:
                assert get(graph, "d") == 1
    finally:
        quiet.set()
        for other in others:
            other.join()


@pytest.mark.usefixtures("unhurried")
def test_several_jobs_from_several_threads_all_end() -> None:
    graph: dict[Any, Any] = {("x", i): (operator.mul, i, i) for i in range(64)}
    level = list(graph)
    while len(level) > 1:
        pairs = [((*a, "+"), a, b) for a, b in zip(level[::2], level[1::2], strict=True)]
        graph |= {key: (operator.add, a, b) for key, a, b in pairs}
        level = [key for key, _, _ in pairs]
    results: list[int] = []

    def ask() -> None:
        results.extend(spread(graph, level[0], 3) for _ in range(5))

    askers = [threading.Thread(target=ask) for _ in range(6)]
    with drivers.switching_often():
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
    assert results == [sum(i * i for i in range(64))] * 30


# --- computing in tasks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("granules", ["threads", "auto"])
@pytest.mark.usefixtures("unhurried")
def test_computing_in_tasks_many_at_once_and_deep_never_blocks(granules: str) -> None:
    def tree(depth: int) -> int:
        if not depth:
            return 1
        graph = {**dict.fromkeys("abc", (tree, depth - 1)), "sum": (sum, ["a", "b", "c"])}
        return wukong.get(graph, "sum", granules=granules, workers=2)

    assert tree(4) == 81


@pytest.mark.usefixtures("unhurried")
def test_delayed_computes_in_a_delayed_task() -> None:
    @dask.delayed
    def outer(n: int) -> int:
        return sum(dask.compute(*[dask.delayed(operator.add)(n, i) for i in range(5)], scheduler="wukong"))

    total = dask.delayed(sum)([outer(i) for i in range(8)])
    assert wukong.compute(total, granules="threads", workers=2) == (sum(5 * n + 10 for n in range(8)),)


# --- memory -----------------------------------------------------------------------------------------------------------


class Big:
    """A value that knows how many of its kind are alive."""

    alive: ClassVar[weakref.WeakSet["Big"]] = weakref.WeakSet()
    most = 0

    def __init__(self, *_: Any) -> None:
        Big.alive.add(self)
        Big.most = max(Big.most, len(Big.alive))


@pytest.fixture
def big():
    gc.collect()
    gc.disable()
    Big.alive.clear()
    Big.most = 0
    yield Big
    gc.enable()


def slowly(function: Any, *args: Any) -> Any:
    """Long enough that it settles before the next one begins."""
    threading.Event().wait(0.002)
    return function(*args)


def made_in_chain(length: int) -> dict[Any, Any]:
    """No two links fuse, for each is read by a side branch too."""
    graph: dict[Any, Any] = {("link", 0): (slowly, Big)}
    for i in range(1, length):
        graph["link", i] = (slowly, Big, ("link", i - 1))
        graph["side", i] = (slowly, id, ("link", i - 1))
    return graph


def made_in_tree(leaves: int) -> tuple[dict[Any, Any], Any]:
    level: list[Any] = [(0, i) for i in range(leaves)]
    graph: dict[Any, Any] = dict.fromkeys(level, (slowly, Big))
    while len(level) > 1:
        above = [(level[0][0] + 1, i) for i in range(len(level) // 2)]
        graph |= {key: (slowly, Big, level[2 * i], level[2 * i + 1]) for i, key in enumerate(above)}
        level = above
    return graph, level[0]


WAYS = {
    "threads": lambda: drivers.in_process(2),
    "taken over at 3": lambda: drivers.taken_over(3),
    "taken over at 9": lambda: drivers.taken_over(9),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_more_values_are_alive_than_with_dask_in_a_chain(big: type[Big], way: str) -> None:
    graph = made_in_chain(30)
    keys = [("side", i) for i in range(1, 30)]
    dask.threaded.get(graph, keys, num_workers=2)
    dasks, big.most = big.most, 0
    with WAYS[way]() as get:
        get(graph, keys)
    # Who has the side branches may lag behind a little; a leak would keep all thirty.
    assert big.most <= dasks + 4


@pytest.mark.parametrize("way", WAYS)
def test_no_more_values_are_alive_in_a_tree_than_depth_first_needs(big: type[Big], way: str) -> None:
    graph, top = made_in_tree(64)
    with WAYS[way]() as get:
        get(graph, top)
    # Each of two workers is on a path of 6 levels with one value waiting at each, and has one more in its hands.
    assert big.most <= 2 * (6 + 2)


@pytest.mark.parametrize("way", [*WAYS, "over a store"])
def test_nothing_of_a_job_lives_on_without_a_garbage_collection(big: type[Big], way: str, embedded_url: str) -> None:
    ways = {**WAYS, "over a store": lambda: drivers.over(embedded_url, 2)}
    graph = {"literal": DataNode("literal", big()), "a": Task("a", slowly, Big, TaskRef("literal"))}
    graph |= {f"x{i}": Task(f"x{i}", slowly, Big, TaskRef("a")) for i in range(12)}
    graph["end"] = Task("end", len, List(*(TaskRef(f"x{i}") for i in range(12))))
    with ways[way]() as get:
        assert get(graph, "end") == 12
    graph.clear()
    drivers.until(lambda: not big.alive, "every value is gone")


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_failed_job_lives_on_once_its_error_is_forgotten(big: type[Big], way: str) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no")

    graph = {"a": (Big,), **dict.fromkeys("uvwx", (slowly, Big, "a")), "b": (fail, "a", *"uvwx"), "c": (str, "b")}
    with WAYS[way]() as get, pytest.raises(ValueError, match="no"):
        get({**graph, "d": (str, "b"), "e": (max, "c", "d")}, "e")
    drivers.until(lambda: not big.alive, "every value is gone")


@pytest.mark.parametrize("at", [0, 1], ids=["in the task that makes it", "when it is at hand"])
def test_a_value_from_before_a_walk_was_taken_over_is_freed_after_its_last_use(big: type[Big], at: int) -> None:
    last: list[int] = []
    graph = {"a": (Big,), "b": (id, "a"), "c": (slowly, str, "b"), "d": (slowly, str, "c")}
    graph["e"] = (lambda *_: last.append(len(big.alive)), "d", "c")
    with drivers.taken_over(at) as get:
        get(graph, "e")
    assert last == [0]


# --- errors -----------------------------------------------------------------------------------------------------------


class OddError(Exception):
    def __init__(self, one: int, *, two: int) -> None:
        super().__init__(f"{one} {two}")


class SilentError(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


class OwnError(BaseException):
    pass


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


ERRORS = [
    ValueError("v"),
    OddError(1, two=2),
    SilentError(),
    OwnError("o"),
    FrozenError(1),
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    StopIteration(5),
    StopAsyncIteration(),
    MemoryError(),
    ExceptionGroup("g", [ValueError(1)]),
]
BUILTIN = [error for error in ERRORS if type(error).__module__ == "builtins"]


def chain_that_raises(error: BaseException) -> dict[str, Any]:
    def fail(*_: Any) -> None:
        raise error

    return {"a": (int,), "b": (str, "a"), "x": (fail, "a"), "y": (str, "x"), "z": (max, "y", "b")}


def caught(**options: Any) -> Callable[[BaseException], BaseException]:
    """Return what a run raises whose task raises a given error; the next run must be none the worse for it."""

    def catch(error: BaseException) -> BaseException:
        try:
            wukong.get(chain_that_raises(error), ["z"], **options)
        except BaseException as raised:
            drivers.until(drivers.idle, "the crew is idle")
            assert wukong.get({"a": (int,), "b": (str, "a")}, "b", **options) == "0"
            return raised
        raise AssertionError("nothing was raised")

    return catch


NOTE = "wukong: task 'x' failed, on the way x -> y -> z"


@pytest.mark.parametrize("granules", ["inline", "threads", "auto"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_every_error_arrives_as_it_is_and_the_next_job_runs(granules: str, error: BaseException) -> None:
    error = error.with_traceback(None)
    error.__dict__.pop("__notes__", None)
    assert caught(granules=granules, workers=2)(error) is error
    assert isinstance(error, FrozenError) or error.__notes__ == [NOTE]


@pytest.mark.parametrize("error", BUILTIN, ids=lambda error: type(error).__name__)
def test_every_error_arrives_over_a_store_and_the_next_job_runs(error: BaseException, embedded_url: str) -> None:
    error.__dict__.pop("__notes__", None)
    found = caught(store=embedded_url, workers=2)(error)
    assert (type(found), repr(found.args)) == (type(error), repr(error.args))
    assert found.__notes__ == [NOTE]


@pytest.mark.parametrize("store", [None, "embedded_url"])
def test_the_failed_member_of_a_fused_chain_is_named(store: str | None, request: Any) -> None:
    options = {} if store is None else {"store": request.getfixturevalue(store)}
    graph = {"a": (int,), "b": (str, "a"), "c": (float, "a"), "d": (operator.truediv, 1, "c"), "e": (str, "d")}
    with pytest.raises(ZeroDivisionError) as failed:
        spread({**graph, "z": (max, "b", "e")}, "z", **options)
    assert failed.value.__notes__ == ["wukong: task 'd' failed, on the way d -> e -> z"]


@pytest.mark.usefixtures("unhurried")
def test_one_failing_job_does_not_disturb_others() -> None:
    ended: list[object] = []

    def ask(fails: bool) -> None:
        for _ in range(10):
            try:
                graph = chain_that_raises(ValueError("v"))
                if not fails:
                    graph["x"] = (int,)
                ended.append(spread(graph, "z"))
            except ValueError:
                ended.append("failed")

    askers = [threading.Thread(target=ask, args=(i % 2 == 0,)) for i in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert sorted(map(str, ended)) == ["0"] * 20 + ["failed"] * 20


def test_control_c_ends_the_job_while_tasks_still_run() -> None:
    running, quit_now = threading.Event(), threading.Event()

    def stay(*_: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            assert running.wait(20)
            os.kill(os.getpid(), signal.SIGINT)
        running.set()
        assert quit_now.wait(20)

    with pytest.raises(KeyboardInterrupt):
        spread({"a": (stay, 1), "b": (stay, 2), "c": (max, "a", "b")}, "c")
    assert not threads.crew._board
    assert spread({"a": (int,), "b": (str, "a")}, "b") == "0"
    quit_now.set()


# --- fork -------------------------------------------------------------------------------------------------------------


def in_child(function: Any) -> int:
    """Run in a forked child and return its exit status; 99 if it does not end."""
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(20)
            os._exit(int(bool(function())))
        except BaseException:
            os._exit(98)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_computes_with_a_crew_of_its_own() -> None:
    meet = {"a": (int,), "b": (str, "a"), "c": (repr, "a"), "d": (max, "b", "c")}
    spread(meet, "d")
    # The lookout of the parent is there, and its lock is held by nobody the child has.
    wukong.get({"a": (slowly, int), **dict.fromkeys("uvw", (slowly, str, "a")), "z": (max, *"uvw")}, "z")
    with run._lookout._changed, threads.crew.lock:
        status = in_child(lambda: spread({**meet, "b": Meeting(2), "c": (Meeting(1), 1)}, "a") == 0)
        auto = in_child(lambda: wukong.get({"a": (int,), "b": (slowly, str, "a"), "c": (slowly, len, "b")}, "c") == 1)
    assert (status, auto) == (1, 1)
    assert spread(meet, "d") == "0"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_hands_walks_over_too() -> None:
    def long(*_: int) -> str:
        threading.Event().wait(0.02)
        return threading.current_thread().name

    graph: dict[str, Any] = {f"x{i}": (long, i) for i in range(20)}
    graph["z"] = (lambda names: len(set(names)), list(graph))
    assert wukong.get(graph, "z", workers=2) > 1
    assert in_child(lambda: wukong.get(graph, "z", workers=2) > 1) == 1


# --- observers --------------------------------------------------------------------------------------------------------

OBSERVED: dict[Any, Any] = {"a": (slowly, int), **{f"x{i}": (slowly, operator.add, "a", i) for i in range(8)}}
OBSERVED["z"] = (sum, [f"x{i}" for i in range(8)])
OBSERVED["finalize-1"] = (max, ["z", "a"])


@pytest.mark.parametrize("way", WAYS)
def test_the_profiler_of_dask_see_every_task_once(way: str) -> None:
    with WAYS[way]() as get, Profiler() as profiler:
        assert get(OBSERVED, "finalize-1") == 28
    assert sorted(map(str, (result.key for result in profiler.results))) == sorted(map(str, OBSERVED))
    assert all(result.end_time >= result.start_time for result in profiler.results)


@pytest.mark.parametrize("way", WAYS)
def test_the_progress_bar_comes_to_its_end(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    with WAYS[way]() as get, ProgressBar(dt=0.001):
        assert get(OBSERVED, "finalize-1") == 28
    assert "100% Completed" in capsys.readouterr().out


def test_the_resource_profiler_samples_a_run_in_threads() -> None:
    with ResourceProfiler(dt=0.001) as profiler:
        assert spread(OBSERVED, "finalize-1") == 28
    assert profiler.results


def test_an_error_of_a_callback_arrives() -> None:
    class Refuses(dask.callbacks.Callback):
        def _posttask(self, key: Any, *_: Any) -> None:
            if key == "x3":
                raise LookupError("not this one")

    with Refuses(), pytest.raises(LookupError, match="not this one"):
        spread(OBSERVED, "finalize-1")


# --- shapes and sizes -------------------------------------------------------------------------------------------------


def test_none_is_a_value_like_any_other() -> None:
    graph = {"a": (lambda: None,), "b": (lambda x: x, "a"), "c": (lambda *xs: xs, "a", "b"), "d": (lambda x: x, "b")}
    assert spread(graph, ["a", "b", "c", "d"]) == (None, None, (None, None), None)


def test_a_wide_fan_ends() -> None:
    graph: dict[Any, Any] = {f"x{i}": (operator.neg, i) for i in range(100_000)}
    graph["sum"] = (sum, list(graph))
    assert spread(graph, "sum") == -sum(range(100_000))


def test_a_wide_fan_out_and_in_of_one_task_ends() -> None:
    graph: dict[Any, Any] = {"a": (int, "1"), **{f"x{i}": (operator.add, "a", i) for i in range(5_000)}}
    graph["sum"] = (sum, [f"x{i}" for i in range(5_000)])
    assert spread(graph, "sum") == sum(i + 1 for i in range(5_000))


def test_a_long_chain_ends_however_little_the_stack_takes() -> None:
    graph = {("n", i): (operator.add, ("n", i - 1), 1) if i else (int,) for i in range(100_000)}
    assert spread(graph, ("n", 99_999)) == 99_999


def test_a_long_chain_that_cannot_be_fused_ends() -> None:
    graph: dict[Any, Any] = {("n", 0): (int,)}
    for i in range(1, 5_000):
        graph["n", i] = (operator.add, ("n", i - 1), 1)
        graph["m", i] = (operator.add, ("n", i), ("n", i - 1))
    graph["sum"] = (sum, [("m", i) for i in range(1, 5_000)])
    assert spread(graph, "sum") == sum(2 * i - 1 for i in range(1, 5_000))


def test_a_task_that_keeps_the_interpreter_busy_holds_up_nothing_but_itself() -> None:
    busy = functools.partial(sum, range(3_000_000))
    graph = {f"x{i}": (busy,) if i % 2 else (slowly, int) for i in range(6)}
    assert spread({**graph, "z": (max, *graph)}, "z") == sum(range(3_000_000))

import io
from contextlib import suppress
from types import SimpleNamespace

import dask
import pytest
from dask import delayed
from dask.callbacks import Callback
from dask.diagnostics import CacheProfiler, Profiler, ProgressBar, ResourceProfiler

import wukong


@pytest.fixture(autouse=True)
def _alone():
    """Order and state are Dask's only where one thread runs all."""
    with wukong.config.set(granules="inline"):
        yield


def add(*args):
    return sum(args)


GRAPH = {"a": 1, "b": (add, "a", 1), "c": (add, "a", "b"), "unused": (add, "a")}


class Recorder(Callback):
    """Keeps what it is told, with what the state said then."""

    def __init__(self):
        self.told = []

    def _start(self, dsk):
        self.told.append(("start", sorted(dsk)))

    def _start_state(self, _dsk, state):
        self.told.append(("start_state", sorted(state["waiting"]), list(state["ready"])))

    def _pretask(self, key, _dsk, state):
        self.told.append(("pretask", key, set(state["running"]), sorted(state["cache"])))

    def _posttask(self, key, value, _dsk, state, _worker):
        self.told.append(("posttask", key, value, sorted(state["finished"]), sorted(state["released"])))

    def _finish(self, _dsk, state, failed):
        self.told.append(("finish", failed, sorted(state.get("cache", ()))))


def told_by(get, graph, keys):
    with Recorder() as recorder, suppress(ZeroDivisionError):
        get(graph, keys)
    return recorder.told


@pytest.mark.parametrize(
    ("graph", "keys"),
    [
        (GRAPH, "c"),
        (GRAPH, ["c", "b"]),
        ({"a": 1}, "a"),
        ({"a": 0, "b": (add, "a"), "c": (divmod, 1, "b"), "d": (add, "c")}, "d"),
    ],
)
def test_callbacks_are_told_the_same_as_under_dask(graph, keys):
    assert told_by(wukong.get, graph, keys) == told_by(dask.get, graph, keys)


def test_a_callback_that_fails_to_start_is_not_told_of_the_end():
    def refuse(_):
        raise LookupError

    ended = []
    with (
        Callback(start=refuse, finish=lambda *_: ended.append(1)),
        pytest.raises(LookupError),
    ):
        wukong.get(GRAPH, "c")
    assert ended == []


def test_callbacks_given_with_the_call_are_told_instead_of_those_registered():
    given, registered = Recorder(), Recorder()
    with registered:
        wukong.get(GRAPH, "c", callbacks=[given._callback])
    assert registered.told == []
    assert given.told == told_by(dask.get, GRAPH, "c")


def test_a_compute_inside_a_task_is_not_told_of():
    graph = {"a": (lambda: wukong.get({"inner": (add, 1)}, "inner"),)}
    assert [what[1] for what in told_by(wukong.get, graph, "a") if what[0] == "pretask"] == ["a"]


def test_a_callback_may_put_known_values_into_the_graph():
    graph = {"a": (pytest.fail, "ran"), "b": (add, "a", 1)}
    with Callback(start=lambda dsk: dsk.update(a=41)):
        assert wukong.get(graph, "b") == 42
    assert graph["a"] == (pytest.fail, "ran")


def test_dasks_profilers_work():
    x = delayed(add)(delayed(add)(1, 2), 3)
    with Profiler() as profiler, CacheProfiler() as cache, ResourceProfiler(dt=0.01):
        assert x.compute(scheduler=wukong.get) == 6
    assert len(profiler.results) == len(cache.results) == 2
    assert all(result.end_time >= result.start_time for result in profiler.results)


def test_the_progress_bar_reaches_its_end():
    out = io.StringIO()
    with ProgressBar(out=out):
        wukong.get(GRAPH, "c")
    assert "100% Completed" in out.getvalue()


def test_aliases_that_no_executor_runs_are_told_before_what_reads_them():
    graph = {"a": (add, 1, 2), "b": "a", "c": "b", "d": (add, "c", "b"), "e": (add, "d", 1), "f": (add, "e", "c")}
    with wukong.config.set(granules="threads", workers=2), Recorder() as recorder:
        assert wukong.get(graph, "f") == 10
    told = [event[1] for event in recorder.told if event[0] == "posttask"]
    assert told == ["a", "b", "c", "d", "e", "f"]
    assert recorder.told[-1][:2] == ("finish", False)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal on which Dask's bar shows also what is over at once."""
    monkeypatch.setattr("dask.diagnostics.ProgressBar", lambda out, **_: ProgressBar(out=out))
    out = Terminal()
    # Not the real one, which pytest replaces between a fixture and its test.
    monkeypatch.setattr("wukong.scheduler.dask.callbacks.sys", SimpleNamespace(stderr=out, modules={}))
    return out


@pytest.mark.parametrize("granules", ["inline", "threads"])
def test_a_bar_is_shown_where_it_is_asked_for(terminal, granules):
    wukong.get(GRAPH, "c", granules=granules)
    assert terminal.getvalue() == ""
    assert wukong.get(GRAPH, "c", granules=granules, progress=True) == 3
    assert "100% Completed" in terminal.getvalue()


def test_other_callbacks_are_told_beside_the_bar(terminal):  # noqa: ARG001
    with Recorder() as recorder:
        wukong.get(GRAPH, "c", progress=True)
    assert recorder.told == told_by(wukong.get, GRAPH, "c")
    given = Recorder()
    wukong.get(GRAPH, "c", progress=True, callbacks=given)
    assert given.told == recorder.told


def test_a_compute_in_a_task_shows_no_bar_of_its_own(terminal):
    def nested(x):
        return wukong.get({"y": (add, x, 1)}, "y", progress=True)

    assert wukong.get({"x": (nested, 1)}, "x", progress=True) == 2
    assert terminal.getvalue().count("100% Completed") == 1


def test_a_bar_is_shown_again_after_a_run_that_failed(terminal):
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            wukong.get({"x": (lambda: 1 / 0,)}, "x", progress=True)
    assert wukong.get(GRAPH, "c", progress=True) == 3
    assert terminal.getvalue().count("100% Completed") == 1


def test_where_nobody_sees_it_no_bar_is_shown(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    assert wukong.get(GRAPH, "c", progress=True) == 3
    assert out.getvalue() == ""

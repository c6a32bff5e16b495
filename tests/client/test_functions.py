import subprocess
import sys
import threading

import dask
import dask.array as da
import dask.bag as db
import pytest
from dask import delayed

import wukong
from wukong.errors import ConfigError, MissingKey


def inc(x):
    return x + 1


GRAPH = {"a": 1, "b": (inc, "a"), ("c", 0): (inc, "b")}


def test_a_raw_graph_is_computed_by_its_keys():
    assert wukong.compute(GRAPH, keys="b") == 2
    assert wukong.compute(GRAPH, keys=("c", 0)) == 3
    assert wukong.compute(GRAPH, keys=["b", [("c", 0)], "b"]) == (2, (3,), 2)
    assert wukong.compute(GRAPH, keys=[]) == ()


def test_keys_go_with_one_graph():
    with pytest.raises(ConfigError, match="2 arguments"):
        wukong.compute(GRAPH, GRAPH, keys="b")


def test_collections_are_computed_wherever_they_are_nested():
    x = delayed(inc)(1)
    assert wukong.compute(x, 5, {"k": [x, (x, "text")]}, {3}) == (2, 5, {"k": [2, (2, "text")]}, {3})
    assert wukong.compute([x], traverse=False) == ([x],)
    assert wukong.compute() == ()


@pytest.mark.parametrize("scheduler", [wukong.get, "wukong", None])
def test_dask_takes_it_as_a_scheduler_by_name_by_function_and_by_configuration(scheduler):
    ran_on = []
    x = delayed(lambda: ran_on.append(wukong.last_run()) or 3)()
    before = wukong.last_run()
    if scheduler is None:
        with dask.config.set(scheduler="wukong"):
            assert x.compute() == 3
    else:
        assert x.compute(scheduler=scheduler) == 3
    assert wukong.last_run() is not before
    assert wukong.last_run().tasks == 1


def test_arrays_bags_and_dataframes_are_computed():
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    x = da.arange(100, chunks=7)
    frame = dd.from_pandas(pd.DataFrame({"key": [1, 2] * 10, "value": range(20)}), npartitions=4)
    with dask.config.set(scheduler="wukong"):
        assert (x + x[::-1]).sum().compute() == 9900
        assert da.linalg.svd(da.ones((20, 4), chunks=(5, 4)))[1].compute().shape == (4,)
        assert db.range(10, npartitions=3).map(inc).filter(lambda n: n % 2).sum().compute() == 25
        assert frame.groupby("key").value.sum().compute().to_dict() == {1: 90, 2: 100}
        for method in ("tasks", "disk"):
            with dask.config.set({"dataframe.shuffle.method": method}):
                assert len(frame.shuffle("key").compute()) == 20


def test_later_graphs_are_built_on_what_was_persisted():
    calls = []

    @delayed
    def once(x):
        calls.append(x)
        return x

    x, y = wukong.persist(once(1), {"y": da.ones(10, chunks=5) + 1})
    assert calls == [1]
    assert wukong.compute(delayed(inc)(x), (y["y"] * 2).sum()) == (2, 40)
    assert calls == [1]


def test_a_compute_inside_a_task_works():
    assert wukong.get({"a": (lambda: wukong.compute(delayed(inc)(1))[0],), "b": (inc, "a")}, "b") == 3


def test_known_values_are_taken_from_the_cache_given_or_configured():
    graph = {"a": (pytest.fail, "ran"), "b": (inc, "a")}
    known = {"a": 9, "z": 0}
    assert wukong.get(graph, ["b", "z"], cache=known) == (10, 0)
    with dask.config.set(cache=known):
        assert wukong.get(graph, "b") == 10
    assert known == {"a": 9, "z": 0}


def test_a_known_value_of_none_is_a_value():
    assert wukong.get({"b": (str, "a")}, "b", cache={"a": None}) == "None"


def test_a_failing_task_raises_its_own_exception_through_dask():
    def fail(_):
        raise FileNotFoundError(2, "mine", "name")

    x = delayed(inc)(delayed(fail)(1, dask_key_name="culprit"), dask_key_name="result")
    for compute in (lambda: x.compute(scheduler=wukong.get), lambda: wukong.compute(x)):
        with pytest.raises(FileNotFoundError, match="mine") as raised:
            compute()
        assert raised.value.__notes__ == ["wukong: task 'culprit' failed, on the way culprit -> result"]
        assert raised.traceback[-1].name == "fail"


def test_options_are_checked_before_anything_runs():
    for compute in (
        lambda: wukong.get({"a": (pytest.fail, "ran")}, "a", platform="moon"),
        lambda: wukong.compute(delayed(pytest.fail)("ran"), platform="moon"),
        lambda: wukong.persist(delayed(pytest.fail)("ran"), platform="moon"),
    ):
        with pytest.raises(ConfigError, match="moon"):
            compute()


def test_options_are_checked_even_where_there_is_nothing_to_compute():
    with pytest.raises(ConfigError, match="moon"):
        wukong.compute(5, platform="moon")


def test_options_of_other_schedulers_are_passed_over_and_num_workers_is_ours():
    assert wukong.get(GRAPH, "b", pool=None, rerun_exceptions_locally=True, whatever=1) == 2
    with pytest.raises(ConfigError, match="workers"):
        wukong.get(GRAPH, "b", num_workers=-1)


def test_nothing_runs_if_a_key_is_missing():
    with pytest.raises(MissingKey):
        wukong.get({"a": (pytest.fail, "ran")}, ["a", "z"])


def test_the_last_run_is_that_of_this_thread():
    wukong.get(GRAPH, "b")
    mine = wukong.last_run()
    seen = []
    other = threading.Thread(target=lambda: seen.append(wukong.last_run()))
    other.start()
    other.join(10)
    assert seen == [None]
    assert wukong.last_run() is mine
    assert mine.tasks == 2


def in_a_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_registers_the_scheduler_and_loads_nothing_heavy():
    code = """
import sys, dask.base
before = set(sys.modules)
import wukong
assert dask.base.named_schedulers["wukong"] is wukong.get
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    assert in_a_new_process(code).split() == ["wukong"]


def test_each_public_name_is_there_and_others_are_named_in_the_error():
    code = """
import wukong
for name in wukong.__all__:
    assert getattr(wukong, name) is not None, name
    assert name in dir(wukong), name
try:
    wukong.comptue
except AttributeError as error:
    print(error)
"""
    assert "compute" in in_a_new_process(code)

import sys

import dask
import pytest
from dask import delayed
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from dask.highlevelgraph import HighLevelGraph

from wukong.errors import GraphCycle, MissingKey, UnsupportedGraph
from wukong.scheduler.dask.graphs import arrange, finalisers, flatten, merge, refuse_unshared, trace


def add(*args):
    return sum(args)


def test_a_dictionary_is_taken_as_it_is():
    graph = {"a": 1}
    assert merge(graph) is graph


def test_a_high_level_graph_is_its_layers_merged():
    graph = HighLevelGraph({"p": {"a": 1}, "q": {"b": (add, "a")}}, {"p": set(), "q": {"p"}})
    assert merge(graph) == {"a": 1, "b": (add, "a")}


def expression(*collections, **options):
    seen = []
    dask.compute(*collections, scheduler=lambda dsk, keys: seen.append(dsk) or [None] * len(keys), **options)
    return seen[0]


def test_delayed_is_merged_without_the_quadratic_cull(monkeypatch):
    def refuse(*_):
        raise AssertionError("culled by Dask")

    monkeypatch.setattr(HighLevelGraph, "cull", refuse)
    x = delayed(add)(1, 2)
    for collections in [(x,), (x, delayed(add)(x, 4))]:
        assert x.key in merge(expression(*collections))


def test_a_delayed_optimizer_of_the_users_own_is_called():
    calls = []

    def optimizer(dsk, keys):
        calls.append(keys)
        return dsk

    with dask.config.set(delayed_optimize=optimizer):
        merge(expression(delayed(add)(1, 2)))
    assert len(calls) == 1


def test_fusing_delayed_is_left_to_dask_where_it_is_switched_on():
    x = delayed(add)(delayed(add)(1, 2), 3)
    assert sum(type(node) is Task for node in merge(expression(x)).values()) == 2
    with dask.config.set({"optimization.fuse.delayed": True}):
        fused = merge(expression(x))
    assert sum(type(node) is Task for node in fused.values()) == 1


def test_a_graph_without_optimization_is_merged_too():
    x = delayed(add)(1, 2)
    assert x.key in merge(expression(x, optimize_graph=False))


@pytest.mark.parametrize(
    ("keys", "flat", "arranged"),
    [
        ("a", ["a"], 1),
        (("t", 0), [("t", 0)], 3),
        (["a", "b", "a"], ["a", "b"], (1, 2, 1)),
        ([["a"], [["b"], ("t", 0)], []], ["a", "b", ("t", 0)], ((1,), ((2,), 3), ())),
    ],
)
def test_keys_are_flattened_and_results_arranged_as_dask_does(keys, flat, arranged):
    values = {"a": 1, "b": 2, ("t", 0): 3}
    assert flatten(keys) == flat
    assert arrange(keys, values) == arranged
    assert dask.get(values, keys) == arranged


def test_what_nobody_needs_is_left_out():
    assert trace({"a": 1, "b": (add, "a"), "c": (add, "b")}, ["b"]).keys == ["a", "b"]


def test_order_is_depth_first_in_the_order_of_arguments():
    graph = {
        "root": (add, "l", "r"),
        "l": (add, "l1", "l2"),
        "r": (add, "r1", "r2"),
        **dict.fromkeys(["l1", "l2", "r1", "r2"], (add, 1)),
    }
    assert trace(graph, ["root"]).keys == ["l1", "l2", "l", "r1", "r2", "r", "root"]


def test_nested_containers_are_visited_in_order_too():
    leaf = {f"x{i}": Task(f"x{i}", add, i) for i in range(20)}
    graph = {**leaf, "root": Task("root", add, 0, x=List(*(TaskRef(key) for key in leaf)))}
    assert trace(graph, ["root"]).keys == [*leaf, "root"]


def test_an_input_without_inputs_is_made_last():
    graph = {
        "load": Task("load", add),
        "far": Task("far", add),
        "near": Task("near", add, TaskRef("far")),
        "root": Task("root", add, TaskRef("load"), TaskRef("near")),
    }
    assert trace(graph, ["root"]).keys == ["far", "near", "load", "root"]


def test_last_uses_are_known_and_what_was_wanted_has_none():
    walk = trace({"a": 1, "b": (add, "a"), "c": (add, "a", "b"), "d": (add, "b")}, ["d", "c"])
    assert walk.last == {"a": "c", "b": "c", "c": None, "d": None}
    assert walk.keys == ["a", "b", "d", "c"]


def test_given_keys_are_not_descended_into():
    assert trace({"a": (add,), "b": (add, "a", "free")}, ["b", "a"], {"a": 0, "free": 1}).keys == ["b"]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        ({"b": Task("b", add, TaskRef("a"))}, "task 'b' needs 'a'"),
        ({"b": (add, "c"), "c": Alias("c", "a")}, "task 'c' needs 'a'"),
        ({"b": (add, ["c"]), "c": (add, [TaskRef("a")])}, "task 'c' needs 'a'"),
        ({"c": 1}, "'b' is asked for"),
        ({"b": Alias("b")}, "'b' is asked for"),
    ],
)
def test_a_missing_key_says_who_needs_it(graph, message):
    with pytest.raises(MissingKey, match=message):
        trace(graph, ["b"])


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ({"a": (add, "a")}, "'a' needs 'a'"),
        ({"a": (add, "b"), "b": (add, "c"), "c": (add, "b")}, "'b' needs 'c' needs 'b'"),
        ({"a": (add, 1, "x", "b"), "x": (add, 2), "b": (add, ["x", "a"])}, "'a' needs 'b' needs 'a'"),
    ],
)
def test_a_cycle_is_walked_round_in_the_message(graph, cycle):
    with pytest.raises(GraphCycle, match=cycle):
        trace(graph, ["a"])


def test_a_diamond_is_no_cycle():
    graph = {"a": (add, "b", "c"), "b": (add, "c", "d"), "c": (add, "d"), "d": 1}
    assert trace(graph, ["a"]).keys == ["d", "c", "b", "a"]


def test_plain_legacy_tasks_are_not_converted_and_others_are():
    graph = {"a": 1, ("b", 0): (add, "a", ("b", 1), "a", 1.5, None, "text"), ("b", 1): 2, "c": (add, ["a"])}
    walk = trace(graph, [("b", 0), "c"])
    assert walk.nodes[walk.keys.index(("b", 0))] is graph["b", 0]
    assert walk.inputs[walk.keys.index(("b", 0))] == ("a", ("b", 1))
    assert type(walk.nodes[-1]) is Task
    assert type(walk.nodes[walk.keys.index("a")]) is DataNode


def test_a_chain_of_any_length_needs_no_stack():
    n = 10 * sys.getrecursionlimit()
    graph = {("x", i): (add, ("x", i - 1)) if i else 0 for i in range(n)}
    assert trace(graph, [("x", n - 1)]).keys == [("x", i) for i in range(n)]


def test_a_wide_legacy_task_is_read_once():
    n = 20_000
    graph = {"sum": (add, *(("x", i) for i in range(n))), **{("x", i): i for i in range(n)}}
    walk = trace(graph, ["sum"])
    assert walk.keys[-1] == "sum"
    assert len(walk.inputs[-1]) == n


def test_the_barrier_of_a_p2p_shuffle_is_refused():
    shuffle = pytest.importorskip("distributed.shuffle._core")
    barrier = shuffle.P2PBarrierTask("shuffle-barrier-1", add, spec=None)
    with pytest.raises(UnsupportedGraph, match="shuffle-barrier-1"):
        trace({"shuffle-barrier-1": barrier}, ["shuffle-barrier-1"])


def test_keys_of_a_disk_shuffle_are_refused_where_no_disk_is_shared():
    with pytest.raises(UnsupportedGraph, match="zpartd-1"):
        refuse_unshared([("a", 0), ("zpartd-1",), 3])
    refuse_unshared([("a", 0), ("zpartd-1",), 3, (), b"z"], disk=True)


def test_the_key_of_a_bags_groupby_through_the_disk_is_refused_where_no_memory_is_shared():
    with pytest.raises(UnsupportedGraph, match=r"partd-1.*shuffle=\"tasks\""):
        refuse_unshared([("partd-1",)], disk=True)


def test_the_empty_tuple_is_a_key_like_any_other():
    walk = trace({(): (add, 1, 2), "x": (add, (), 1)}, ["x", ()])
    assert walk.keys == [(), "x"]
    assert finalisers(walk) == []

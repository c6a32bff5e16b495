from collections import namedtuple
from functools import partial

import dask
import pytest
from dask import local
from dask._task_spec import Alias, DataNode, Dict, GraphNode, List, Set, Task, TaskRef, Tuple, convert_legacy_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from wukong.config import Options
from wukong.scheduler.dask.graphs import trace
from wukong.scheduler.dask.nodes import evaluate
from wukong.scheduler.run import run

ALONE = Options(granules="inline")
Point = namedtuple("Point", ["x", "y"])


def collect(*args, **kwargs):
    return (args, tuple(sorted(kwargs.items()))) if kwargs else args


A, B = TaskRef("a"), TaskRef("b")
VALUES = {"a": 1, "b": [2]}


@pytest.mark.parametrize(
    "node",
    [
        Task("k", collect),
        Task("k", collect, A, 2, B, A),
        Task("k", collect, A, x=B, y=3, z=List(A)),
        Task("k", collect, List(A, Tuple(B, 1), Set(A, 5)), Dict({"p": A, "q": Dict(r=B)})),
        Task("k", collect, Dict([[A, 1], [Tuple(A), B]])),
        Task("k", collect, Task(None, collect, A, Task(None, collect, B, n=A))),
        Task("k", collect, Alias("a"), DataNode(None, "v"), Task(None, partial(collect, 1), A)),
        Task("k", collect, Point(1, 2), [1], {"a": 1}, slice(1), None, int, b"a", "a", ("a",)),
        Task("k", int, DataNode(None, 7)),
        Task("k", [3, 4].index, 4),
        Task("k", lambda _: None, A),
        Alias("k", "b"),
        DataNode("k", "a"),
        List(A, B, 1),
        Dict({"x": A}),
    ],
    ids=repr,
)
def test_a_node_gives_what_dask_s_own_call_gives(node):
    assert evaluate(node, VALUES) == node(VALUES)


def test_nodes_of_unknown_classes_run_by_their_own_call():
    class Twice(Task):
        def __call__(self, values=()):
            assert set(values) == {"a"}
            return 2 * super().__call__(values)

    node = Twice("k", collect, A)
    assert evaluate(node, VALUES) == (1, 1)
    assert evaluate(Task("k", collect, List(node)), VALUES) == ([(1, 1)],)


def test_references_of_derived_classes_are_references():
    class Future(TaskRef):
        pass

    assert evaluate(Task("k", collect, Future("a"), List(Future("b"))), VALUES) == (1, [[2]])


def test_a_fused_task_is_walked_with_its_inputs_and_drops_what_it_no_longer_needs():
    inner = [
        Task("i", collect, A, 1),
        Task("j", collect, TaskRef("i"), B),
        Task("k", collect, TaskRef("j"), TaskRef("i")),
    ]
    fused = Task.fuse(*inner, key="fused")
    assert evaluate(fused, VALUES) == fused(VALUES) == (((1, 1), [2]), (1, 1))


def test_a_fused_task_is_not_ordered_anew_by_dask(monkeypatch):
    monkeypatch.setattr("dask.order.order", lambda *_, **__: pytest.fail("ordered"))
    assert evaluate(Task.fuse(Task("i", collect, A), Task("j", collect, TaskRef("i"))), VALUES) == ((1,),)


LEGACY = {
    "one": 1,
    "text": "one",
    "none": None,
    ("t", 0): (collect, "one", 2),
    "true": (collect, True, 1.0),
    "key 1": (collect, ("t", 0), ("t", 0), ("t", 9), "two"),
    "list": (collect, ["one", ("t", 0), [(collect, "one")]]),
    "deep": (collect, (collect, "one", (collect, "text"))),
    "dict": (collect, {"one": "one"}),
    "point": (collect, Point("one", "two")),
    "alias": "key 1",
    "values": ["one", "two"],
    "set": {"one", "two"},
    "unhashable": (collect, ([1], "one"), slice(1)),
    "bytes": (collect, b"one", 1j),
    "empty": (),
    "call": (collect,),
    "new": Task("new", collect, TaskRef("one")),
    "after": (collect, "new", "none"),
    "data": DataNode("data", "one"),
}


@pytest.mark.parametrize("key", LEGACY, ids=repr)
def test_a_legacy_graph_gives_what_it_gives_under_dask(key):
    assert run(LEGACY, key, ALONE) == dask.get(LEGACY, key)


def test_a_whole_number_that_is_a_key_is_a_reference():
    graph = {1: 10, "x": (collect, 1, True, 1.0, 2)}
    assert run(graph, "x", ALONE) == dask.get(graph, "x") == (10, 10, 10, 2)


def test_arguments_of_types_that_no_reference_has_are_literals_even_if_they_equal_a_key():
    graph = {b"k": 10, 1: 20, "x": (collect, b"k", 1 + 0j)}
    # The data first, so that it is there when the task runs.
    assert run(graph, [b"k", 1, "x"], ALONE) == dask.get(graph, [b"k", 1, "x"]) == (10, 20, (b"k", 1 + 0j))


def test_a_tuple_that_begins_with_a_function_is_a_task_even_if_it_is_a_key():
    graph = {(abs, -1): "key", "x": (collect, (abs, -1))}
    assert run(graph, "x", ALONE) == dask.get(graph, "x") == (1,)


def test_futures_are_references_to_their_keys():
    class Future:
        __dask_future__ = True
        key = "one"

    graph = {"one": 1, "x": Future(), "y": (collect, Future(), [Future()])}
    assert run(graph, ["x", "y"], ALONE) == dask.get(graph, ["x", "y"]) == (1, (1, [1]))


@st.composite
def graphs(draw):
    """Random graphs of every kind of node: diamonds, the same parent twice, aliases, None, nesting, fusion."""
    graph = {}
    for index in range(draw(st.integers(1, 12))):
        key = draw(st.sampled_from([f"k{index}", ("k", index)]))
        reads = draw(st.lists(st.sampled_from(sorted(graph, key=repr)), max_size=4)) if graph else []
        refs = [TaskRef(read) for read in reads]
        kinds = ["task", "legacy", "nested", "kwargs", "data", "none", "fused", *(["alias"] if reads else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "task":
            graph[key] = Task(key, collect, index, *refs)
        elif kind == "legacy":
            graph[key] = (collect, *reads, index + 0.5)
        elif kind == "nested":
            graph[key] = Task(key, collect, List(*refs, Tuple(*refs)), Dict({"d": List(*refs)}))
        elif kind == "kwargs":
            graph[key] = Task(key, collect, **{f"n{i}": ref for i, ref in enumerate(refs)})
        elif kind == "data":
            graph[key] = DataNode(key, index)
        elif kind == "none":
            graph[key] = Task(key, lambda *_: None, *refs)
        elif kind == "alias":
            graph[key] = Alias(key, reads[0])
        else:
            first = Task("first", collect, *refs)
            graph[key] = Task.fuse(first, Task("then", collect, TaskRef("first"), *refs), key=key)
    wanted = draw(st.lists(st.sampled_from(sorted(graph, key=repr)), min_size=1, max_size=4))
    return graph, wanted


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_random_graphs_give_what_they_give_under_dask(graph_and_wanted):
    graph, wanted = graph_and_wanted
    assert run(graph, wanted, ALONE) == local.get_sync(graph, wanted)


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_random_graphs_are_traced_in_topological_order_and_culled(graph_and_wanted):
    graph, wanted = graph_and_wanted
    walk = trace(graph, list(dict.fromkeys(wanted)))
    converted = convert_legacy_graph(graph)
    seen = set()
    for key, inputs in zip(walk.keys, walk.inputs, strict=True):
        assert set(inputs) == converted[key].dependencies
        assert seen.issuperset(inputs)
        seen.add(key)
    needed, stack = set(), list(wanted)
    while stack:
        if (key := stack.pop()) not in needed:
            needed.add(key)
            stack += converted[key].dependencies
    assert seen == needed
    assert all(isinstance(node, GraphNode | tuple) for node in walk.nodes)

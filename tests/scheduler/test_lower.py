"""Dask's nodes keep their meaning as programs and operand rows."""

import sys
from operator import add, neg
from typing import Any

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from dask._task_spec import (
    Alias,
    DataNode,
    Dict,
    GraphNode,
    List,
    Task,
    TaskRef,
    _execute_subgraph,
    convert_legacy_graph,
)
from dask.core import flatten
from dask.local import get_sync
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.graphs import dask_graphs, run_in_order, show
from wukong.errors import GraphCycle, MissingKey
from wukong.plan.program import failed_member
from wukong.scheduler.dask.lower import lower


def results(plan: Any, **options: Any) -> list[Any]:
    values = run_in_order(plan, **options)
    return [values[task] for task in plan.requested]


@settings(max_examples=150, deadline=None)
@given(dask_graphs(), st.booleans())
def test_a_plan_run_by_number_gives_what_dasks_synchronous_scheduler_gives(drawn: Any, fuse: bool) -> None:
    graph, wanted = drawn
    # repr tells 1 from True and 0.0 from -0.0
    assert repr(results(lower(graph, wanted, fuse=fuse))) == repr(list(get_sync(graph, wanted)))


@settings(max_examples=60, deadline=None)
@given(dask_graphs(), st.data())
def test_tasks_computed_already_are_given_and_their_own_inputs_are_not_needed(drawn: Any, data: Any) -> None:
    graph, wanted = drawn
    nodes = convert_legacy_graph(graph)
    known = data.draw(st.lists(st.sampled_from(list(graph)), max_size=3, unique=True))
    values = {key: get_sync(graph, key) for key in known}
    plan = lower(nodes, wanted, values)
    assert repr(results(plan, given=values)) == repr(list(get_sync(graph, wanted)))
    assert all(plan.is_given(t) and plan.key(t) in values and plan.inputs(t) == () for t in plan.given)
    computed = {key for t in range(plan.size) if not plan.is_given(t) for key in plan.members(t)}
    assert not {key for key in computed & set(values) if not isinstance(nodes[key], DataNode)}


def test_tasks_that_differ_only_in_their_data_share_one_program() -> None:
    graph = {("a", i): Task(("a", i), add, i, 1.5) for i in range(8)}
    graph |= {("b", i): Task(("b", i), add, TaskRef(("a", i)), TaskRef(("a", i + 1))) for i in range(7)}
    graph |= {"c": Task("c", add, TaskRef(("b", 0)), TaskRef(("b", 0)))}
    plan = lower(graph, ["c", *(("b", i) for i in range(7))])
    assert len(plan.columns.programs) == 1
    assert len(plan.columns.functions) == 1


def test_a_task_fused_by_dask_becomes_calls_of_one_program() -> None:
    parts = [Task("x", add, TaskRef("in"), 1), Task("y", neg, TaskRef("x")), Task("z", add, TaskRef("y"), TaskRef("x"))]
    plan = lower({"in": Task("in", neg, 3), "out": Task.fuse(*parts, key="out")}, ["out"], fuse=False)
    (output,) = plan.outputs
    assert [plan.columns.functions[call.func] for call in plan.program(output).calls] == [add, neg, add]
    assert results(plan) == [0]


@pytest.mark.parametrize("result", ["first", "second", "inner"])
def test_a_fused_task_may_hand_on_one_of_its_arguments(result: str) -> None:
    inner = {"inner": Task("inner", show, TaskRef("first"), TaskRef("second")), "out": Alias("out", result)}
    arguments = (Task(None, neg, TaskRef("x")), Task(None, neg, TaskRef("y")))
    for second in (arguments[1], TaskRef("y")):
        fused = Task("f", _execute_subgraph, inner, "out", ("first", "second"), arguments[0], second)
        graph = {"x": Task("x", neg, 3), "y": Task("y", neg, 4), "f": fused}
        assert results(lower(graph, ["f"])) == [get_sync(graph, "f")]
    plain = Task("f", _execute_subgraph, {"out": Alias("out", "second")}, "out", ("first", "second"), 1, TaskRef("y"))
    assert results(lower({"y": Task("y", neg, 4), "f": plain}, ["f"], fuse=False)) == [-4]


def test_a_fused_chain_of_any_length_needs_no_recursion() -> None:
    parts: list[Any] = [Task(("c", 0), add, 1, 1)]
    parts += [Task(("c", i), add, TaskRef(("c", i - 1)), 1) for i in range(1, 5000)]
    parts[1:1] = [Alias("a0", ("c", 0))]
    fused = Task.fuse(*parts[2:], parts[0], key="out")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        assert results(lower({"out": fused}, ["out"])) == [5001]
    finally:
        sys.setrecursionlimit(limit)


def test_a_requested_alias_or_datum_gives_its_value() -> None:
    graph = {"d": DataNode("d", 7), "a": Alias("a", "b"), "b": Alias("b", "t"), "t": Task("t", neg, TaskRef("d"))}
    plan = lower(graph, ["d", "a", "t", "d"])
    assert results(plan) == [7, -7, -7, 7]
    assert plan.size == 2


def test_an_alias_of_requested_data_is_the_same_task() -> None:
    plan = lower({"d": DataNode("d", 7), "a": Alias("a", "d"), "t": Task("t", neg, TaskRef("a"))}, ["a", "d", "t"])
    assert results(plan) == [7, 7, -7]


def test_futures_are_references_to_given_tasks() -> None:
    class Future:
        __dask_future__ = True

        def __init__(self, key: str) -> None:
            self.key = key

    graph = {"new": Task("new", add, Future("old"), List(1)), "legacy": (add, Future("old"), [2])}
    plan = lower(graph, ["new", "legacy"], {"old": [0]})
    assert [plan.key(t) for t in plan.given] == ["old"]
    assert results(plan, given={"old": [0]}) == [[0, 1], [0, 2]]


def test_nested_containers_are_made_anew_for_each_task() -> None:
    nested = List(1, Dict({"k": List()}))
    plan = lower({k: Task(k, show, nested) for k in ("a", "b")}, ["a", "b"])
    a, b = results(plan)
    assert a == b
    assert a[1][1] is not b[1][1]


def test_a_node_of_a_kind_unknown_here_runs_by_its_own_call() -> None:
    class Doubled(Task):
        __slots__ = ()

        def __call__(self, values: Any = ()) -> Any:
            return 2 * super().__call__(values)

    graph = {"a": Task("a", add, 1, 2), "b": Doubled("b", add, TaskRef("a"), 1)}
    assert isinstance(graph["b"], GraphNode)
    assert results(lower(graph, ["b"])) == [8]


def test_a_cycle_is_named_by_its_keys() -> None:
    graph = {
        "out": Task("out", neg, TaskRef("a")),
        "a": Task("a", add, TaskRef("b"), 1),
        "b": (add, "c", 1),
        "c": (neg, "a"),
    }
    with pytest.raises(GraphCycle, match="'a' needs 'b' needs 'c' needs 'a'"):
        lower(graph, ["out"])
    with pytest.raises(GraphCycle, match="'p' needs 'q' needs 'p'"):
        lower({"o": (neg, "p"), "p": Alias("p", "q"), "q": Alias("q", "p")}, ["o"])


def test_a_cycle_within_a_fused_task_is_refused() -> None:
    inner = {"p": Task("p", neg, TaskRef("q")), "q": Task("q", neg, TaskRef("p"))}
    with pytest.raises(GraphCycle, match="the fused task 'f' has a cycle through"):
        lower({"f": Task("f", _execute_subgraph, inner, "p", ())}, ["f"])


def test_a_given_alias_is_not_followed() -> None:
    plan = lower({"a": Alias("a", "gone"), "b": Task("b", neg, TaskRef("a"))}, ["b"], {"a": 5})
    assert results(plan, given={"a": 5}) == [-5]


def test_a_missing_key_is_named_with_who_needs_it() -> None:
    with pytest.raises(MissingKey, match="'gone' is not in the graph, but task 'b' needs it"):
        lower({"a": Task("a", neg, TaskRef("b")), "b": Task("b", neg, Alias("gone"))}, ["a"])
    with pytest.raises(MissingKey, match="'gone' is not in the graph, but it was requested"):
        lower({"a": 1}, ["gone"])


def test_what_is_not_requested_is_not_looked_at() -> None:
    plan = lower(
        {"a": Task("a", neg, 1), "b": Task("b", neg, TaskRef("gone")), "c": Task("c", neg, TaskRef("c"))}, ["a"]
    )
    assert plan.size == 1


def test_the_failing_member_of_a_fused_task_is_known() -> None:
    def fail(x: Any) -> Any:
        raise ZeroDivisionError(x)

    graph = {"a": Task("a", neg, 1), "b": Task("b", fail, List(TaskRef("a"))), "c": Task("c", neg, TaskRef("b"))}
    plan = lower(graph, ["c"])
    with pytest.raises(ZeroDivisionError) as failure:
        plan.run(0, {})
    assert plan.members(0)[failed_member(plan.program(0), failure.value)] == "b"


def compute(collection: Any) -> list[Any]:
    return results(lower(dict(collection.__dask_graph__()), list(flatten(collection.__dask_keys__()))))


def test_arrays_dataframes_and_bags_lower_to_what_they_compute() -> None:
    x = da.arange(64, chunks=8).reshape(8, 8).rechunk((4, 3))
    array = ((x + x.T.rechunk((4, 3))) @ da.ones((8, 4), chunks=3)).std(axis=0)
    np.testing.assert_array_equal(np.concatenate(compute(array)), array.compute(scheduler="sync"))

    frame = dd.from_pandas(pd.DataFrame({"a": range(60), "b": [i % 7 for i in range(60)]}), npartitions=5)
    with dask.config.set({"dataframe.shuffle.method": "tasks"}):
        merged = frame.merge(frame, on="b").optimize()
        rows = pd.concat(compute(merged)).sort_values(["a_x", "a_y"]).reset_index(drop=True)
        same = merged.compute(scheduler="sync").sort_values(["a_x", "a_y"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, same)

    bag = db.range(40, npartitions=4).map(lambda i: i * i).filter(lambda i: i % 3 == 0)
    assert [i for part in compute(bag) for i in part] == [i * i for i in range(40) if i % 3 == 0]

"""Plans are culled, fused, ordered and laid out as their graph says."""

import math
import sys
from collections.abc import Iterator
from operator import add, neg
from typing import Any

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.graphs import dask_graphs, run_in_order
from wukong.errors import GraphCycle, MissingKey
from wukong.plan.builder import PlanBuilder
from wukong.plan.reading import Plan
from wukong.scheduler.dask.lower import lower


@pytest.fixture
def shallow() -> Iterator[None]:
    """Make anything that recurses over a graph fail."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    yield
    sys.setrecursionlimit(limit)


def count(*args: Any) -> int:
    return sum(args)


def build(inputs: dict[str, list[str]], requested: list[str], **options: Any) -> Plan:
    """Build a plan of tasks that add 1 to the sum of their inputs."""
    builder = PlanBuilder()
    tasks = {key: builder.task(key) for key in inputs}
    for key, needs in inputs.items():
        row = [builder.literal(1), *(tasks[k] for k in needs)]
        builder.define(tasks[key], builder.call(count, len(row)), row)
    return builder.build([tasks[key] for key in requested], **options)


@settings(max_examples=80, deadline=None)
@given(dask_graphs(), st.booleans())
def test_the_columns_agree_with_networkx(drawn: Any, fuse: bool) -> None:
    graph, wanted = drawn
    plan = lower(graph, wanted, fuse=fuse)
    oracle: Any = plan.to_networkx()
    assert nx.is_directed_acyclic_graph(oracle)
    reverse = oracle.reverse()
    for task in range(plan.size):
        operands = [r for r in plan.operands(task) if r >= 0]
        assert plan.inputs(task) == tuple(dict.fromkeys(operands))
        assert sorted(plan.inputs(task)) == sorted(oracle.predecessors(task))
        assert plan.children(task) == tuple(sorted(oracle.successors(task)))
        assert plan.indegree(task) == oracle.in_degree(task)
        assert plan.consumers(task) == oracle.out_degree(task) + (task in plan.outputs)
        assert plan.edges(task) == [(c, oracle.in_degree(c)) for c in plan.children(task)]
        assert plan.uses(task) == [(p, plan.consumers(p)) for p in plan.inputs(task)]
        assert all(p < task for p in plan.inputs(task))
        below = oracle.subgraph({task} | nx.descendants(oracle, task))
        assert plan.height(task) == nx.dag_longest_path_length(below)
        assert {task} & set(plan.outputs) or nx.descendants(oracle, task) & set(plan.outputs)
    assert plan.leaves == [t for t in range(plan.size) if oracle.in_degree(t) == 0]
    needed = set(plan.outputs).union(*(nx.descendants(reverse, t) for t in plan.outputs))
    assert needed == set(range(plan.size))


def test_a_chain_is_one_task_whose_members_are_its_keys_first_to_last() -> None:
    plan = build({"a": [], "b": ["a"], "c": ["b", "b"]}, ["c"])
    assert (plan.size, plan.key(0), plan.members(0)) == (1, "c", ("a", "b", "c"))
    assert run_in_order(plan) == {0: 5}


def test_nothing_is_fused_across_an_output_a_fan_in_or_a_fan_out() -> None:
    assert build({"a": [], "b": ["a"], "c": ["b"]}, ["c", "b"]).size == 2
    assert build({"a": [], "b": [], "c": ["a", "b"]}, ["c"]).size == 3
    assert build({"a": [], "b": ["a"], "c": ["a"]}, ["b", "c"]).size == 3
    assert build({"a": [], "b": ["a"]}, ["b"], longest_chain=1).size == 2


def test_a_task_is_fused_with_its_input_though_a_task_that_is_not_needed_uses_it_too() -> None:
    assert build({"a": [], "b": ["a"], "unneeded": ["a"]}, ["b"]).size == 1


def test_chains_end_at_the_longest_length() -> None:
    inputs: dict[str, list[str]] = {"k0": []} | {f"k{i}": [f"k{i - 1}"] for i in range(1, 10)}
    plan = build(inputs, ["k9"], longest_chain=4)
    assert [len(plan.members(t)) for t in range(plan.size)] == [4, 4, 2]


def test_given_tasks_are_leaves_of_their_own_that_nothing_is_fused_with() -> None:
    builder = PlanBuilder()
    a, b = builder.task("a"), builder.task("b")
    builder.give(a)
    builder.define(b, builder.call(neg, 1), [a])
    plan = builder.build([b])
    assert (plan.given, plan.leaves, plan.inputs(1)) == ([0], [], (0,))
    assert plan.run(1, {0: 5}) == -5


def test_the_deeper_input_comes_first_and_equals_come_in_argument_order() -> None:
    chain: dict[str, list[str]] = {"d0": [], "d1": ["d0"], "d2": ["d1"]}
    plan = build({"x": [], "y": [], **chain, "z": [], "out": ["x", "y", "d2", "z"]}, ["out"], longest_chain=1)
    assert [plan.key(t) for t in range(plan.size)] == ["d0", "d1", "d2", "x", "y", "z", "out"]


def test_a_tree_is_walked_depth_first_so_that_few_values_wait() -> None:
    inputs: dict[str, list[str]] = {f"0.{i}": [] for i in range(256)}
    for level in range(1, 9):
        inputs |= {f"{level}.{i}": [f"{level - 1}.{2 * i}", f"{level - 1}.{2 * i + 1}"] for i in range(256 >> level)}
    plan = build(inputs, ["8.0"])
    left = [plan.consumers(t) for t in range(plan.size)]
    waiting = most = 0
    for task in range(plan.size):
        waiting += 1
        most = max(most, waiting)
        for p in plan.inputs(task):
            left[p] -= 1
            waiting -= left[p] == 0
    assert most <= 10


def test_requests_of_one_task_share_it_and_keep_their_order() -> None:
    plan = build({"a": [], "b": [], "c": ["a", "b"]}, ["c", "a", "c"])
    assert [plan.key(t) for t in plan.requested] == ["c", "a", "c"]
    assert [plan.key(t) for t in plan.outputs] == ["c", "a"]


@pytest.mark.usefixtures("shallow")
def test_a_chain_of_100_000_needs_no_recursion() -> None:
    inputs: dict[str, list[str]] = {"k0": []} | {f"k{i}": [f"k{i - 1}"] for i in range(1, 100_000)}
    plan = build(inputs, ["k99999"])
    assert plan.size == math.ceil(100_000 / 128)
    assert len(plan.columns.programs) == 5  # without and with an input, alone and as chains; and the short chain's
    assert list(run_in_order(plan).values()) == [100_000]
    long = build(inputs, ["k99999"], longest_chain=1)
    assert (long.size, long.height(0)) == (100_000, 99_999)


@pytest.mark.usefixtures("shallow")
def test_a_fan_of_100_000_is_one_task_with_100_000_inputs() -> None:
    inputs: dict[str, list[str]] = {"root": []} | {f"k{i}": ["root"] for i in range(100_000)}
    plan = build(inputs | {"out": list(inputs)[1:]}, ["out"])
    assert (plan.size, plan.indegree(100_001), plan.consumers(0)) == (100_002, 100_000, 100_000)
    assert list(run_in_order(plan).values()) == [200_001]


@pytest.mark.usefixtures("shallow")
def test_a_long_cycle_is_named_in_short() -> None:
    inputs = {f"k{i}": [f"k{(i - 1) % 5000}"] for i in range(5000)}
    with pytest.raises(GraphCycle, match=r"'k7' needs 'k6' .*4988 more.* needs 'k7'"):
        build(inputs, ["k7"])


def test_only_the_tasks_of_the_cycle_are_named() -> None:
    inputs = {"a": ["b", "x"], "b": ["c", "x"], "c": ["x", "b"], "x": []}
    with pytest.raises(GraphCycle, match=r"cycle: 'b' needs 'c' needs 'b'\."):
        build(inputs, ["a"])
    with pytest.raises(GraphCycle, match=r"cycle: 'a' needs 'a'\."):
        build({"a": ["a"]}, ["a"])


def test_a_task_that_was_never_defined_is_named_with_its_user() -> None:
    builder = PlanBuilder()
    a, b = builder.task("a"), builder.task("b")
    builder.define(b, builder.call(neg, 1), [a])
    with pytest.raises(MissingKey, match="key 'a' is not in the graph, but task 'b' needs it"):
        builder.build([b])


class Equal:
    """Equal to everything, as some callables and data are."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __call__(self) -> None:
        """Do nothing."""


def test_literals_are_one_only_where_nobody_could_tell_them_apart() -> None:
    literal = PlanBuilder().literal
    apart = [1, True, 1.0, 1 + 0j, "1", b"1", 0.0, -0.0, 0j, -0j, 0, False, None, (1,), (True,), (1.0,), [1], Equal()]
    apart += [(), (0.0,), (-0.0,), slice(0, 1), slice(False, 1), (slice(0, 1),), Equal(), [1], ..., Equal, add]
    assert len({literal(value) for value in apart}) == len(apart)
    assert literal(math.nan) == literal(float("nan"))
    assert literal((1, slice(2, None), "a")) == literal((1, slice(2, None), "a"))
    shared = [1]
    assert literal(shared) == literal(shared)
    assert literal((shared, 1)) == literal((shared, 1)) != literal(([1], 1))


def test_functions_are_told_apart_by_identity_and_bound_methods_by_their_object() -> None:
    function = PlanBuilder().function
    one, other = Equal(), Equal()
    assert function(one) != function(other)
    assert function("a".upper) != function("b".upper)
    assert function(one.__call__) == function(one.__call__) != function(other.__call__)

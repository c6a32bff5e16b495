"""A plan read back from its blobs is the plan, and the same content has the same name."""

import subprocess
import sys
import threading
import types
from collections.abc import Sequence
from functools import partial
from operator import add, neg
from typing import Any

import numpy as np
import pytest
from dask._task_spec import Task, TaskRef
from dask.local import get_sync
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.graphs import dask_graphs, run_in_order
from wukong import serialize
from wukong.errors import CannotTravel, FrameError
from wukong.plan.codec import Encoded, encode
from wukong.plan.reading import Plan, Reading
from wukong.plan.segments import cut, segments_of, static_schedule
from wukong.plan.view import PlanView
from wukong.scheduler.dask.lower import lower

QUESTIONS = ("key", "members", "inputs", "uses", "indegree", "children", "edges", "consumers", "is_output", "is_given")


class Shelf:
    """Blobs by digest, and a note of what was fetched."""

    def __init__(self, encoded: Encoded) -> None:
        self.blobs = {digest: bytes(frame) for digest, frame in encoded.blobs.items()}
        self.fetched: list[list[str]] = []

    def fetch(self, digests: list[str]) -> Sequence[bytes]:
        self.fetched.append(digests)
        return [self.blobs[digest] for digest in digests]


def view_of(plan: Plan, **options: Any) -> tuple[PlanView, Shelf]:
    encoded = encode(plan, **options)
    shelf = Shelf(encoded)
    return PlanView(encoded.manifest, shelf.fetch), shelf


def tree(leaves: int) -> tuple[dict[Any, Any], Any]:
    graph: dict[Any, Any] = {("t", 0, i): Task(("t", 0, i), add, i, 1) for i in range(leaves)}
    level = 0
    while leaves > 1:
        leaves //= 2
        level += 1
        for i in range(leaves):
            key = ("t", level, i)
            graph[key] = Task(key, add, TaskRef(("t", level - 1, 2 * i)), TaskRef(("t", level - 1, 2 * i + 1)))
    return graph, ("t", level, 0)


def answers(plan: Reading) -> list[Any]:
    plan.load(range(plan.size))
    return [[getattr(plan, name)(task) for name in (*QUESTIONS, "height", "loaded")] for task in range(plan.size)]


@settings(max_examples=100, deadline=None)
@given(dask_graphs(), st.integers(1, 5), st.sampled_from([0, 10_000]))
def test_a_view_answers_what_the_plan_answers_and_computes_the_same(drawn: Any, most_tasks: int, hoist: int) -> None:
    graph, wanted = drawn
    plan = lower(graph, wanted)
    view, _ = view_of(plan, most_tasks=most_tasks, hoist=hoist)
    assert answers(view) == answers(plan)
    assert (view.size, view.outputs, view.requested) == (plan.size, plan.outputs, plan.requested)
    assert (view.leaves, view.given) == (plan.leaves, plan.given)
    values = run_in_order(view)
    assert repr([values[task] for task in view.requested]) == repr(list(get_sync(graph, wanted)))


def test_tasks_are_of_one_kind_where_their_program_is_one_in_whatever_segment() -> None:
    graph, root = tree(64)
    graph |= {"n": Task("n", neg, TaskRef(root)), "m": Task("m", neg, TaskRef(root))}
    plan = lower(graph, ["n", "m"], fuse=False)
    view, _ = view_of(plan, most_tasks=7)
    kinds = {(plan.kind(t), view.kind(t)) for t in range(plan.size)}
    assert len(kinds) == 2


def test_given_tasks_stay_given() -> None:
    view, _ = view_of(lower({"b": (neg, "a")}, ["b"], {"a": 1}))
    assert (view.given, view.leaves) == ([0], [])
    assert run_in_order(view, {"a": 1}) == {1: -1}


def test_equal_graphs_have_equal_addresses_and_others_do_not() -> None:
    one, same, other = (
        encode(lower(*pair)) for pair in [(tree(256)[0], [("t", 8, 0)])] * 2 + [(tree(256)[0], [("t", 7, 1)])]
    )
    assert one.digest == same.digest
    assert one.blobs.keys() == same.blobs.keys()
    assert one.digest != other.digest


def test_addresses_do_not_depend_on_which_equal_names_are_one_object() -> None:
    def named(name: Any) -> dict[Any, Any]:
        return {name(): (neg, 1)} | {(name(), i): (add, i, 1) for i in range(5)}

    one = named(lambda: "blocks")
    many = named(lambda: "".join(["bl", "ocks"]))
    assert len({id(key[0]) for key in list(many)[1:]}) == 5
    assert encode(lower(one, list(one))).digest == encode(lower(many, list(many))).digest


def test_addresses_are_the_same_in_another_process() -> None:
    code = (
        "from tests.plan.test_codec import tree, encode, lower;"
        "graph, root = tree(256); print(encode(lower(graph, [root])).digest)"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    graph, root = tree(256)
    assert encode(lower(graph, [root])).digest == there


def test_one_changed_literal_changes_one_segment() -> None:
    graph, root = tree(256)
    before = encode(lower(graph, [root]), most_tasks=32).blobs.keys()
    graph["t", 0, 17] = Task(("t", 0, 17), add, 1000, 1)
    after = encode(lower(graph, [root]), most_tasks=32).blobs.keys()
    assert len(before) == len(after) == 16
    assert len(before - after) == 1


def test_a_large_literal_is_stored_once_however_many_tasks_use_it() -> None:
    array = np.arange(10_000)
    graph = {i: Task(i, add, array, i) for i in range(50)} | {"copy": Task("copy", add, array.copy(), 3)}
    plan = lower(graph, list(graph))
    encoded = encode(plan, most_tasks=10)
    (hoisted,) = (frame for frame in encoded.blobs.values() if frame.nbytes > array.nbytes)
    assert np.shares_memory(np.frombuffer(hoisted.parts[-1], "u1"), array)
    assert sum(frame.nbytes for frame in encoded.blobs.values()) < array.nbytes + 20_000
    view, shelf = view_of(plan, most_tasks=10)
    values = run_in_order(view)
    assert [values[t][0] for t in view.requested] == [*range(50), 3]
    assert len([digests for digests in shelf.fetched if hoisted.nbytes in map(len, map(shelf.blobs.get, digests))]) == 1


def test_small_literals_of_any_type_travel_with_their_segment() -> None:
    graph = {"a": Task("a", add, [1], ["x" * 300]), "b": Task("b", add, np.ones(3), 1)}
    view, shelf = view_of(lower(graph, ["a", "b"]))
    values = run_in_order(view)
    assert values[view.requested[0]] == [1, "x" * 300]
    assert values[view.requested[1]].tolist() == [2, 2, 2]
    assert len(shelf.fetched) == 1


def test_only_the_segments_that_are_needed_are_loaded_and_each_once() -> None:
    graph, root = tree(256)
    view, shelf = view_of(lower(graph, [root]), most_tasks=64)
    assert not view.loaded(0)
    view.load([0, 1, 200])
    assert [view.loaded(t) for t in (0, 63, 64, 200, 500)] == [True, True, False, True, False]
    assert [len(digests) for digests in shelf.fetched] == [2]
    view.load([5, 199])
    assert len(shelf.fetched) == 1
    assert view.key(510) == root
    assert len(shelf.fetched) == 2


def test_functions_are_fetched_and_unpickled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    big = "x" * 10_000
    plan = lower(
        {i: Task(i, lambda i: (i, len(big)), i) for i in range(100)} | {"b": Task("b", neg, 1)}, list(range(100))
    )
    encoded = encode(plan, most_tasks=10)
    loads, made = serialize.loads, []
    monkeypatch.setattr(serialize, "loads", lambda b, kind=None: (made.append(kind), loads(b, kind))[1])
    shelf = Shelf(encoded)
    values = run_in_order(PlanView(encoded.manifest, shelf.fetch))
    assert values[7] == (7, 10_000)
    assert len(plan.columns.functions) == 100  # made anew by each pass of the comprehension, but of the same content
    assert made.count(serialize.FUNCTION) == 1
    fetched = [digest for digests in shelf.fetched for digest in digests]
    assert len(fetched) == len(set(fetched))


def test_a_function_that_is_known_by_its_name_is_looked_up_anew_for_each_job(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("edited")
    monkeypatch.setitem(sys.modules, "edited", module)
    for text in "one", "two":
        exec(f"def f(): return {text!r}", module.__dict__)
        encoded = encode(lower({"a": Task("a", module.f)}, ["a"]))
        assert run_in_order(PlanView(encoded.manifest, Shelf(encoded).fetch))[0] == text


def test_a_segment_under_another_ones_name_is_refused() -> None:
    graph, root = tree(64)
    encoded = encode(lower(graph, [root]), most_tasks=64)
    one, other = (bytes(frame) for frame in encoded.blobs.values())
    swapped = {bytes(frame): bytes(frame) for frame in encoded.blobs.values()}
    assert len(swapped) == 2
    view = PlanView(encoded.manifest, lambda digests: [other if len(digests) == 1 else one])
    with pytest.raises(FrameError, match="does not hold the tasks"):
        view.load([0])


def test_an_argument_that_cannot_travel_is_named_with_its_task_and_the_path_to_the_culprit() -> None:
    graph = {"a": (neg, 1), "b": Task("b", partial(dict), x=TaskRef("a"), y=Task(None, list, [[1, threading.Lock()]]))}
    with pytest.raises(CannotTravel, match=r"task 'b': argument 0 of list cannot .*: \[0\] -> \[1\] -> _thread.lock"):
        encode(lower(graph, ["b"]))
    graph = {"a": (neg, 1), "b": Task("b", dict, x=TaskRef("a"), y={"k": threading.Lock()})}
    with pytest.raises(CannotTravel, match=r"task 'b': argument y of dict cannot .*: \['k'\] -> _thread.lock"):
        encode(lower(graph, ["b"]))


def test_tasks_that_cannot_travel_are_named_where_others_may_run_them() -> None:
    lock = threading.Lock()

    def locked(x: int) -> int:
        with lock:
            return x

    graph = {
        "a": Task("a", neg, 1),
        "b": Task("b", locked, TaskRef("a")),
        "c": Task("c", max, TaskRef("a"), lock),
        "d": Task("d", add, TaskRef("a"), 1),
    }
    plan = lower(graph, list("abcd"))
    encoded = encode(plan, lenient=True)
    assert {plan.key(task): reason for task, reason in encoded.stuck.items()} == {
        "b": "closure lock -> lock cannot be pickled",
        "c": "lock cannot be pickled",
    }
    view = PlanView(encoded.manifest, Shelf(encoded).fetch)
    for task in plan.requested:
        if task not in encoded.stuck:
            assert view.run(task, {plan.requested[0]: 5}) == plan.run(task, {plan.requested[0]: 5})


def test_a_function_that_cannot_travel_is_named_with_its_task() -> None:
    lock = threading.Lock()
    graph = {"a": (neg, 1), "b": Task("b", lambda x: (x, lock), TaskRef("a")), "c": (neg, "b")}
    with pytest.raises(CannotTravel, match=r"task 'b': its function cannot .*: closure lock -> _thread.lock"):
        encode(lower(graph, ["c"]))


@settings(max_examples=50, deadline=None)
@given(dask_graphs(), st.integers(1, 6), st.integers(1, 20))
def test_segments_cover_all_tasks_and_keep_their_bounds(drawn: Any, most_tasks: int, most_entries: int) -> None:
    plan = lower(*drawn)
    starts = cut(plan.columns, most_tasks, most_entries)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    for first, end in zip(starts, [*starts[1:], plan.size], strict=True):
        entries = sum(len(plan.operands(t)) + plan.indegree(t) + len(plan.children(t)) for t in range(first, end))
        assert end - first == 1 or (end - first <= most_tasks and entries <= most_entries)


def test_static_schedules_of_two_leaves_share_the_segments_from_where_they_meet() -> None:
    graph, root = tree(256)
    plan = lower(graph, [root])
    starts = cut(plan.columns, 32)
    schedules = [static_schedule(plan, leaf) for leaf in plan.leaves]
    assert all(len(schedule) == 9 and schedule[-1] == plan.outputs[0] for schedule in schedules)
    first, last = segments_of(starts, schedules[0]), segments_of(starts, schedules[-1])
    assert first[-1] == last[-1]
    assert first[0] == 0 != last[0]
    assert all(starts[n] <= t for t in schedules[3] for n in segments_of(starts, [t]))


def test_a_static_schedule_is_what_is_reachable_in_an_order_that_runs() -> None:
    graph = {
        "a": (neg, 1),
        "b": (neg, 2),
        "c": (add, "a", "b"),
        "d": (add, "a", "c"),
        "e": (neg, "b"),
        "f": (add, "d", "e"),
    }
    plan = lower(graph, ["f"], fuse=False)
    a, b = plan.leaves
    assert [plan.key(t) for t in static_schedule(plan, a)] == ["a", "c", "d", "f"]
    assert {plan.key(t) for t in static_schedule(plan, b)} == {"b", "c", "d", "e", "f"}

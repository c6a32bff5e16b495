import gc
import sys
import weakref

import pytest

from wukong.executor.alone import Walk, walk


def tasks(graph, wanted):
    """A walk of a dict in order of its keys: (function, *inputs) each."""
    last = {read: key for key, (_, *inputs) in graph.items() for read in inputs}
    for key in wanted:
        last[key] = None
    inputs = [tuple(dict.fromkeys(reads)) for _, *reads in graph.values()]
    return Walk(list(graph), list(graph.values()), inputs, last, list(wanted))


def evaluate(node, values):
    return node[0](*(values[read] for read in node[1:]))


class Big:
    pass


def test_only_what_was_wanted_remains():
    values = {}
    walk(
        tasks({"a": (lambda: 1,), "b": (lambda a: a + 1, "a"), "c": (lambda a, b: a + b, "a", "b")}, "cb"),
        evaluate,
        values,
    )
    assert values == {"b": 2, "c": 3}


def test_a_value_is_let_go_right_after_its_last_use():
    counts = []
    alive = weakref.WeakSet()

    def big(*_):
        made = Big()
        alive.add(made)
        return made

    def count(*_):
        gc.collect()
        counts.append(len(alive))

    graph = {"a": (big,), "b": (big, "a"), "n1": (count, "a"), "n2": (count, "b"), "n3": (count,)}
    walk(tasks(graph, ["n1", "n2", "n3"]), evaluate, {})
    assert counts == [2, 1, 0]


def test_the_same_input_twice_is_let_go_once():
    values = {}
    walk(tasks({"a": (lambda: 2,), "b": (lambda x, y: x * y, "a", "a")}, "b"), evaluate, values)
    assert values == {"b": 4}


@pytest.mark.parametrize("kind", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failing_task_raises_its_own_exception_with_the_way_to_what_was_wanted(kind):
    error = kind("mine")

    def fail(_):
        raise error

    graph = {"a": (int,), "b": (fail, "a"), ("c", 1): (str, "b"), "d": (str, ("c", 1)), "e": (str, "d")}
    with pytest.raises(kind) as raised:
        walk(tasks(graph, ["e", "d"]), evaluate, {})
    assert raised.value is error
    assert error.__notes__ == ["wukong: task 'b' failed, on the way b -> ('c', 1) -> d"]
    assert raised.traceback[-1].name == "fail"


def test_an_exception_raised_again_by_the_same_walk_is_noted_once():
    error = LookupError()

    def fail():
        raise error

    for _ in range(2):
        with pytest.raises(LookupError):
            walk(tasks({"a": (fail,)}, "a"), evaluate, {})
    assert error.__notes__ == ["wukong: task 'a' failed"]


def test_a_long_way_is_shortened_in_the_middle():
    def fail():
        raise LookupError

    graph = {0: (fail,), **{i: (abs, i - 1) for i in range(1, 5000)}}
    with pytest.raises(LookupError) as raised:
        walk(tasks(graph, [4999]), evaluate, {})
    (note,) = raised.value.__notes__
    assert "0 -> 1 -> " in note
    assert "(4989 more)" in note
    assert note.endswith("4998 -> 4999")


def test_a_chain_of_any_length_needs_no_stack():
    n = 10 * sys.getrecursionlimit()
    values = {}
    walk(tasks({0: (int,), **{i: (lambda x: x + 1, i - 1) for i in range(1, n)}}, [n - 1]), evaluate, values)
    assert values == {n - 1: n - 1}


def test_an_observer_is_told_of_each_task_and_not_that_a_failed_one_finished():
    told = []

    class Observer:
        def started(self, key):
            told.append(key)

        def finished(self, key, value):
            told.append((key, value))

    with pytest.raises(ZeroDivisionError):
        walk(tasks({"a": (int,), "b": (lambda a: 1 // a, "a")}, "b"), evaluate, {}, Observer())
    assert told == ["a", ("a", 0), "b"]

"""Packing functions: never an old one, and seldom more often than needed."""

import math
import operator
import sys
import types
from functools import partial

import pytest

from wukong import serialize
from wukong.platforms.local import functions
from wukong.platforms.local.functions import Functions, name_of


@pytest.fixture
def packs(monkeypatch):
    """Count how often something is packed in earnest."""
    count = [0]
    pack = functions._pack

    def counting(function):
        count[0] += 1
        return pack(function)

    monkeypatch.setattr(functions, "_pack", counting)
    return count


def made(code, **names):
    """A function as of a notebook."""
    space = {"__name__": "__main__", **names}
    exec(code, space)
    return space["f"], space


def called(packed, *args):
    return serialize.loads(packed.parcel.frame, serialize.FUNCTION)(*args)


SETTLED = [
    made("def f(x): return x + 1")[0],
    made("def f(x): return math.sqrt(x) + g(x) + n", math=math, g=operator.neg, n=3)[0],
    made("def g(x): return x + n\ndef f(x, y=(1, 2)): return g(x) + sum(y)", n=2)[0],
    made("def f(x): return [f, x][1]")[0],
    len,
    operator.add,
    int,
    partial,
]
UNSETTLED = [
    made("def f(x): return n[0]", n=[1])[0],
    made("def f(x, y=[1]): return y")[0],
    partial(operator.add, 1),
    "a".join,
]


@pytest.mark.parametrize("function", SETTLED)
def test_what_cannot_change_is_packed_once(packs, function):
    kept = Functions()
    assert kept.pack(function) is kept.pack(function)
    assert packs == [1]


@pytest.mark.parametrize("function", UNSETTLED)
def test_what_may_change_is_packed_each_time(packs, function):
    kept = Functions()
    kept.pack(function)
    kept.pack(function)
    assert packs == [2]


def test_changes_are_seen():
    kept = Functions()
    f, space = made("def g(x): return x\ndef f(x): return g(x) + n", n=1)
    assert called(kept.pack(f), 1) == 2
    space["n"] = 2
    assert called(kept.pack(f), 1) == 3
    exec("def g(x): return 10 * x", space)
    assert called(kept.pack(f), 1) == 12
    space["g"].__code__ = made("def f(x, y=0): return x + y")[0].__code__
    space["g"].__defaults__ = (5,)
    assert called(kept.pack(f), 1) == 8
    f.__code__ = made("def f(x): return -x")[0].__code__
    assert called(kept.pack(f), 1) == -1
    f.__code__ = made("def f(x): return -2 * x")[0].__code__
    assert called(kept.pack(f), 1) == -2
    f.offset = 1
    f.__code__ = made("def f(x): return f.offset")[0].__code__
    assert called(kept.pack(f), 1) == 1


def test_closures_are_seen_as_they_are():
    kept = Functions()

    def outer(n):
        def inner():
            return n

        def change(m):
            nonlocal n
            n = m

        return inner, change

    inner, change = outer(1)
    assert called(kept.pack(inner)) == 1
    change(2)
    assert called(kept.pack(inner)) == 2


def test_functions_of_modules_go_by_name_and_those_of_main_do_not():
    kept = Functions()
    assert kept.pack(math.sqrt).by_name
    assert kept.pack(name_of).by_name
    assert not kept.pack(SETTLED[0]).by_name
    assert not kept.pack(lambda: 1).by_name


def test_a_module_that_is_to_travel_whole_does(monkeypatch):
    import cloudpickle

    module = types.ModuleType("travels_whole")
    exec("def f(): return 1", module.__dict__)
    monkeypatch.setitem(sys.modules, "travels_whole", module)
    kept = Functions()
    assert kept.pack(module.f).by_name
    cloudpickle.register_pickle_by_value(module)
    try:
        assert not kept.pack(module.f).by_name
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def test_only_so_many_are_kept():
    kept = Functions()
    for i in range(functions._MOST + 10):
        kept.pack(made(f"def f(): return {i}")[0])
    assert len(kept._kept) == functions._MOST


def test_names_in_messages():
    assert name_of(partial(partial(math.sqrt))) == "sqrt"
    assert name_of(types.SimpleNamespace()) == "SimpleNamespace"

"""What keeps a function where it is, and what does not: one case for each rule, on both sides."""

import collections
import dataclasses
import enum
import functools
import logging
import operator
import queue
import re
import sys
import threading
import types
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import dask.bag.core
import dask.utils
import numpy as np
import pandas as pd
import pytest
import toolz

from wukong.purity import keeps

# Tests run in a module of the user's, as in a notebook: what is not in `sys.modules` travels with the function.
NOTEBOOK = """
import threading, logging, collections
counter = 0
results = []
cells = {}
weights = np.ones(3)
frozen = np.ones(3); frozen.flags.writeable = False
rng = np.random.default_rng(0)
guard = threading.Lock()
log = logging.getLogger("test")
STOP = {"a", "the"}
TABLE = {"a": 1}
class Model:
    instances = 0
    def __init__(self): self.w = [1]
    def predict(self, x): return x
model = Model()
def count(x):
    global counter
    counter += 1
def forget(x):
    global counter
    del counter
def calls(x): return count(x)
def calls_deep(x): return (lambda: calls(x))()
def collects(x): results.append(x)
def memo(x): return cells.get(x)
def locks(x):
    with guard: return x
def draws(): return rng.normal()
def logs(x): log.info("%s", x); return x
def uses_model(x): return model.predict(x)
def counts_on_class(x): Model.instances += 1
def marks_itself(x): marks_itself.calls = 1
def splits(text):
    found = {}
    for word in text.split():
        if word not in STOP: found[word] = TABLE.get(word, 0)
    return found
def grows(x): STOP.add(x)
def stores(x): TABLE[x] = 1
def tallies(x): TABLE["a"] += x
def dots(x): return x @ weights
def dots_in_a_loop(x):
    total = 0
    for row in x: total += row @ weights
    return total
def fills(i): weights[i] = 0
def fills_by_method(i): weights.fill(i)
def fills_by_out(x): return np.add(x, 1, out=weights)
def fills_an_alias(x):
    mine = weights
    mine += x
def frozen_fills(i): x = [0]; x[0] = frozen[i]; return x
def attribute_of_that_name(x): return x.results
def writes_text(): exec("counter = 1")
def writes_dict(): globals()["counter"] = 1
def harmless(x): return x + 1
def makes_its_own(x):
    found = []
    found.append(x)
    return found
def itself(n): return n and itself(n - 1)
"""


@pytest.fixture(scope="module")
def notebook() -> dict[str, Any]:
    space = {"np": np, "__name__": "__main__"}
    exec(NOTEBOOK, space)
    return space


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("count", "writes the global `counter`"),
        ("forget", "writes the global `counter`"),
        ("calls", "runs `count`, which writes the global `counter`"),
        ("calls_deep", "runs `count`, which writes the global `counter`"),
        ("collects", "uses the global list `results`, which it might change"),
        ("memo", "uses the global dict `cells`, which it might change"),
        ("locks", "uses the global lock `guard`"),
        ("draws", "uses the global Generator `rng`, which it might change"),
        ("uses_model", "uses the global Model `model`, which it might change"),
        ("counts_on_class", "writes into the global `Model`"),
        ("marks_itself", "writes into the global `marks_itself`"),
        ("grows", "uses the global set `STOP`, which it might change"),
        ("stores", "uses the global dict `TABLE`, which it might change"),
        ("tallies", "uses the global dict `TABLE`, which it might change"),
        ("fills", "uses the global ndarray `weights`, which it might change"),
        ("fills_by_method", "uses the global ndarray `weights`, which it might change"),
        ("fills_by_out", "uses the global ndarray `weights`, which it might change"),
        ("fills_an_alias", "uses the global ndarray `weights`, which it might change"),
        ("writes_text", "might write globals by `exec`"),
        ("writes_dict", "might write globals by `globals`"),
    ],
)
def test_a_function_of_a_notebook_stays(notebook: dict[str, Any], name: str, reason: str) -> None:
    assert keeps(notebook[name]) == reason


@pytest.mark.parametrize(
    "name",
    [
        "logs",
        "splits",
        "dots",
        "dots_in_a_loop",
        "frozen_fills",
        "attribute_of_that_name",
        "harmless",
        "makes_its_own",
        "itself",
    ],
)
def test_a_function_of_a_notebook_moves(notebook: dict[str, Any], name: str) -> None:
    assert keeps(notebook[name]) is None


def capturing(thing: Any) -> Callable[..., Any]:
    return lambda: thing


def defaulting(thing: Any) -> Callable[..., Any]:
    return lambda x=thing: x


class Plain:
    def __init__(self) -> None:
        self.state = 1

    def method(self) -> None: ...


class Slotted:
    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = 1


class Stateless:
    def method(self) -> None: ...


class Callback:
    def __init__(self) -> None:
        self.seen = 0

    def __call__(self) -> None: ...


class OwnList(list):  # type: ignore[type-arg]
    def method(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class Frozen:
    inner: Any = 1

    def method(self) -> None: ...


class Colour(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        ([1], "list"),
        ({}, "dict"),
        (set(), "set"),
        (bytearray(b"x"), "bytearray"),
        (collections.deque(), "deque"),
        (collections.Counter(), "Counter"),
        (OwnList(), "OwnList"),
        (([1],), "list"),
        (Plain(), "Plain"),
        (Slotted(), "Slotted"),
        (Frozen([1]), "list"),
        (queue.Queue(), "Queue"),
        (np.random.default_rng(), "Generator"),
        (np.random.RandomState(1), "RandomState"),
    ],
)
def test_what_might_change_keeps_a_closure(thing: Any, said: str) -> None:
    assert keeps(capturing(thing)) == f"captures the {said} `thing`, which it might change"


@pytest.mark.parametrize(
    "guard",
    [threading.Lock(), threading.RLock(), threading.Condition(), threading.Event(), dask.utils.SerializableLock()],
)
def test_a_captured_lock_keeps_a_closure(guard: Any) -> None:
    assert keeps(capturing(guard)) == "captures the lock `thing`"


def test_what_would_be_used_up_keeps_a_closure(tmp_path: Path) -> None:
    assert keeps(capturing(iter([1]))) == "captures the iterator `thing`, which it would use up"
    assert keeps(capturing(i for i in ())) == "captures the iterator `thing`, which it would use up"
    with (tmp_path / "file").open("w") as file:
        assert keeps(capturing(file)) == "captures the open file `thing`"


@pytest.mark.parametrize(
    "thing",
    [
        1,
        "text",
        (1, ("a", None)),
        frozenset({1}),
        range(3),
        re.compile("x"),
        date(2026, 1, 1),
        Path("/"),
        Colour.RED,
        Frozen(),
        Stateless(),
        np.float64(1),
        np.dtype("f8"),
        np.ones(3),
        pd.DataFrame({"a": [1]}),
        pd.Timestamp(0),
        logging.getLogger("test"),
        np,
        len,
        dict,
        Plain,
        operator.add,
    ],
)
def test_what_does_not_change_moves_with_a_closure(thing: Any) -> None:
    assert keeps(capturing(thing)) is None
    assert keeps(defaulting(thing)) is None


def test_a_nonlocal_that_is_written_keeps_a_closure_and_one_of_its_own_does_not() -> None:
    seen = 0

    def inner() -> None:
        nonlocal seen
        seen += 1

    def deeper() -> None:
        def inmost() -> None:
            nonlocal seen
            seen += 1

        inmost()

    def own() -> int:
        seen = 0

        def add() -> None:
            nonlocal seen
            seen += 1

        add()
        return seen

    assert keeps(inner) == "writes the nonlocal `seen`"
    assert keeps(deeper) == "writes the nonlocal `seen`"
    assert keeps(own) is None


def test_a_default_stays_home_only_if_the_code_writes() -> None:
    def collects(x: Any, found: list[Any] = []) -> None:  # noqa: B006
        found.append(x)

    def reads(x: Any, options: dict[str, Any] = {}) -> Any:  # noqa: B006
        return options.get(x)

    def stores(x: Any, *, cells: dict[Any, Any] = {}) -> None:  # noqa: B006
        cells[x] = 1

    assert keeps(collects) == "keeps the list `found` as a default, which it might change"
    assert keeps(stores) == "keeps the dict `cells` as a default, which it might change"
    assert keeps(reads) is None


def test_a_default_that_is_a_lock_or_an_object_keeps_a_function() -> None:
    assert keeps(defaulting(threading.Lock())) == "keeps as a default the lock `x`"
    assert keeps(defaulting(Plain())) == "keeps as a default the Plain `x`, which it might change"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (Plain().method, "is a method of a mutable object of yours (`Plain`)"),
        (OwnList().method, "is a method of a mutable object of yours (`OwnList`)"),
        (Callback(), "is a mutable object of yours (`Callback`)"),
        ([].append, "is a method of a mutable object (`list`)"),
        (collections.deque().append, "is a method of a mutable object (`deque`)"),
        ({}.__getitem__, "is a method of a mutable object (`dict`)"),
        (capturing(Callback()), "captures the Callback `thing`, which it might change"),
        (Frozen([1]).method, "is a method of the list `Frozen`, which it might change"),
    ],
)
def test_methods_and_callable_objects_stay_with_what_might_change(function: Any, reason: str) -> None:
    assert keeps(function) == reason


@pytest.mark.parametrize(
    "function",
    [
        Frozen().method,
        Stateless().method,
        "a".upper,
        (1).__add__,
        str.upper,
        Plain,
        re.compile("x").sub,
        Path("/").exists,
    ],
)
def test_methods_of_what_does_not_change_move(function: Any) -> None:
    assert keeps(function) is None


@pytest.mark.parametrize(
    "function",
    [
        np.sum,
        np.add,
        np.linalg.qr,
        pd.concat,
        sum,
        operator.itemgetter(1),
        dask.utils.methodcaller("sum"),
        dask.utils.apply,
        dask.bag.core.map_chunk,
        functools.partial(np.sum, axis=[0]),
        functools.partial(np.sum, axis=(0,), keepdims=True),
        toolz.compose(str, len),
        toolz.curry(operator.add),
        toolz.merge_with,
    ],
)
def test_functions_that_are_installed_move(function: Any) -> None:
    assert keeps(function) is None


@pytest.mark.parametrize(
    "wrap",
    [
        lambda f: functools.partial(f, 1),
        lambda f: functools.partial(functools.partial(f, 1), 2),
        lambda f: functools.partial(dask.utils.apply, f),
        lambda f: functools.partial(dask.bag.core.map_chunk, [f]),
        lambda f: toolz.curry(f),
        lambda f: toolz.compose(str, f),
        lambda f: np.vectorize(f),
        functools.lru_cache,
        lambda f: functools.wraps(f)(lambda *args: f(*args)),
        capturing,
        defaulting,
        lambda f: capturing((f,)),
        lambda f: type("Made", (), {"__call__": f})(),
        lambda f: type("Made", (), {"go": staticmethod(f)}),
    ],
)
def test_wrappers_are_looked_into(notebook: dict[str, Any], wrap: Callable[[Any], Any]) -> None:
    assert keeps(wrap(notebook["count"])) == "runs `count`, which writes the global `counter`"
    assert keeps(wrap(notebook["harmless"])) is None


def test_a_list_bound_to_the_users_function_keeps_it_and_one_bound_to_a_librarys_does_not(
    notebook: dict[str, Any],
) -> None:
    assert keeps(functools.partial(notebook["harmless"], [])) == (
        "is given the list `argument 0`, which it might change"
    )
    assert keeps(functools.partial(notebook["harmless"], x=[])) == "is given the list `x`, which it might change"
    assert keeps(functools.partial(np.concatenate, axis=0, dtype=[("a", "f8")])) is None
    assert keeps(functools.partial(np.concatenate, threading.Lock())) == "is given the lock `argument 0`"


def test_a_class_with_a_list_of_its_own_keeps_what_uses_it() -> None:
    class Registry:
        known: list[Any] = []  # noqa: RUF012

    assert keeps(lambda: Registry()) == "uses the class `Registry` with the list `known`, which it might change"


def test_what_is_imported_anew_may_have_tables_but_not_what_it_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("wk_helpers")
    exec(
        "units = {'m': 1}\nseen = []\n"
        "def reads(x): return units[x]\ndef writes(x): seen.append(x)\ndef assigns(x): units[x] = 2\n"
        "def here(x):\n    global last\n    last = x\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "wk_helpers", module)
    space = {"wk_helpers": module, "__name__": "__main__"}
    exec("def through(x): return wk_helpers.here(x)\ndef fine(x): return wk_helpers.reads(x)", space)
    assert keeps(module.reads) is None
    assert keeps(module.writes) == "uses the global list `seen`, which it might change"
    assert keeps(module.assigns) == "uses the global dict `units`, which it might change"
    assert keeps(space["through"]) == "runs `here`, which writes the global `last`"
    assert keeps(space["fine"]) is None


def test_what_a_name_stands_for_is_looked_up_with_each_question() -> None:
    space: dict[str, Any] = {"table": (1,), "__name__": "__main__"}
    exec("def f(): return table", space)
    assert keeps(space["f"]) is None
    space["table"] = [1]
    assert keeps(space["f"]) == "uses the global list `table`, which it might change"


def test_a_variable_that_is_not_bound_yet_is_passed_over() -> None:
    def function() -> Any:
        return later

    assert keeps(function) is None
    later = []
    assert keeps(function) == "captures the list `later`, which it might change"


def test_a_thousand_functions_that_call_each_other_do_not_end_in_recursion() -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec("\n".join(f"def f{i}(): return f{i + 1}()" for i in range(3000)), space)
    reason = keeps(space["f0"])
    assert reason is not None
    assert reason.endswith("so nobody knows what it might change")


def test_what_is_defined_in_main_is_the_users_whatever_was_started(
    notebook: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = types.ModuleType("__main__")
    main.__file__ = pytest.__file__
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert keeps(notebook["count"]) == "writes the global `counter`"


def test_what_hashes_stays_because_hashes_of_strings_differ_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def bucket(key: str) -> int:
        return hash(key) % 8

    monkeypatch.setenv("PYTHONHASHSEED", "random")
    if sys.flags.hash_randomization:
        assert "`hash`" in (keeps(bucket) or "")
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    assert keeps(bucket) is None

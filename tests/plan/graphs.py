"""Random graphs of Dask's nodes, and how to run a plan one task after another."""

from collections.abc import Hashable, Mapping
from typing import Any

from dask._task_spec import Alias, DataNode, Dict, List, Set, Task, TaskRef, Tuple
from hypothesis import strategies as st


def show(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """Return what it was called with, types included, so that no two different calls look alike."""
    return (
        "show",
        *((type(a).__name__, a) for a in args),
        *sorted((k, type(v).__name__, v) for k, v in kwargs.items()),
    )


def nothing(*args: Any, **kwargs: Any) -> None:
    """Return None, as a task may."""


def count(*args: Any, **kwargs: Any) -> int:
    """Return a number that depends on the number of arguments."""
    return len(args) + 10 * len(kwargs)


FUNCTIONS = (show, nothing, count)
DATA = st.sampled_from([None, 0, 1, True, 1.0, -0.0, 0.0, "x", b"x", (1, 2), "k0", slice(0, 3), ("k0", 1)])


@st.composite
def dask_graphs(draw: st.DrawFn, largest: int = 14) -> tuple[dict[Hashable, Any], list[Hashable]]:
    """Draw a graph and the keys to ask of it: diamonds, repeats, aliases, containers, kwargs, fused tasks, legacy."""
    graph: dict[Hashable, Any] = {}
    keys: list[Hashable] = []
    for number in range(draw(st.integers(1, largest))):
        key: Hashable = f"k{number}" if draw(st.booleans()) else ("k", number)
        graph[key] = draw(_node(key, keys))
        keys.append(key)
    wanted = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=4))
    return graph, wanted


@st.composite
def _node(draw: st.DrawFn, key: Hashable, keys: list[Hashable]) -> Any:
    kind = draw(st.sampled_from(["task", "task", "task", "chain", "chain", "alias", "data", "fused", "legacy"]))
    if kind == "data":
        return DataNode(key, draw(DATA))
    if not keys:
        return Task(key, show, draw(DATA))
    if kind == "chain":
        return Task(key, draw(st.sampled_from(FUNCTIONS)), TaskRef(keys[-1]), 1)
    if kind == "alias":
        return Alias(key, draw(st.sampled_from(keys)))
    if kind == "fused":
        return draw(_fused(key, keys))
    if kind == "legacy":
        used = draw(st.lists(st.sampled_from(keys), max_size=3))
        return (show, *used, draw(st.integers(0, 3)), [used, (show, 1)])
    args = draw(st.lists(_argument(keys), max_size=4))
    kwargs = draw(st.dictionaries(st.sampled_from(["a", "b"]), _argument(keys), max_size=2))
    return Task(key, draw(st.sampled_from(FUNCTIONS)), *args, **kwargs)


def _argument(keys: list[Hashable]) -> st.SearchStrategy[Any]:
    plain = DATA | st.sampled_from(keys).map(TaskRef) | st.sampled_from(keys).map(Alias)
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(lambda items: List(*items)),
            st.lists(inner, max_size=3).map(lambda items: Tuple(*items)),
            inner.map(lambda item: Set(Task(None, count, item))),
            inner.map(lambda item: Dict({"k": item, 2: 3})),
            inner.map(lambda item: DataNode(None, 5) if item is None else item),
            st.lists(inner, max_size=2).map(lambda items: Task(None, show, *items)),
            inner.map(lambda item: Task(None, show, 1, z=item)),
        ),
        max_leaves=4,
    )


@st.composite
def _fused(draw: st.DrawFn, key: Hashable, keys: list[Hashable]) -> Task:
    """A chain of tasks, some with other inputs too, some aliases or data, fused as Dask fuses them; maybe twice."""
    first = Task("inner0", show, TaskRef(draw(st.sampled_from(keys))), draw(DATA))
    parts: list[Any] = [first]
    for number in range(1, draw(st.integers(2, 5))):
        name, before = f"inner{number}", TaskRef(parts[-1].key)
        kind = draw(st.sampled_from(["task", "alias", "data", "deep"]))
        if kind == "alias":
            parts.append(Alias(name, before))
        elif kind == "data":
            parts.append(DataNode(f"data{number}", draw(DATA)))
            parts.append(Task(name, show, before, TaskRef(f"data{number}")))
        elif kind == "deep":
            other = draw(st.sampled_from([part.key for part in parts] + keys))
            inner = Task.fuse(Task("deep", show, before, TaskRef(other)), Task(name, show, TaskRef("deep")), key=name)
            parts.append(inner)
        else:
            parts.append(Task(name, show, before, List(draw(_argument(keys)), before)))
    return Task.fuse(*parts, key=key)


def run_in_order(plan: Any, given: Mapping[Hashable, Any] | None = None) -> dict[int, Any]:
    """Run the tasks by number, dropping each value once its consumers have run, and return those of the outputs.

    Fails if a value is still there that nobody needs, or is gone too early: it checks `uses` and `consumers`.
    """
    values: dict[int, Any] = {}
    left: dict[int, int] = {}
    for task in range(plan.size):
        if plan.is_given(task):
            assert given is not None
            values[task] = given[plan.key(task)]
        else:
            values[task] = plan.run(task, values)
        left[task] = plan.consumers(task)
        for parent, consumers in plan.uses(task):
            assert consumers == plan.consumers(parent)
            left[parent] -= 1
            if left[parent] == 0:
                del values[parent]
    assert set(values) == set(plan.outputs)
    return values
